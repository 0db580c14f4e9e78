"""Counters against events: what one step adds to a counter of KVM, it also tells by events.

Both begin equal and each step keeps them equal, so they are equal in every state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from fakesys.core.events import Bus
from fakesys.core.tracepoint import Tracepoint
from fakesys.machine.machine import Machine
from fakesys.subsystems.kvm.events.guest import KvmEmulateInsn, KvmHypercall
from fakesys.subsystems.kvm.events.lapic import KvmInjVirq
from fakesys.subsystems.kvm.events.run import KvmExit
from fakesys.subsystems.kvm.stats import STATS

# Counter -> the tracepoint that every increment emits.
TOLD: dict[str, type[Tracepoint]] = {
    "exits": KvmExit,
    "irq_injections": KvmInjVirq,
    "insn_emulation": KvmEmulateInsn,
    "hypercalls": KvmHypercall,
}
_STATS = {stat.key: stat for stat in STATS if stat.key in TOLD}
# Writes to these files set counters without events.
_CLEARED = "sys/kernel/debug/kvm/"


class Watch:
    """Counts the events of steps. Precondition of `begin`: the machine is where the step begins."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._bus: Bus | None = None
        self._told: Counter[type] = Counter()
        self._before: dict[str, int] = {}
        self._vms: tuple[str, ...] = ()

    def begin(self) -> None:
        """Begin a step."""
        bus = self._machine.kernel.bus
        kvm = self._machine.subsystems.kvm.kvm
        if kvm.vms and bus is not self._bus:
            # Models that were made anew emit on a bus of their own.
            self._bus = bus
            for kind in TOLD.values():
                bus.subscribe(kind, self._count)
        self._told.clear()
        self._vms = tuple(kvm.names)
        self._before = self._counters()

    def end(self, path: str) -> Iterator[str]:
        """Yield a line for each counter that the step, a write to `path`, did not tell of."""
        now = set(self._machine.subsystems.kvm.kvm.names)
        if not self._vms or set(self._vms) - now or path.startswith(_CLEARED):
            return
        for key, value in self._counters().items():
            counted, told = value - self._before.get(key, 0), self._told[TOLD[key]]
            if counted != told:
                yield f"the counter {key} rose by {counted}, with {told} events {TOLD[key].event}"

    def _count(self, event: object) -> None:
        self._told[type(event)] += 1

    def _counters(self) -> dict[str, int]:
        kvm = self._machine.subsystems.kvm.kvm
        if not kvm.vms:
            return {}
        return {key: kvm.read(stat) for key, stat in _STATS.items()}

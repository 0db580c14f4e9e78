"""A machine for tests of interrupt virtualization: commands, collected trace lines, views."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

import pytest

from fakesys.core.errors import KernelError
from fakesys.core.event_format import EventFormat, event_format
from fakesys.core.features import FeatureSet
from fakesys.core.tracepoint import Tracepoint
from fakesys.machine.machine import Machine
from fakesys.subsystems.kvm.events import avic as apicv_trace
from fakesys.subsystems.kvm.events import catalog as kvm_trace
from fakesys.subsystems.kvm.stats import STATS

FOLDER = "sys/kernel/debug/fakesys/kvm"
CTL = f"{FOLDER}/ctl"
PRESET = f"{FOLDER}/preset"
KERNELS = ("v3", "5.6", "6.1", "6.12", "6.18", "7.x")
BITS = ("5.6", "6.1", "6.12", "6.18", "7.x")
NEW = ("6.1", "6.12", "6.18", "7.x")
RIP = "rip 0xffffffff81000000"
EXIT = f"kvm_exit: reason {{}} {RIP} info {{}} {{}}"


@lru_cache
def formats(features: FeatureSet) -> tuple[tuple[type[Tracepoint], EventFormat], ...]:
    """Every event of KVM that a kernel with these features has."""
    kinds = enumerate((*kvm_trace.EVENTS, *apicv_trace.EVENTS), 1)
    found = ((kind, event_format(kind, number, features)) for number, kind in kinds)
    return tuple((kind, event) for kind, event in found if event is not None)


class Guests:
    """A machine whose APICv kernel is `kernel`; `lines` collects what is traced.

    `listens`: to all events of KVM; else nobody does, and the model books in bulk. kvm_amd has
    `avic=1`, which not every kernel has by itself.
    """

    def __init__(self, kernel: str = "v3", *, listens: bool = True) -> None:
        self.machine = Machine("6.18" if kernel in NEW else "seed")
        if self.machine.subsystems.kvm.apicv_kernel.name != kernel:
            self.machine.write(f"{FOLDER}/apicv_profile", kernel)
        self.machine.write(CTL, "modprobe avic=1")
        self.lines: list[str] = []
        if listens:
            for kind, event in formats(self.machine.subsystems.kvm.features):
                self.machine.kernel.bus.subscribe(kind, self._collect(event))

    def _collect(self, event: EventFormat) -> Callable[[Tracepoint], None]:
        # As a reader of `trace` gets it: what does not fit into the record is lost.
        return lambda e: self.lines.append(
            f"{event.event}: {event.text(event.decode(event.encode(e, 0)))}"
        )

    def __call__(self, *commands: str) -> list[str]:
        """Run commands; the lines of the last one."""
        for text in commands:
            self.lines.clear()
            self.machine.write(CTL, text)
        return list(self.lines)

    def preset(self, text: str) -> list[str]:
        """Run a preset; its lines."""
        self.lines.clear()
        self.machine.write(PRESET, text)
        return list(self.lines)

    def boot(self, vcpus: int = 2, options: str = "", *, handler: str = "manual") -> Guests:
        """A VM `g` with a kernel irqchip unless `options` say otherwise; all vCPUs in guest."""
        self("modprobe avic=1 npt=1 nested=1", f"vm create g {options}")
        self(f"g vcpu add count={vcpus}", f"g handler {handler}")
        for vcpu in range(1, vcpus):
            self(f"g vcpu {vcpu} start")
        self.clear()
        return self

    def with_pic(self) -> Guests:
        """vCPU 0 takes the PIC's interrupts, from vector 0x30."""
        self("g pic base=0x30 imr=0", "g vcpu 0 lvt0 extint")
        self.clear()
        return self

    def clear(self) -> None:
        """All counters are 0, no line is there."""
        for stat in STATS:
            self.machine.subsystems.kvm.kvm.clear(stat)
        self.lines.clear()

    def last(self) -> str:
        """The result of the last command."""
        return self.machine.read(f"{FOLDER}/last").rstrip("\n")

    def view(self, name: str, vm: str = "g") -> str:
        """A view of the VM."""
        return self.machine.read(f"{FOLDER}/vms/{vm}/{name}")

    def state(self, vm: str = "g") -> dict[str, str]:
        """`state` as a dictionary."""
        return dict(line.split(" ", 1) for line in self.view("state", vm).splitlines())

    def vcpu(self, number: int, vm: str = "g") -> dict[str, str]:
        """`vcpuN`: the words of its first line, and the counters."""
        first, *rest = self.view(f"vcpu{number}", vm).splitlines()
        words = dict(word.split("=", 1) for word in first.split())
        return words | dict(line.split(" ", 1) for line in rest)

    def counts(self, number: int, *names: str) -> tuple[int, ...]:
        """Counters of a vCPU."""
        found = self.vcpu(number)
        return tuple(int(found[name]) for name in names)

    def sums(self, *names: str, vm: str = "g") -> tuple[int, ...]:
        """Counters of the VM."""
        model = self.machine.subsystems.kvm.kvm.vm(vm)
        known = {stat.key: stat for stat in STATS}
        return tuple(model.read(known[name]) for name in names)

    def active(self, number: int = 0) -> bool:
        """Has the vCPU AVIC on?"""
        return self.vcpu(number)["apicv_active"] == "1"

    def warnings(self) -> str:
        """What the kernel would have warned about."""
        return self.machine.read(f"{FOLDER}/warnings")

    def refuses(self, errno: int, text: str, path: str = CTL) -> None:
        """The command is refused with this errno and changes nothing."""
        before = self.everything()
        self.lines.clear()
        with pytest.raises(KernelError) as refusal:
            self.machine.write(path, text)
        assert refusal.value.errno == errno, refusal.value
        assert self.lines == []
        assert self.everything() == before

    def everything(self) -> dict[str, str]:
        """All views and counters of all VMs."""
        found = {}
        for vm in self.machine.listdir(f"{FOLDER}/vms"):
            for name in self.machine.listdir(f"{FOLDER}/vms/{vm}"):
                if name not in ("dirty", "race", "shadow_pages"):
                    found[f"{vm}/{name}"] = self.view(name, vm)
        found["warnings"] = self.warnings()
        return found


def events(lines: Iterable[str]) -> list[str]:
    """The names of the events, in order."""
    return [line.split(":", 1)[0] for line in lines]


def only(lines: Iterable[str], *names: str) -> list[str]:
    """The lines of these events."""
    return [line for line in lines if line.split(":", 1)[0] in names]

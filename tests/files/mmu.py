"""A machine with one VM, driven by the files that a shell would use."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from fakesys.core.errors import KernelError
from fakesys.machine.machine import Machine

KVM = "sys/kernel/debug/kvm"
CONTROL = "sys/kernel/debug/fakesys/kvm"
TRACING = "sys/kernel/tracing"
MIB = 1 << 20
GIB = 1 << 30
DIRECTORY = f"{KVM}/77-10"

_LINE = re.compile(r"\s*\S.*-\d+\s+\[\d+\] \S+\s+\d+\.\d+: (\w+): ?(.*)")


class MmuVm:
    """VM `a` with vCPUs and, unless `size` is 0, memory A of that size in slot 0 at gpa 0.

    `knobs`: files below `fakesys/kvm/params`, written before the VM is made.
    """

    def __init__(
        self,
        kernel: str = "5.4",
        *,
        size: int = 64 * MIB,
        vcpus: int = 1,
        thp: int = 0,
        events: Iterable[str] = ("kvmmmu",),
        irqchip: str = "none",
        **knobs: object,
    ) -> None:
        self.machine = Machine(scenario="empty")
        self.machine.write(f"{CONTROL}/mmu_profile", f"{kernel}\n")
        # Unless a test asks for it, no VM has the TDP MMU.
        self.machine.write(f"{CONTROL}/params/paging", "tdp\n")
        for name, value in knobs.items():
            self.machine.write(f"{CONTROL}/params/{name}", f"{value}\n")
        # An irqchip in the kernel has a page of its own among the slots.
        self.ctl(f"vm create a pid=77 fd=10 irqchip={irqchip}")
        if vcpus:
            self.ctl(f"a vcpu add count={vcpus}")
        if size:
            self.ctl(f"a mem A size={size} thp={thp}")
            self.ctl(f"a slot 0 gpa=0 size={size} mem=A")
        for event in events:
            self.machine.write(f"{TRACING}/events/{event}/enable", "1")
        self.events()

    def ctl(self, command: str) -> dict[str, str]:
        """One command; the words of its result."""
        self.machine.write(f"{CONTROL}/ctl", f"{command}\n")
        first, *words = self.machine.read(f"{CONTROL}/last").split()
        assert first == "ok"
        return dict(word.split("=", 1) for word in words)

    def refused(self, errno: int, command: str) -> str:
        """The reason; `last` and `last_error` have it too, and nothing changed."""
        before = self.whole()
        with pytest.raises(KernelError) as refusal:
            self.machine.write(f"{CONTROL}/ctl", f"{command}\n")
        assert refusal.value.errno == errno, f"{command}: {refusal.value}"
        why = f"{refusal.value.name} {refusal.value.why}\n"
        assert self.machine.read(f"{CONTROL}/last") == f"error {why}"
        assert self.machine.read("sys/kernel/debug/fakesys/last_error").endswith(why)
        assert self.whole() == before, command
        return refusal.value.why

    def view(self, name: str) -> str:
        """A file of the VM below `fakesys/kvm/vms`."""
        return self.machine.read(f"{CONTROL}/vms/a/{name}")

    def mmu(self, key: str) -> int:
        """A number of the view `mmu`."""
        return int(dict(line.split() for line in self.view("mmu").splitlines())[key])

    def pages(self) -> list[list[str]]:
        """The words of each shadow page, newest first."""
        return [line.split() for line in self.view("shadow_pages").splitlines()]

    def counter(self, name: str) -> int:
        """A counter of the VM's debugfs directory."""
        return int(self.machine.read(f"{DIRECTORY}/{name}"))

    def counters(self) -> dict[str, int]:
        """Those that are not 0."""
        names = self.machine.listdir(DIRECTORY)
        files = (name for name in names if not name.startswith("vcpu") and name != "mmu_rmaps_stat")
        return {name: value for name in files if (value := self.counter(name))}

    def changes(self, command: str) -> dict[str, int]:
        """What one command adds to the counters."""
        before = self.counters()
        self.ctl(command)
        after = self.counters()
        changed = {name: after.get(name, 0) - before.get(name, 0) for name in before | after}
        return {name: by for name, by in changed.items() if by}

    def events(self) -> list[str]:
        """Lines `name: text` of the trace since the last call."""
        text = self.machine.read(f"{TRACING}/trace")
        # Opened as `>` does it, which clears the buffer.
        self.machine.write(f"{TRACING}/trace", "\n")
        found = (_LINE.fullmatch(line) for line in text.splitlines() if not line.startswith("#"))
        return [f"{line[1]}: {line[2]}" for line in found if line is not None]

    def told(self, name: str) -> list[str]:
        """The texts of the events of one kind since the last look at the trace."""
        return [
            text
            for event, _, text in (line.partition(": ") for line in self.events())
            if event == name
        ]

    def whole(self) -> tuple[object, ...]:
        """Everything that a command could change."""
        there = "a" in self.machine.listdir(f"{CONTROL}/vms")
        views = ("memslots", "mmu", "shadow_pages", "race") if there else ()
        return (self.counters(), *(self.view(name) for name in views))

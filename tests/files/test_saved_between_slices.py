"""A machine that is saved in the middle of a command in slices is whole, and so is its snapshot."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fakesys.core.scheduling.resched import state
from fakesys.machine.machine import Machine
from tests.long import LONG
from tests.whole_machine import CONTROL, CTL, attempt, differences, everything

# How often to look: at so many points, then at powers of this.
LOOKS, FACTOR = (20, 2) if LONG else (2, 8)
PROFILES = ("seed", "5.4", "6.1", "6.18") if LONG else ("6.1",)
VMS = "sys/kernel/debug/kvm"
NX = "sys/module/kvm/parameters/nx_huge_pages"


class Looker:
    """A call in slices that looks at the machine where another call could.

    At a point without a lock the machine is saved, and the snapshot loaded; with a lock files of
    the VMs are read.
    """

    def __init__(self, machine: Machine) -> None:
        self.locks = 0
        self.refusal: OSError | None = None
        self._machine = machine
        # By whether there is a lock: how many points, and which is looked at next.
        self._points = {True: 0, False: 0}
        self._next = {True: 0, False: 0}

    def give_way(self) -> None:
        """Look."""
        locked = self.locks > 0
        self._points[locked] += 1
        number = self._points[locked]
        if number <= LOOKS or number == self._next[locked]:
            self._next[locked] = number * FACTOR
            self._look(locked)

    def _look(self, locked: bool) -> None:
        state.running = None
        try:
            if locked:
                everything(self._machine, VMS)
                everything(self._machine, f"{CONTROL}/kvm/vms")
            else:
                self.save_and_load()
        finally:
            state.running = self

    def save_and_load(self) -> None:
        """Save the machine, and let another one become the same."""
        machine = self._machine
        copy = Machine("6.1", "selftest")
        copy.load(machine.save())
        assert differences(machine, copy) == []
        attempt(copy, CTL, "g vcpu 1 access w 0x100000000 n=10")
        attempt(copy, CTL, "vm destroy g")
        copy.save()
        everything(copy)
        assert copy.control.bugs == machine.control.bugs == []

    def rest(self) -> bool:
        """Let nobody in."""
        return False

    def take_repeated(self) -> bool:
        """Return False: nothing came before."""
        return False

    def finish(self, refusal: OSError) -> None:
        """Fail: it is the running call."""
        raise AssertionError(refusal)

    def run_until(self, done: Callable[[], bool]) -> None:
        """Fail: it is the running call."""
        raise AssertionError(done)


def guest(machine: Machine, name: str = "g") -> None:
    for line in (
        *(f"vm create {name}", f"{name} vcpu add count=2", f"{name} mem m size=1G"),
        f"{name} slot 1 gpa=0x100000000 size=1G mem=m",
        f"{name} mem n size=64M",
        f"{name} slot 0 gpa=0 size=64M mem=n",
        f"{name} guest_tables",
        *(f"{name} vcpu 0 access w 0x100000000 n=150000", f"{name} vcpu 1 access w 0 n=5000"),
    ):
        machine.write(CTL, line)


COMMANDS = {
    "access": (CTL, "g vcpu 1 access w 0x100000000 n=262144"),
    "access with gaps": (CTL, "g vcpu 1 access r 0x100000000 n=3000 stride=12288"),
    "race": (CTL, "g race slot=1 vcpus=4 ws=32M max_rounds=200"),
    "destroy": (CTL, "vm destroy g"),
    "delete a slot": (CTL, "g slot 1 gpa=0x100000000 size=0"),
    "move a slot": (CTL, "g slot 1 gpa=0x200000000 size=1G mem=m"),
    "log dirty pages": (CTL, "g slot 1 gpa=0x100000000 size=1G mem=m flags=log_dirty"),
    "guest tables": (CTL, "g guest_tables n=20"),
    "shrink": (CTL, "shrink n=100"),
    "more vCPUs": (CTL, "g vcpu add count=40"),
    "preset": (f"{CONTROL}/kvm/preset", "linux-boot vcpus=4 name=boot"),
    "time": (f"{CONTROL}/clock/advance", "100000"),
    "nx_huge_pages": (NX, "force"),
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("profile", PROFILES)
def test_a_snapshot_between_two_slices_is_whole(profile: str, name: str) -> None:
    machine = Machine(profile, "default", selftest=True)
    if name == "race":
        # With the TDP MMU nothing keeps a zap from ending.
        machine.write(f"{CONTROL}/kvm/params/paging", "tdp")
    guest(machine)
    guest(machine, "h")
    path, text = COMMANDS[name]
    looker = Looker(machine)
    state.running = looker
    try:
        assert attempt(machine, path, text) == "ok"
    finally:
        state.running = None
    print(profile, name, looker._points)
    looker.save_and_load()

"""Calls in slices that a signal ends, as the models see them: without a transport."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EINTR

import pytest

from fakesys.core.errors import KernelError
from fakesys.core.scheduling import resched
from fakesys.machine.machine import Machine

F = "sys/kernel/debug/fakesys"


class SignalAfter:
    """A call in slices to which a signal comes at its `count`th point of rest."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._signal = KernelError(EINTR, "a signal")
        self.locks = 0

    @property
    def refusal(self) -> KernelError | None:
        """EINTR from the signal on."""
        return None if self._left > 0 else self._signal

    def give_way(self) -> None:
        """Count the points of rest."""
        self._left -= 1

    def take_repeated(self) -> bool:
        """No: nothing came before."""
        return False

    def finish(self, refusal: OSError) -> None:
        """Never called."""
        raise AssertionError(refusal)

    def rest(self) -> bool:
        """Let nobody in."""
        return False

    def run_until(self, done: Callable[[], bool]) -> None:
        """Never called."""
        raise AssertionError(done)


@contextmanager
def signal_after(count: int) -> Iterator[None]:
    """A signal comes at this point of rest of what the block does, which is refused with EINTR."""
    resched.state.running = SignalAfter(count)
    try:
        with pytest.raises(KernelError) as caught:
            yield
    finally:
        resched.state.running = None
    assert caught.value.errno == EINTR


@pytest.fixture
def machine() -> Machine:
    return Machine("6.1", "selftest")


def test_the_time_moves_to_the_last_timer_before_the_signal(machine: Machine) -> None:
    for seconds in range(1, 11):
        machine.clock.after(seconds, lambda: None)
    with signal_after(4):
        machine.write(f"{F}/clock/advance", "20")
    assert machine.clock.now == 3
    machine.write(f"{F}/clock/advance", "17")
    assert machine.clock.now == 20


def test_work_ends(machine: Machine) -> None:
    with signal_after(5):
        machine.write(f"{F}/selftest/work", "1000")
    machine.write(f"{F}/selftest/work", "10")


def ctl(machine: Machine, *lines: str) -> None:
    for line in lines:
        machine.write(f"{F}/kvm/ctl", line)


def small_guest(machine: Machine) -> None:
    machine.write(f"{F}/kvm/params/paging", "tdp")
    ctl(
        machine,
        *("vm create g", "g vcpu add count=2", "g mem m size=64M"),
        *("g slot 0 gpa=0 size=64M mem=m", "g guest_tables", "g vcpu 0 setup"),
    )


def stat(machine: Machine, name: str) -> int:
    (vm,) = machine.subsystems.kvm.kvm.vms
    return int(machine.read(f"sys/kernel/debug/kvm/{vm.directory}/{name}"))


def test_what_a_guest_has_accessed_before_the_signal_stays(machine: Machine) -> None:
    small_guest(machine)
    with signal_after(11):
        ctl(machine, "g vcpu 0 access w 0x400000 n=4000 stride=8192")
    assert 0 < stat(machine, "pf_taken") <= 11
    assert machine.read(f"{F}/kvm/last") == "error EINTR a signal\n"
    exits = stat(machine, "signal_exits")
    with signal_after(11):
        ctl(machine, "g vcpu 0 run wloop=0x400000,100")
    assert stat(machine, "signal_exits") == exits + 1
    ctl(machine, "g vcpu 0 run wloop=0x400000,100")


@pytest.mark.parametrize("count", [1, 3, 6, 8])
def test_a_race_deletes_the_slot_or_leaves_all_as_it_was(machine: Machine, count: int) -> None:
    small_guest(machine)
    ctl(machine, "g mem n size=256M", "g slot 1 gpa=0x10000000 size=256M mem=n")
    ctl(machine, "g vcpu 0 access w 0x10000000 n=65536")
    with signal_after(count):
        ctl(machine, "g race slot=1 vcpus=4 ws=32M")
    slots = machine.read(f"{F}/kvm/vms/g/memslots").splitlines()
    assert len([line for line in slots if line.startswith("1 ")]) <= 1
    assert not [line for line in slots if line.startswith("1048576 ")]
    ctl(machine, "g vcpu 0 run wloop=0x400000,100")
    machine.write(f"{F}/kvm/ctl", "vm destroy g")


def test_a_boot_ends_between_two_of_its_steps(machine: Machine) -> None:
    with signal_after(20):
        machine.write(f"{F}/kvm/preset", "linux-boot vcpus=4")
    ctl(machine, "g vcpu 0 stop", "vm destroy g")


def test_faults_and_recordings_hear_of_it(machine: Machine) -> None:
    with signal_after(2):
        machine.write(f"{F}/selftest/work", "100")
    assert " EINTR " in machine.read(f"{F}/last_error")

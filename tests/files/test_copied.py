"""Files whose text a copy of the daemon makes, where there is no room for a copy, and signals."""

from __future__ import annotations

import os
from collections.abc import Iterator
from errno import EAGAIN, ENOMEM

import pytest

from fakesys.core.copying.copies import pipes
from fakesys.core.errors import KernelError
from fakesys.core.scheduling.resched import state
from fakesys.machine.machine import Machine
from tests.files.test_interrupted import signal_after
from tests.whole_machine import CONTROL, differences


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    machine = Machine("6.1", "selftest")
    pipes.open(lambda _descriptor, _action: None)
    monkeypatch.setattr(state, "serving", True)
    yield machine
    pipes.close()


@pytest.mark.parametrize("name", ["state", "snapshot"])
def test_a_copy_is_refused(machine: Machine, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def fork() -> int:
        raise OSError(EAGAIN, os.strerror(EAGAIN))

    monkeypatch.setattr(os, "fork", fork)
    with pytest.raises(KernelError) as caught:
        machine.read(f"{CONTROL}/{name}")
    assert caught.value.errno == ENOMEM
    assert machine.control.bugs == []


@pytest.mark.parametrize("count", [1, 9, 12])
def test_a_signal_ends_a_load_and_the_machine_is_as_before(count: int) -> None:
    machine, other = Machine("6.1", "selftest"), Machine("6.1", "selftest")
    for number in range(3):
        other.write(f"{CONTROL}/kvm/ctl", f"vm create v{number}")
    saved = other.save()
    with signal_after(count):
        machine.write(f"{CONTROL}/snapshot", saved.decode("latin-1"))
    before = Machine("6.1", "selftest")
    assert [path for path, *_ in differences(machine, before)] == [f"{CONTROL}/last_error"]
    assert " EINTR " in machine.read(f"{CONTROL}/last_error")
    machine.load(saved)
    assert len(machine.subsystems.kvm.kvm.vms) == 3

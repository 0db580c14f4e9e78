"""What comes between a program and the files, in memory: this process is the program."""

from __future__ import annotations

import os
from errno import ENOSPC, ENOTDIR

import pytest

from fakesys.core.errors import KernelError
from fakesys.core.kernel import Caller
from fakesys.machine.machine import Machine
from fakesys.sweep.disturbances import Disturbance
from fakesys.sweep.operations import Names
from fakesys.sweep.watch import Aim, Watch

MASK = "sys/bus/ap/apmask"


def begun(machine: Machine, aim: Aim | None = None) -> Watch:
    """A watch of this process."""
    machine.kernel.caller = Caller(os.getpid(), 0, 0)
    watch = Watch(machine, lambda: None)
    # As if the parent of this process led the session of a program.
    watch.begin(os.getppid(), aim)
    return watch


def test_operations_are_recorded_in_order_until_the_end() -> None:
    machine = Machine()
    watch = begun(machine)
    machine.read(MASK)
    machine.write(MASK, "-5")
    machine.fs.opendir(machine.fs.resolve("sys/bus/ap"))
    watch.end()
    machine.read(MASK)
    found = [(one.kind, one.nth, one.device) for one in watch.operations]
    assert found == [
        ("open", 0, ""),
        ("read", 0, ""),
        ("open", 1, ""),
        ("write", 0, "card05"),
        ("readdir", 0, ""),
    ]
    assert "EBUSY" in watch.operations[3].errnos


def test_the_aim_is_refused_once_and_nothing_changes() -> None:
    machine = Machine()
    before = machine.read(MASK)
    first = begun(machine)
    machine.write(MASK, "+0")
    watch = begun(machine, Aim(first.operations[1].key, Disturbance("errno", "ENOSPC")))
    with pytest.raises(KernelError) as refusal:
        machine.write(MASK, "-5")
    assert refusal.value.errno == ENOSPC
    assert watch.reached
    assert watch.operations[-1].result == "ENOSPC"
    assert machine.read(MASK) == before
    machine.write(MASK, "-5")
    assert machine.read(MASK) != before


def test_only_directories_are_listed() -> None:
    machine = Machine()
    with pytest.raises(KernelError) as refusal:
        machine.fs.opendir(machine.fs.resolve(MASK))
    assert refusal.value.errno == ENOTDIR


def test_names_count_what_exists() -> None:
    one, two, own = (f"{digit * 8}-1111-4111-8111-111111111111" for digit in "abc")
    names = Names(own)
    assert names.normal(f"{two} {one} {own}") == f"{{uuid1}} {{uuid2}} {own}"
    assert names.real("x/{uuid2}") == f"x/{one}"
    assert names.state({f"x/{one}": two[:8], own: ""}) == {"x/{uuid1}": two[:8], own: ""}

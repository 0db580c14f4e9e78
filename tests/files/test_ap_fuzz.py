"""Garbage into every writable file of the AP part: no internal error, refusals change nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from fakesys.core.errors import Blocked, KernelError
from fakesys.machine.kernels.ap import AP_KERNELS
from fakesys.machine.machine import Machine
from fakesys.tree.node import Directory, File
from tests.files.ap import (
    BUS,
    CONTROL,
    FAULTS,
    MATRIX,
    ROOT,
    U1,
    every_kernel,
    free_all,
    machine_of,
    new_guest,
    new_mdev,
)
from tests.garbage import texts
from tests.long import LONG

LEVELS = (
    (*AP_KERNELS.series.levels(), "v6-10-03", "v6-10-07-08") if LONG else ("5.3", "v6-03", "v6-07")
)
WRITES = int(os.environ.get("FAKESYS_FUZZ_WRITES", "1500"))


def writable(machine: Machine) -> list[str]:
    """The paths of all files that can be written."""
    return [
        file.path
        for root in (BUS, ROOT, MATRIX, CONTROL, FAULTS)
        for file in files(machine.fs.resolve(root))
        # The generic faults would strike the test itself.
        if file.mode & 0o200 and file.name not in ("store", "show", "delay")
    ]


def files(directory: object) -> Iterator[File]:
    assert isinstance(directory, Directory)
    for _, node in list(directory.entries()):
        if isinstance(node, File):
            yield node
        elif isinstance(node, Directory):
            yield from files(node)


def attempt(machine: Machine, path: str, data: bytes) -> bool:
    """Was it taken? A refusal must leave the whole state as it was."""
    before = machine.subsystems.ap.system.state()
    try:
        machine.write(path, data.decode("latin-1"))
    except (KernelError, Blocked):
        assert machine.subsystems.ap.system.state() == before, (path, data[:80])
        return False
    return True


@every_kernel
def test_garbage(kernel: str) -> None:
    write_garbage(machine_of(kernel), WRITES)


@pytest.mark.parametrize("level", LEVELS)
def test_garbage_in_the_levels_of_the_series(level: str) -> None:
    machine = machine_of()
    machine.write(f"{CONTROL}/profile", level)
    write_garbage(machine, WRITES if LONG else 300)


def write_garbage(machine: Machine, writes: int) -> None:
    """Write texts that no file expects to all files."""
    garbage = texts(7)
    taken = refused = 0
    paths: list[str] = []
    for turn in range(writes):
        if turn % 150 == 0:
            machine.write(f"{CONTROL}/reset", "1")
            # A removal that waits has begun, and is no refusal.
            machine.write(f"{CONTROL}/remove_policy", "ebusy")
            free_all(machine)
            new_mdev(machine, U1, "5 6", "4 0x47")
            new_guest(machine, "guest1", U1)
            paths = writable(machine)
        path = paths[(turn * 7) % len(paths)]
        try:
            node = machine.fs.resolve(path)
        except KernelError:
            continue
        assert isinstance(node, File)
        if attempt(machine, path, next(garbage)):
            taken += 1
        else:
            refused += 1
    assert machine.control.bugs == []
    assert min(taken, refused) > writes // 30


@pytest.mark.parametrize("size", [4096, 1 << 20])
def test_blobs_of_digits_are_numbers_too_long(size: int) -> None:
    machine = machine_of()
    path = new_mdev(machine)
    for target in (f"{path}/assign_adapter", f"{CONTROL}/lpar/max_adapter_id"):
        with pytest.raises(KernelError, match="ERANGE"):
            machine.write(target, "9" * size)

"""What a directory of many names costs is done in slices, and a signal ends it."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from errno import EINTR

import pytest

from fakesys.transport import slices
from fakesys.transport.fuse import invalidation, listing, names
from fakesys.transport.fuse.protocol import FORGET_ONE, Notify, Op
from tests.transport.test_listing import Reader, entries
from tests.transport.test_session import Wire, init_body, write_body

CTL = "sys/kernel/debug/fakesys/kvm/ctl"
VMS = "sys/kernel/debug/fakesys/kvm/vms"
COUNT = 10


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    monkeypatch.setattr(listing, "FEW_NAMES", 5)
    monkeypatch.setattr(listing, "_OFTEN", 0)
    monkeypatch.setattr(names, "FEW_FORGOTTEN", 5)
    monkeypatch.setattr(invalidation, "MANY_NAMES", 5)
    monkeypatch.setattr(slices, "SLICE_SECONDS", -1.0)
    wire = Wire()
    wire.ask(Op.INIT, 0, init_body(7, 44))
    for number in range(COUNT):
        wire.machine.write(CTL, f"vm create v{number}\n")
    wire.session.settle()
    while wire.message():
        pass
    yield wire
    wire.close()


def begin(wire: Wire, reader: Reader) -> int:
    """Begin to list a directory; the number of the request."""
    body = struct.pack("<QQIIQII", reader.number, 0, 4096, 0, 0, 0, 0)
    return wire.send(Op.READDIRPLUS, reader.nodeid, body)


def known(wire: Wire) -> int:
    """How many nodes the session thinks the kernel knows."""
    return len(wire.session.invalidator._nodes)


def test_a_long_directory_is_listed_in_slices(wire: Wire) -> None:
    unique = begin(wire, Reader(wire, VMS))
    rounds = 0
    while (answer := wire.answer()) is None:
        wire.session.work()
        rounds += 1
    assert rounds > COUNT
    assert answer[:2] == (unique, 0)
    found = [entry.name for entry in entries(answer[2], plus=True)]
    assert found == [".", "..", *wire.machine.listdir(VMS)]
    # It is kept.
    begin(wire, Reader(wire, VMS))
    assert wire.answer() is not None


def test_names_that_change_meanwhile(wire: Wire) -> None:
    reader = Reader(wire, VMS)
    unique = begin(wire, reader)
    for _ in range(3):
        wire.session.work()
    last = wire.machine.listdir(VMS)[-1]
    wire.machine.write(CTL, f"vm destroy {last}\n")
    wire.session.settle()
    while (answer := wire.message()) is None or answer[0] != unique:
        wire.session.work()
    found = [entry.name for entry in entries(answer[2], plus=True)]
    assert len(found) == COUNT + 1
    assert last not in found


def test_a_signal_ends_a_listing_and_leaves_no_reference(wire: Wire) -> None:
    reader = Reader(wire, VMS)
    before = known(wire)
    unique = begin(wire, reader)
    for _ in range(3):
        wire.session.work()
    wire.send(Op.INTERRUPT, 0, struct.pack("<Q", unique))
    assert wire.answer() == (unique, EINTR, b"")
    wire.session.work()
    assert not wire.session.working
    assert known(wire) == before


def test_many_nodes_are_forgotten_in_slices(wire: Wire) -> None:
    numbers = {wire.walk(f"{VMS}/{name}") for name in wire.machine.listdir(VMS)}
    before = known(wire)
    pairs = b"".join(FORGET_ONE.pack(number, 1) for number in sorted(numbers))
    wire.send(Op.BATCH_FORGET, 0, struct.pack("<II", len(numbers), 0) + pairs)
    assert known(wire) == before
    wire.session.work()
    assert known(wire) >= before - 1
    while wire.session.working:
        wire.session.work()
    assert known(wire) == before - len(numbers)


@pytest.mark.parametrize(("few", "by_entry"), [(10, True), (0, False)])
def test_a_few_stale_names_of_many_go_by_entry(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, few: int, by_entry: bool
) -> None:
    monkeypatch.setattr(invalidation, "FEW_STALE", few)
    for name in wire.machine.listdir(VMS):
        wire.walk(f"{VMS}/{name}/mmu")
    handle = wire.open(CTL, os.O_WRONLY)
    wire.kernel.setblocking(True)
    wire.kernel.settimeout(10)
    writing = wire.send(Op.WRITE, 0, write_body(handle, b"vm destroy v3\n"))
    found = list[int]()
    while (message := wire.kernel.recv(1 << 16))[8:16] != struct.pack("<Q", writing):
        found.append(struct.unpack_from("<i", message, 4)[0])
    assert (Notify.INVAL_ENTRY in found) is by_entry
    assert (Notify.INC_EPOCH in found) is not by_entry

"""Listings without a kernel: pieces of any size, names that come and go, what is told again."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from fakesys.transport.fuse.protocol import ENTRY_OUT, ROOT_ID, Notify, Op
from tests.mounts import wait_until
from tests.transport.test_session import Wire

DEVICES = "sys/devices/virtual/selftest"
CREATE = "sys/kernel/debug/fakesys/selftest/create"
REMOVE = "sys/kernel/debug/fakesys/selftest/remove"


class Entry(NamedTuple):
    """One entry of an answer. `nodeid`: None in a plain listing, 0 where nothing is told."""

    name: str
    ino: int
    position: int
    nodeid: int | None = None


def entries(answer: bytes, *, plus: bool) -> Iterator[Entry]:
    at = 0
    while at < len(answer):
        nodeid = struct.unpack_from("<Q", answer, at)[0] if plus else None
        at += ENTRY_OUT.size if plus else 0
        ino, position, length, _ = struct.unpack_from("<QQII", answer, at)
        name = answer[at + 24 : at + 24 + length].decode()
        yield Entry(name, ino, position, nodeid)
        at += (24 + length + 7) // 8 * 8


class Reader:
    """An open directory."""

    def __init__(self, wire: Wire, path: str) -> None:
        self.wire = wire
        self.nodeid = wire.walk(path) if path else ROOT_ID
        error, data = wire.ask(Op.OPENDIR, self.nodeid, bytes(8))
        assert not error
        self.number = struct.unpack_from("<Q", data)[0]

    def piece(self, position: int, size: int = 4096, *, plus: bool = False) -> list[Entry]:
        op = Op.READDIRPLUS if plus else Op.READDIR
        body = struct.pack("<QQIIQII", self.number, position, size, 0, 0, 0, 0)
        error, answer = self.wire.ask(op, self.nodeid, body)
        assert not error
        assert len(answer) <= size
        return list(entries(answer, plus=plus))

    def all(self, size: int = 4096, *, plus: bool = False) -> list[Entry]:
        found: list[Entry] = []
        while piece := self.piece(found[-1].position if found else 0, size, plus=plus):
            found += piece
        return found


def names(found: list[Entry]) -> list[str]:
    return [entry.name for entry in found]


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.close()


def store(wire: Wire, path: str) -> list[tuple[int, bytes]]:
    """Write to a control file; the messages that forget names."""
    wire.machine.fs.served = True
    wire.machine.write(path, "1\n")
    wire.session.settle()
    # The notifier thread sends the messages that take a lock.
    wait_until(lambda: bool(wire.soon) or not wire.session._unsettled.steps)
    found = []
    while (message := wire.message()) is not None:
        if message[1] in (Notify.INC_EPOCH, Notify.INVAL_ENTRY):
            found.append((message[1], message[2][16:-1]))
    while wire.soon:
        wire.soon.pop()()
    return found


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("size", [200, 333, 1000, 1 << 16])
def test_pieces_of_any_size_make_the_same_listing(wire: Wire, size: int, plus: bool) -> None:
    path = "sys/kernel/debug/fakesys"
    found = Reader(wire, path).all(size, plus=plus)
    assert names(found) == [".", "..", *wire.machine.listdir(path)]
    assert [entry.position for entry in found] == list(range(1, len(found) + 1))
    assert found[0].ino != found[1].ino
    assert len({entry.ino for entry in found}) == len(found)


def test_nothing_fits_or_nothing_is_left(wire: Wire) -> None:
    reader = Reader(wire, "")
    assert reader.piece(0, 8) == []
    assert reader.piece(10_000) == []
    assert reader.piece(0, 100, plus=True) == []
    assert reader.piece(10_000, plus=True) == []


@pytest.mark.parametrize("plus", [False, True])
def test_the_next_listing_knows_what_came_and_went(wire: Wire, plus: bool) -> None:
    def there() -> bool:
        return "selftest0" in names(Reader(wire, DEVICES).all(plus=plus))

    assert there()
    store(wire, REMOVE)
    assert not there()
    store(wire, CREATE)
    assert there()
    assert there()


def test_a_listing_under_way_leaves_out_what_went_and_does_not_show_what_came(wire: Wire) -> None:
    reader, other = Reader(wire, DEVICES), Reader(wire, DEVICES)
    assert names(reader.piece(0, 64)) == [".", ".."]
    assert names(other.piece(0, 64)) == [".", ".."]
    store(wire, REMOVE)
    assert reader.piece(2) == []
    store(wire, CREATE)
    # The name is there again; it keeps its position.
    assert [entry[0::2] for entry in reader.piece(2)] == [("selftest0", 3)]
    store(wire, REMOVE)
    assert other.piece(2) == []
    assert names(other.piece(0)) == [".", ".."]


def test_reading_may_begin_in_the_middle(wire: Wire) -> None:
    assert names(Reader(wire, "").piece(2)) == wire.machine.listdir("")


def test_a_directory_that_is_gone_has_no_names(wire: Wire) -> None:
    reader = Reader(wire, f"{DEVICES}/selftest0")
    assert len(reader.all()) > 2
    store(wire, REMOVE)
    assert names(reader.all()) == [".", ".."]


def test_what_the_kernel_knows_is_not_told_again_until_it_is_corrected(wire: Wire) -> None:
    path = "sys/bus/selftest"
    told = [entry.nodeid for entry in Reader(wire, path).all(plus=True)]
    assert told[:2] == [0, 0]
    assert 0 not in told[2:]
    assert not any(entry.nodeid for entry in Reader(wire, path).all(plus=True))
    # Anything that the kernel is told may concern one of them.
    store(wire, "sys/kernel/debug/fakesys/selftest/remove")
    assert [entry.nodeid for entry in Reader(wire, path).all(plus=True)] == told
    assert not any(entry.nodeid for entry in Reader(wire, path).all(plus=True))


def test_what_the_kernel_forgot_is_told_again(wire: Wire) -> None:
    path = f"{DEVICES}/selftest0"
    found = Reader(wire, path).all(plus=True)
    forgotten = found[2]
    wire.send(Op.FORGET, forgotten.ino, struct.pack("<Q", 1))
    again = Reader(wire, path).all(plus=True)
    assert [entry for entry in again if entry.nodeid] == [forgotten]
    assert forgotten.nodeid == forgotten.ino


def test_a_reader_that_tells_all_goes_on_telling_while_another_begins(wire: Wire) -> None:
    path = f"{DEVICES}/selftest0"
    reader = Reader(wire, path)
    first = reader.piece(0, 600, plus=True)
    Reader(wire, path).all(plus=True)
    rest = reader.piece(first[-1].position, plus=True)
    assert rest
    assert all(entry.nodeid for entry in rest)


def test_gone_names_of_a_listed_directory_are_forgotten_one_by_one_too(wire: Wire) -> None:
    """The kernel may give names of an unused answer an epoch that comes after their end."""
    epoch, name = (Notify.INC_EPOCH, b""), (Notify.INVAL_ENTRY, b"selftest0")
    wire.walk(f"{DEVICES}/selftest0")
    assert store(wire, REMOVE) == [epoch]
    store(wire, CREATE)
    Reader(wire, DEVICES).all(plus=True)
    assert store(wire, REMOVE) == [epoch, name]
    store(wire, CREATE)
    wire.walk(f"{DEVICES}/selftest0")
    # That answer was used before the kernel took the lock for the message.
    assert store(wire, REMOVE) == [epoch]

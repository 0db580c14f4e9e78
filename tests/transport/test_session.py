"""The session without a kernel: requests are given as bytes, answers are read from a socket."""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from errno import EINTR, EIO, ENODEV, ENOSYS, EPROTO, ESTALE

import pytest

from fakesys.core.errors import Blocked, KernelError, Waiters
from fakesys.machine.machine import Machine
from fakesys.transport.fuse.protocol import ROOT_ID, Notify, Op
from fakesys.transport.fuse.session import Session
from fakesys.transport.watchdog import Watchdog

STREAM = "sys/kernel/debug/fakesys/uevents_pipe"


class Wire:
    """A session and the kernel's side of its device."""

    def __init__(self, watchdog: Watchdog | None = None) -> None:
        self.machine = Machine(scenario="selftest")
        self.kernel, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.kernel.setblocking(False)
        self._ours = ours
        self.soon: list[Callable[[], None]] = []
        self.session = Session(
            self.machine, ours.fileno(), run_soon=self.soon.append, watchdog=watchdog
        )
        self._unique = 0
        self.thread = 42

    def send(self, op: int, nodeid: int = ROOT_ID, body: bytes = b"") -> int:
        """One request; its number."""
        self._unique += 2
        ids = (0, 0, self.thread)
        head = struct.pack("<IIQQIIIHH", 40 + len(body), op, self._unique, nodeid, *ids, 0, 0)
        message = head + body
        self.session.buffer[: len(message)] = message
        self.session.step(len(message))
        return self._unique

    def message(self) -> tuple[int, int, bytes] | None:
        """Number, negative errno or code, and data of the next message, None if there is none."""
        try:
            message = self.kernel.recv(1 << 20)
        except BlockingIOError:
            return None
        _, error, unique = struct.unpack_from("<IiQ", message)
        return unique, error, message[16:]

    def answer(self) -> tuple[int, int, bytes] | None:
        """Number, errno and data of the next message, without sizes, None if there is none."""
        while (message := self.message()) and message[:2] == (0, Notify.STORE):
            pass
        return message and (message[0], -message[1], message[2])

    def ask(self, op: int, nodeid: int = ROOT_ID, body: bytes = b"") -> tuple[int, bytes]:
        """One request and its answer: errno and data."""
        unique = self.send(op, nodeid, body)
        answer = self.answer()
        assert answer is not None
        assert answer[0] == unique
        return answer[1:]

    def walk(self, path: str) -> int:
        """The node number of a path."""
        nodeid = ROOT_ID
        for name in path.split("/"):
            error, data = self.ask(Op.LOOKUP, nodeid, name.encode() + b"\0")
            assert not error
            nodeid = struct.unpack_from("<Q", data)[0]
        return nodeid

    def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        """The handle number of an open file."""
        error, data = self.ask(Op.OPEN, self.walk(path), struct.pack("<II", flags, 0))
        assert not error
        return int(struct.unpack_from("<Q", data)[0])

    def close(self) -> None:
        """Both ends."""
        self.session.close()
        self.kernel.close()
        self._ours.close()


def read_body(handle: int, flags: int = 0) -> bytes:
    """The body of a READ request."""
    return struct.pack("<QQIIQII", handle, 0, 4096, 2, 0, flags, 0)


def write_body(handle: int, data: bytes) -> bytes:
    """The body of a WRITE request."""
    return struct.pack("<QQIIQII", handle, 0, len(data), 0, 0, 0, 0) + data


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.close()


def init_body(major: int, minor: int) -> bytes:
    return struct.pack("<IIII", major, minor, 0, 0)


def test_init_of_a_too_old_kernel_is_refused(wire: Wire) -> None:
    assert wire.ask(Op.INIT, 0, init_body(7, 30)) == (EPROTO, b"")
    assert not wire.session.started


def test_init_of_the_next_major_version_is_answered_with_ours_and_then_again(wire: Wire) -> None:
    error, data = wire.ask(Op.INIT, 0, init_body(8, 0))
    assert (error, struct.unpack_from("<I", data)[0]) == (0, 7)
    assert not wire.session.started
    assert wire.ask(Op.INIT, 0, init_body(7, 45))[0] == 0
    assert wire.session.started


@pytest.mark.parametrize(("minor", "by_epoch"), [(43, False), (44, True)])
def test_the_epoch_is_for_kernels_that_have_it(wire: Wire, minor: int, by_epoch: bool) -> None:
    wire.ask(Op.INIT, 0, init_body(7, minor))
    assert wire.session.invalidator.by_epoch is by_epoch


def test_an_unknown_request_and_flush_are_enosys(wire: Wire) -> None:
    assert wire.ask(999) == (ENOSYS, b"")
    assert wire.ask(Op.FLUSH) == (ENOSYS, b"")


def test_a_name_that_is_not_there_may_be_remembered(wire: Wire) -> None:
    error, data = wire.ask(Op.LOOKUP, ROOT_ID, b"absent\0")
    nodeid, _, seconds = struct.unpack_from("<QQQ", data)
    assert (error, nodeid, seconds) == (0, 0, 3600)


def test_a_forgotten_node_is_estale(wire: Wire) -> None:
    nodeid = wire.walk("sys")
    assert wire.ask(Op.GETATTR, nodeid, bytes(16))[0] == 0
    wire.send(Op.FORGET, nodeid, struct.pack("<Q", 1))
    assert wire.answer() is None
    assert wire.ask(Op.GETATTR, nodeid, bytes(16)) == (ESTALE, b"")
    label = bytes(8) + b"security.capability\0"
    assert wire.ask(Op.GETXATTR, nodeid, label) == (ESTALE, b"")


def test_a_blocked_read_is_answered_after_the_write_that_wakes_it(wire: Wire) -> None:
    device = "sys/devices/virtual/selftest/selftest0/uevent"
    stream, uevent = wire.open(STREAM), wire.open(device, os.O_WRONLY)
    while (got := wire.ask(Op.READ, 0, read_body(stream, os.O_NONBLOCK)))[1]:
        assert not got[0]
    waiting = wire.send(Op.READ, 0, read_body(stream))
    assert wire.answer() is None
    writing = wire.send(Op.WRITE, 0, write_body(uevent, b"change\n"))
    first, second = wire.answer(), wire.answer()
    assert first is not None
    assert second is not None
    assert (first[0], second[0]) == (writing, waiting)
    assert second[2].startswith(b"ACTION=change\n")


def test_an_interrupt_ends_a_blocked_read_once(wire: Wire) -> None:
    stream = wire.open(STREAM)
    while wire.ask(Op.READ, 0, read_body(stream, os.O_NONBLOCK))[1]:
        pass
    waiting = wire.send(Op.READ, 0, read_body(stream))
    wire.send(Op.INTERRUPT, 0, struct.pack("<Q", waiting))
    assert wire.answer() == (waiting, EINTR, b"")
    wire.send(Op.INTERRUPT, 0, struct.pack("<Q", waiting))
    assert wire.answer() is None


def test_what_waits_is_answered_when_the_mount_goes(wire: Wire) -> None:
    stream = wire.open(STREAM)
    while wire.ask(Op.READ, 0, read_body(stream, os.O_NONBLOCK))[1]:
        pass
    waiting = wire.send(Op.READ, 0, read_body(stream))
    wire.session.close()
    assert wire.answer() == (waiting, ENODEV, b"")


def test_a_blocked_write_is_repeated_whole(wire: Wire) -> None:
    gate, attempts = Waiters(), []

    def once(what: str, _node: object) -> None:
        attempts.append(what)
        if len(attempts) == 1:
            raise Blocked(gate)

    handle = wire.open("sys/devices/virtual/selftest/selftest0/rw", os.O_WRONLY)
    wire.machine.fs.gate = once
    waiting = wire.send(Op.WRITE, 0, write_body(handle, b"1400\n"))
    assert wire.answer() is None
    # Another request overwrites the buffer in the meantime.
    wire.send(Op.STATFS)
    assert wire.answer() is not None
    gate.wake()
    wire.session.settle()
    assert wire.answer() == (waiting, 0, struct.pack("<II", 5, 0))
    assert attempts == ["write", "write"]
    assert wire.machine.read("sys/devices/virtual/selftest/selftest0/rw") == "1400\n"


def test_an_unexpected_exception_is_eio_and_kept_as_a_bug(wire: Wire) -> None:
    def broken(_what: str, _node: object) -> None:
        raise SystemExit("not a refusal")

    handle = wire.open("sys/devices/virtual/selftest/selftest0/rw")
    wire.machine.fs.gate = broken
    assert wire.ask(Op.READ, 0, read_body(handle)) == (EIO, b"")
    assert len(wire.machine.control.bugs) == 1
    assert "not a refusal" in wire.machine.control.bugs[0]


def test_an_errno_that_no_kernel_takes_is_eio(wire: Wire) -> None:
    def refuse(_what: str, _node: object) -> None:
        raise KernelError(524, "ENOTSUPP")

    handle = wire.open("sys/devices/virtual/selftest/selftest0/rw")
    wire.machine.fs.gate = refuse
    assert wire.ask(Op.READ, 0, read_body(handle)) == (EIO, b"")


def test_the_caller_is_known_to_the_machine(wire: Wire) -> None:
    wire.send(Op.STATFS)
    assert wire.machine.kernel.caller == (42, 0, 0)


def test_unplugging_by_entry_is_told_before_the_write_is_answered(wire: Wire) -> None:
    wire.ask(Op.INIT, 0, init_body(7, 40))
    parent = wire.walk("sys/devices/virtual/selftest")
    wire.walk("sys/devices/virtual/selftest/selftest0/power/control")
    handle = wire.open("sys/kernel/debug/fakesys/selftest/remove", os.O_WRONLY)
    wire.kernel.setblocking(True)
    wire.kernel.settimeout(5)
    writing = wire.send(Op.WRITE, 0, write_body(handle, b"1\n"))
    told = []
    while (message := wire.kernel.recv(4096))[8:16] != struct.pack("<Q", writing):
        told.append((struct.unpack_from("<i", message, 4)[0], message[16:]))
    entry = struct.pack("<QII", parent, 9, 0) + b"selftest0\0"
    assert (3, entry) in told
    names = [body[16:-1] for code, body in told if code == 3]
    assert names.index(b"control") < names.index(b"power") < names.index(b"selftest0")


def test_a_removed_name_is_told_by_one_epoch_message(wire: Wire) -> None:
    wire.ask(Op.INIT, 0, init_body(7, 44))
    wire.walk("sys/devices/virtual/selftest/selftest0/rw")
    handle = wire.open("sys/kernel/debug/fakesys/selftest/remove", os.O_WRONLY)
    writing = wire.send(Op.WRITE, 0, write_body(handle, b"1\n"))
    codes = []
    while (message := wire.kernel.recv(4096))[8:16] != struct.pack("<Q", writing):
        codes.append(struct.unpack_from("<i", message, 4)[0])
    assert codes.count(8) == 1
    assert 3 not in codes


def test_who_waits_for_a_machine_that_was_replaced_gets_an_answer(wire: Wire) -> None:
    data = wire.machine.save()
    pipe = wire.open("sys/kernel/tracing/trace_pipe")
    journal = wire.open(STREAM)
    wire.ask(Op.READ, body=read_body(journal))
    waiting = [wire.send(Op.READ, body=read_body(handle)) for handle in (pipe, journal)]
    poll = struct.pack("<QQII", pipe, 77, 1, 1)
    assert wire.ask(Op.POLL, body=poll)[0] == 0
    wire.machine.load(data)
    wire.session.settle()
    answers = []
    while (answer := wire.answer()) is not None:
        answers.append(answer)
    # The pipe is gone; the journal goes on and still waits.
    assert (waiting[0], EIO, b"") in answers
    assert waiting[1] not in [unique for unique, _, _ in answers]
    # Unique 0: messages that are no answers; one of them wakes the poller.
    assert any(unique == 0 and body == struct.pack("<Q", 77) for unique, _, body in answers)
    events = struct.unpack_from("<I", wire.ask(Op.POLL, body=poll)[1])[0]
    assert events & select.POLLERR
    wire.send(Op.INTERRUPT, 0, struct.pack("<Q", waiting[1]))
    assert wire.answer() == (waiting[1], EINTR, b"")

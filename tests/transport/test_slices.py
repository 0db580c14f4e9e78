"""Requests that take long, in slices of a session without a kernel, and the watchdog."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from errno import ECANCELED, EINTR, EIO, ENODEV, ESTALE
from time import sleep

import pytest

from fakesys.core.events import IDLE
from fakesys.transport.fuse.protocol import Op
from fakesys.transport.watchdog import Overdue, Watchdog
from tests.transport.test_session import Wire, read_body, write_body

CONTROL = "sys/kernel/debug/fakesys"
FOREVER = b"1000000000000000\n"
ROUNDS = 2000


class AnswersOnly(Wire):
    """A session of which the notifications are not looked at."""

    def answer(self) -> tuple[int, int, bytes] | None:
        """Number, errno and data of the next answer, None when there is none."""
        for action in self.soon:
            action()
        self.soon.clear()
        while (message := super().answer()) is not None:
            if message[0]:
                return message
        return None


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = AnswersOnly()
    yield wire
    wire.close()


class Writer:
    """An open control file."""

    def __init__(self, wire: Wire, path: str) -> None:
        self._wire = wire
        body = struct.pack("<II", os.O_WRONLY, 0)
        error, data = wire.ask(Op.OPEN, wire.walk(f"{CONTROL}/{path}"), body)
        if error == ESTALE:
            # The kernel looks the name up again, and opens what it finds then.
            error, data = wire.ask(Op.OPEN, wire.walk(f"{CONTROL}/{path}"), body)
        assert not error
        self._handle = int(struct.unpack_from("<Q", data)[0])

    def begin(self, text: bytes) -> int:
        """Write without waiting for the answer; the number of the request."""
        return self._wire.send(Op.WRITE, 0, write_body(self._handle, text))

    def write(self, text: bytes) -> int:
        """Write something short; the errno."""
        return self._wire.ask(Op.WRITE, 0, write_body(self._handle, text))[0]


def interrupt(wire: Wire, unique: int) -> None:
    wire.send(Op.INTERRUPT, 0, struct.pack("<Q", unique))


def text_of(wire: Wire, path: str) -> str:
    handle = wire.open(f"{CONTROL}/{path}")
    error, data = wire.ask(Op.READ, 0, read_body(handle))
    assert not error
    return data.decode()


def work_until(wire: Wire, condition: Callable[[], bool]) -> None:
    """Do slices, as many as a slow host needs."""
    for _ in range(10_000):
        if condition():
            return
        wire.session.work()
    raise AssertionError("it did not come so far")


def answer_of(wire: Wire, unique: int) -> int:
    """Work until a request is answered; its errno."""
    for _ in range(ROUNDS):
        answer = wire.answer()
        if answer is not None:
            assert answer[0] == unique
            return answer[1]
        wire.session.work()
    raise AssertionError("no answer")


def answers_of(wire: Wire, requests: set[int]) -> dict[int, int]:
    """Work until all these are answered; their errnos."""
    answers: dict[int, int] = {}
    for _ in range(ROUNDS):
        answer = wire.answer()
        if answer is not None:
            answers[answer[0]] = answer[1]
        if requests <= answers.keys():
            return answers
        wire.session.work()
    raise AssertionError(f"only {answers} of {requests}")


def test_a_long_request_is_answered_when_its_work_is_done(wire: Wire) -> None:
    unique = Writer(wire, "selftest/work").begin(b"200000\n")
    assert wire.answer() is None
    assert wire.session.working
    assert answer_of(wire, unique) == 0
    assert not wire.session.working


def test_others_are_served_between_slices_and_a_signal_ends_the_work(wire: Wire) -> None:
    unique = Writer(wire, "selftest/work").begin(FOREVER)
    for _ in range(3):
        wire.session.work()
        assert wire.answer() is None
        assert text_of(wire, "version")
    interrupt(wire, unique)
    assert wire.answer() == (unique, EINTR, b"")
    assert not wire.session.working
    assert "EINTR" in text_of(wire, "last_error")


def test_a_signal_ends_work_that_has_not_begun(wire: Wire) -> None:
    unique = Writer(wire, "selftest/work").begin(FOREVER)
    interrupt(wire, unique)
    assert wire.answer() == (unique, EINTR, b"")
    wire.session.work()
    assert not wire.session.working


def test_long_requests_take_turns(wire: Wire) -> None:
    first = Writer(wire, "selftest/work").begin(FOREVER)
    second = Writer(wire, "selftest/work").begin(b"100000\n")
    assert answer_of(wire, second) == 0
    interrupt(wire, first)
    assert answer_of(wire, first) == EINTR


def test_the_end_of_the_mount_answers_long_requests(wire: Wire) -> None:
    begun, queued = (Writer(wire, "selftest/work").begin(FOREVER) for _ in range(2))
    wire.session.work()
    wire.session.close()
    answers = [wire.answer(), wire.answer()]
    assert answers == [(begun, ENODEV, b""), (queued, ENODEV, b"")]


def test_a_reset_ends_long_requests(wire: Wire) -> None:
    unique = Writer(wire, "selftest/work").begin(FOREVER)
    wire.session.work()
    resetting = Writer(wire, "reset").begin(b"1\n")
    assert answers_of(wire, {unique, resetting}) == {unique: ECANCELED, resetting: 0}


def test_the_clock_moves_in_slices_and_is_moved_by_one_at_a_time(wire: Wire) -> None:
    clock, ticks = wire.machine.clock, list[float]()

    def tick() -> None:
        ticks.append(clock.now)
        wire.machine.subsystems.selftest.spin(2000)  # type: ignore[union-attr]
        clock.after(1, tick)

    clock.after(1, tick)
    advance = Writer(wire, "clock/advance")
    first, second = advance.begin(b"1000\n"), Writer(wire, "clock/advance").begin(b"10\n")
    work_until(wire, lambda: clock.now > 0)
    assert clock.now < 1000
    assert float(text_of(wire, "clock/now")) == clock.now
    assert answer_of(wire, first) == 0
    assert clock.now == 1000
    assert answer_of(wire, second) == 0
    assert clock.now == 1010
    assert ticks == [float(number) for number in range(1, 1011)]
    third = advance.begin(b"1000000\n")
    work_until(wire, lambda: clock.now > 1010)
    interrupt(wire, third)
    assert answer_of(wire, third) == EINTR
    assert 1010 < clock.now < 1_000_000


class Guest:
    """A VM with memory, and two open `ctl` files."""

    def __init__(self, wire: Wire) -> None:
        self.ctl, self.other = Writer(wire, "kvm/ctl"), Writer(wire, "kvm/ctl")
        # The first command of all takes long.
        wire.machine.read(f"{CONTROL}/kvm/help")
        for line in (
            *("vm create g", "g vcpu add count=2", "g mem m size=1T"),
            "g slot 0 gpa=0x100000000 size=1T mem=m",
        ):
            assert self.ctl.write(line.encode()) == 0

    def access(self) -> int:
        """Begin a command that takes long."""
        return self.ctl.begin(b"g vcpu 0 access w 0x100000000 n=268435456\n")


def test_commands_of_a_vm_wait_for_each_other_and_a_signal_ends_both(wire: Wire) -> None:
    guest = Guest(wire)
    first = guest.access()
    wire.session.work()
    second = guest.other.begin(b"g vcpu 1 access r 0x100000000\n")
    assert wire.answer() is None
    assert Writer(wire, "kvm/ctl").write(b"vm create h") == 0
    third = Writer(wire, "kvm/ctl").begin(b"g vcpu 1 access r 0x100000000\n")
    interrupt(wire, second)
    assert wire.answer() == (second, EINTR, b"")
    used = wire.machine.read(f"{CONTROL}/kvm/vms/g/mmu")
    assert used.splitlines()[1].startswith("n_used ")
    interrupt(wire, first)
    assert wire.answer() == (first, EINTR, b"")
    assert answer_of(wire, third) == 0
    assert wire.machine.kernel.bus.task == IDLE


def test_destroying_a_vm_ends_its_command(wire: Wire) -> None:
    guest = Guest(wire)
    first = guest.access()
    wire.session.work()
    destroying = guest.other.begin(b"vm destroy g\n")
    assert answers_of(wire, {first, destroying}) == {first: ECANCELED, destroying: 0}
    assert "g" not in wire.machine.subsystems.kvm.kvm.names


def test_the_first_command_of_all_is_imported_in_slices(wire: Wire) -> None:
    command = Writer(wire, "kvm/ctl").begin(b"vm create g")
    assert wire.answer() is None
    assert wire.session.working
    assert answer_of(wire, command) == 0
    assert Writer(wire, "kvm/ctl").write(b"vm create h") == 0


def test_writers_of_a_file_have_an_inode_each(wire: Wire) -> None:
    path = f"{CONTROL}/selftest/work"
    body = struct.pack("<II", os.O_WRONLY, 0)
    first = wire.walk(path)
    handle = wire.open(path, os.O_WRONLY)
    assert wire.ask(Op.OPEN, first, body)[0] == ESTALE
    second = wire.walk(path)
    assert second != first
    assert wire.ask(Op.OPEN, second, body)[0] == 0
    assert wire.ask(Op.OPEN, second, body)[0] == ESTALE
    third = wire.walk(path)
    assert len({first, second, third}) == 3
    wire.ask(Op.RELEASE, first, struct.pack("<QIIQ", handle, 0, 0, 0))
    wire.thread += 1
    assert wire.ask(Op.OPEN, second, body)[0] == ESTALE
    assert wire.walk(path) in (first, third)
    entry = wire.ask(Op.LOOKUP, wire.walk(f"{CONTROL}/selftest"), b"work\0")[1]
    ino = struct.unpack_from("<Q", entry, 40)[0]
    assert ino == first


class Late:
    """A process that was sent to another inode, which a third one has opened before it."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._body = struct.pack("<II", os.O_WRONLY, 0)
        path = f"{CONTROL}/selftest/work"
        wire.open(path, os.O_WRONLY)
        assert wire.ask(Op.OPEN, wire.walk(path), self._body)[0] == ESTALE
        self.number = wire.walk(path)
        wire.thread += 1
        self.handle = wire.open(path, os.O_WRONLY)
        assert wire.walk(path) == self.number
        wire.thread -= 1

    def open(self) -> int:
        """Open once more; the number of the request."""
        return self._wire.send(Op.OPEN, self.number, self._body)

    def write(self, text: bytes) -> int:
        """Begin to write as the third process; the number of the request."""
        return self._wire.send(Op.WRITE, self.number, write_body(self.handle, text))


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fakesys.transport.fuse.nodes.WRITES_AT_ONCE", 0.0)


@pytest.mark.usefixtures("no_grace")
def test_an_open_waits_for_the_write_that_holds_the_lock(wire: Wire) -> None:
    late = Late(wire)
    writing = late.write(b"100000\n")
    opening = late.open()
    assert wire.answer() is None
    assert list(answers_of(wire, {writing, opening}).items()) == [(writing, 0), (opening, 0)]


@pytest.mark.usefixtures("no_grace")
def test_a_signal_ends_an_open_that_waits_and_a_write_that_others_wait_for(wire: Wire) -> None:
    late = Late(wire)
    writing = late.write(FOREVER)
    opening = late.open()
    interrupt(wire, opening)
    assert wire.answer() == (opening, EINTR, b"")
    opening = late.open()
    assert wire.answer() is None
    interrupt(wire, writing)
    assert answers_of(wire, {writing, opening}) == {writing: EINTR, opening: 0}


def test_an_open_waits_a_little_for_a_file_that_was_just_opened(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = Late(wire)
    opening = late.open()
    assert wire.answer() is None
    # The other process does not write: it cannot keep this one waiting.
    monkeypatch.setattr("fakesys.transport.fuse.nodes.WRITES_AT_ONCE", 0.0)
    while not wire.soon:
        sleep(0.01)
    wire.soon.pop()()
    assert answer_of(wire, opening) == 0


def test_an_open_goes_on_when_the_other_file_is_closed(wire: Wire) -> None:
    late = Late(wire)
    opening = late.open()
    closing = wire.send(Op.RELEASE, late.number, struct.pack("<QIIQ", late.handle, 0, 0, 0))
    assert answers_of(wire, {closing, opening}) == {closing: 0, opening: 0}


def test_faults_count_a_long_request_once(wire: Wire) -> None:
    wire.machine.write(f"{CONTROL}/faults/store", "*selftest/work EIO after=1\n")
    unique = Writer(wire, "selftest/work").begin(b"100000\n")
    assert answer_of(wire, unique) == 0
    assert Writer(wire, "selftest/work").write(b"100000\n") == EIO


@pytest.fixture
def watched() -> Iterator[Wire]:
    watchdog = Watchdog(0.3)
    wire = AnswersOnly(watchdog)
    watchdog.start()
    yield wire
    watchdog.stop()
    wire.close()


def test_the_watchdog_ends_a_request_that_lets_no_other_in(watched: Wire) -> None:
    assert Writer(watched, "selftest/spin").write(FOREVER) == EIO
    (bug,) = watched.machine.control.bugs
    assert "in spin" in bug
    assert "Overdue" in bug
    assert Writer(watched, "selftest/spin").write(b"10\n") == 0


def test_the_watchdog_ends_a_slice_that_does_not_end(watched: Wire) -> None:
    selftest = watched.machine.subsystems.selftest
    assert selftest is not None
    watched.machine.clock.after(1, lambda: selftest.spin(1 << 60))
    unique = Writer(watched, "clock/advance").begin(b"2\n")
    assert answer_of(watched, unique) == EIO
    assert "in spin" in watched.machine.control.bugs[0]
    assert Writer(watched, "clock/advance").write(b"0\n") == 0


def test_the_watchdog_leaves_slices_alone(watched: Wire) -> None:
    unique = Writer(watched, "selftest/work").begin(FOREVER)
    for _ in range(100):
        watched.session.work()
    interrupt(watched, unique)
    assert answer_of(watched, unique) == EINTR
    assert watched.machine.control.bugs == []


def test_overdue_is_raised_in_its_section_only() -> None:
    watchdog = Watchdog(0.02)
    watchdog.start()
    raised = 0
    for length in range(40):
        try:
            watchdog.enter()
            try:
                for _ in range(length * 40_000):
                    pass
            finally:
                watchdog.leave()
        except Overdue:
            raised += 1
            watchdog.leave()
        for _ in range(1000):
            pass
    watchdog.stop()
    assert raised < 40

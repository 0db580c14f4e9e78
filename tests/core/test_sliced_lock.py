"""Locks of calls in slices: who waits for whom, and when a copy of the machine may be made."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from fakesys.core.errors import Waiters
from fakesys.core.events import IDLE
from fakesys.core.kernel import MACHINE
from fakesys.core.scheduling.resched import (
    SlicedLock,
    TakesLong,
    cond_resched,
    cond_resched_killable,
    might_lock,
    state,
)
from fakesys.transport import slices
from fakesys.transport.slices import Context, LongCall, LongCalls
from fakesys.transport.watchdog import Watchdog


class Calls:
    """Long calls that note what they do; each rests wherever it can, or only where it has to."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._calls = LongCalls(lambda context: context, Watchdog())

    def add(self, run: Callable[[], None]) -> LongCall:
        return self._calls.add(run, Context(MACHINE, IDLE))

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self._calls.run_slice()

    def end(self) -> None:
        """Let all calls come to their ends."""
        while self._calls:
            self.turn()

    def locked(self, name: str, lock: SlicedLock, rests: int) -> Callable[[], None]:
        """A call that takes a lock and rests some times while it has it."""

        def run() -> None:
            self.notes.append(f"{name} comes")
            with lock:
                self.notes.append(f"{name} in")
                for _ in range(rests):
                    cond_resched()
                self.notes.append(f"{name} out")

        return run


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    monkeypatch.setattr(slices, "SLICE_SECONDS", -1.0)
    monkeypatch.setattr(state, "unlocked", Waiters())
    yield Calls()
    assert not state.locks
    assert not state.unlocked


def test_a_call_rests_until_a_lock_is_free(calls: Calls) -> None:
    lock = SlicedLock()
    calls.add(calls.locked("a", lock, 3))
    calls.add(calls.locked("b", lock, 1))
    calls.turn(4)
    assert calls.notes == ["a comes", "a in", "b comes"]
    calls.end()
    assert calls.notes == ["a comes", "a in", "b comes", "a out", "b in", "b out"]


def test_a_call_takes_its_own_lock_again(calls: Calls) -> None:
    lock = SlicedLock()

    def run() -> None:
        with lock:
            calls.locked("a", lock, 2)()
            cond_resched()
            calls.notes.append("still in")

    calls.add(run)
    calls.turn()
    calls.locked("b", lock, 0)()
    assert calls.notes == ["a comes", "a in", "b comes", "a out", "still in", "b in", "b out"]


def test_who_cannot_rest_lets_the_holder_go_on(calls: Calls) -> None:
    lock = SlicedLock()

    def run() -> None:
        calls.locked("a", lock, 3)()
        cond_resched()
        calls.notes.append("after")

    calls.add(run)
    calls.turn()
    calls.locked("b", lock, 0)()
    assert calls.notes == ["a comes", "a in", "b comes", "a out", "b in", "b out"]
    calls.end()
    assert calls.notes[-1] == "after"


def test_a_call_that_is_ended_lets_the_holder_go_on(calls: Calls) -> None:
    lock = SlicedLock()
    calls.add(calls.locked("a", lock, 3))
    second = calls.add(calls.locked("b", lock, 3))
    calls.turn(2)
    second.finish(OSError())
    assert second.done
    assert calls.notes == ["a comes", "a in", "b comes", "a out", "b in", "b out"]


def test_three_wait_in_a_row(calls: Calls) -> None:
    first, second = SlicedLock(), SlicedLock()

    def run() -> None:
        with second:
            calls.locked("b", first, 1)()

    calls.add(calls.locked("a", first, 2))
    calls.add(run)
    calls.turn(2)
    calls.locked("c", second, 0)()
    assert calls.notes == [
        *("a comes", "a in", "b comes", "c comes"),
        *("a out", "b in", "b out", "c in", "c out"),
    ]


def test_a_refusal_leaves_the_lock_free(calls: Calls) -> None:
    lock = SlicedLock()

    def run() -> None:
        try:
            with lock:
                while True:
                    cond_resched_killable()
        except OSError:
            calls.notes.append("refused")

    call = calls.add(run)
    calls.turn()
    call.interrupt(OSError())
    calls.locked("b", lock, 0)()
    assert calls.notes == ["b comes", "refused", "b in", "b out"]


def test_a_call_that_will_take_a_lock_is_repeated_in_slices(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = SlicedLock()
    might_lock(lock)
    calls.add(calls.locked("a", lock, 1))
    calls.turn()
    might_lock(lock)
    monkeypatch.setattr(state, "serving", True)
    with pytest.raises(TakesLong):
        might_lock(lock)
    calls.end()
    might_lock(lock)


def waiting_copy(notes: list[str]) -> None:
    """Let a copy wait until no lock is held."""
    assert isinstance(state.unlocked, Waiters)
    state.unlocked.add("copy", lambda: notes.append("copy"))


def test_a_copy_is_made_when_nobody_holds_a_lock(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that hold none rest until then, though their slices are not over."""
    monkeypatch.setattr(slices, "SLICE_SECONDS", 3600.0)
    lock, other = SlicedLock(), SlicedLock()

    def steps(name: str, lock: SlicedLock) -> Callable[[], None]:
        def run() -> None:
            for number in range(3):
                calls.notes.append(f"{name}{number}")
                cond_resched()
                with lock:
                    if state.running and not number:
                        state.running.rest()

        return run

    for name, its in (("a", lock), ("b", other)):
        calls.add(steps(name, its))
    calls.turn(2)
    assert calls.notes == ["a0", "b0"]
    waiting_copy(calls.notes)
    calls.turn()
    assert calls.notes == ["a0", "b0", "a1"]
    calls.turn()
    assert calls.notes == ["a0", "b0", "a1", "b1", "copy"]
    calls.end()
    assert calls.notes == ["a0", "b0", "a1", "b1", "copy", "a2", "b2"]


def test_a_copy_is_made_after_a_call_that_has_let_the_holder_go_on(calls: Calls) -> None:
    lock = SlicedLock()
    calls.add(calls.locked("a", lock, 3))
    calls.turn()
    waiting_copy(calls.notes)
    calls.locked("b", lock, 0)()
    assert calls.notes == ["a comes", "a in", "b comes", "a out", "b in", "b out", "copy"]

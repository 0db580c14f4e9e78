"""Simulated time: by hand, and paced by a source."""

from __future__ import annotations

from functools import partial

import pytest

from fakesys.core.clock import NS, Clock, SavedClock, SavedTimer
from fakesys.core.saved import BadSnapshotError


class Source:
    """A real clock that a test moves."""

    def __init__(self) -> None:
        self.ns = 5 * NS

    def __call__(self) -> int:
        return self.ns

    def pass_seconds(self, seconds: float) -> None:
        self.ns += int(seconds * NS)


def test_time_stands_still_without_a_source() -> None:
    clock = Clock()
    clock.catch_up()
    assert (clock.now, clock.seconds_to_next()) == (0.0, None)


def test_timers_run_in_the_order_of_time_then_of_asking() -> None:
    clock, ran = Clock(), list[str]()
    clock.after(2, lambda: ran.append("late"))
    clock.after(1, lambda: ran.append("first"))
    clock.after(1, lambda: ran.append("second"))
    clock.advance(1)
    assert ran == ["first", "second"]
    clock.advance(1)
    assert ran == ["first", "second", "late"]


def test_a_timer_sees_its_own_time() -> None:
    clock, seen = Clock(), list[float]()
    clock.after(1.5, lambda: seen.append(clock.now))
    clock.advance(10)
    assert (seen, clock.now) == ([1.5], 10.0)


def test_a_timer_may_set_the_next_one_within_the_same_step() -> None:
    clock, ticks = Clock(), list[float]()

    def tick() -> None:
        ticks.append(clock.now)
        clock.after(1, tick)

    clock.after(1, tick)
    clock.advance(3)
    assert ticks == [1.0, 2.0, 3.0]


def test_a_cancelled_timer_does_nothing() -> None:
    clock, ran = Clock(), list[int]()
    timer = clock.after(1, lambda: ran.append(1))
    timer.cancel()
    timer.cancel()
    assert clock.next_due_ns is None
    clock.advance(2)
    assert ran == []


def test_a_source_paces_the_clock_by_its_rate() -> None:
    clock, source = Clock(), Source()
    clock.follow(source)
    source.pass_seconds(2)
    assert clock.now == 2.0
    clock.rate = 10
    source.pass_seconds(1)
    assert clock.now == 12.0
    clock.rate = 0
    source.pass_seconds(5)
    clock.catch_up()
    assert (clock.now, clock.seconds_to_next()) == (12.0, None)


def test_time_does_not_overtake_a_timer_that_is_due() -> None:
    clock, source, ran = Clock(), Source(), list[float]()
    clock.follow(source)
    clock.after(1, lambda: ran.append(clock.now))
    source.pass_seconds(3)
    assert (clock.now, ran) == (1.0, [])
    clock.catch_up()
    assert (clock.now, ran) == (3.0, [1.0])


def test_seconds_to_next_is_in_real_seconds() -> None:
    clock, source = Clock(), Source()
    clock.follow(source)
    clock.rate = 4
    clock.after(2, lambda: None)
    assert clock.seconds_to_next() == 0.5
    source.pass_seconds(9)
    assert clock.seconds_to_next() == 0.0


def test_advance_by_hand_works_beside_a_source() -> None:
    clock, source = Clock(), Source()
    clock.follow(source)
    source.pass_seconds(1)
    clock.advance(10)
    assert clock.now == 11.0
    source.pass_seconds(1)
    assert clock.now == 12.0


# --- snapshots ---


def test_timers_of_a_snapshot_keep_their_time_and_their_order() -> None:
    clock, happened = Clock(), list[str]()
    first, second, gone = (clock.after(5, lambda: None) for _ in range(3))
    late = clock.after(9, lambda: None)
    gone.cancel()
    clock.advance(1)
    copy = Clock()
    copy.after(2, lambda: happened.append("of the fresh machine"))
    copy.restore(clock.saved())
    assert gone.saved is None
    for name, timer in (("late", late), ("second", second), ("first", first)):
        assert timer.saved is not None
        copy.at(timer.saved, partial(happened.append, name))
    assert copy.now_ns == clock.now_ns
    copy.after(4, lambda: happened.append("new"))
    copy.advance(8)
    assert happened == ["first", "second", "new", "late"]


@pytest.mark.parametrize(
    ("timer", "why"),
    [
        (SavedTimer(due_ns=1, sequence=0), "timer 0 is due in the past"),
        (SavedTimer(due_ns=NS, sequence=2), "timer 2 is of the future"),
        (SavedTimer(due_ns=NS, sequence=1), "there are two timers 1"),
    ],
)
def test_timers_that_no_clock_has_are_refused(timer: SavedTimer, why: str) -> None:
    clock = Clock()
    clock.restore(SavedClock(now_ns=NS, rate=1.0, sequence=2))
    clock.at(SavedTimer(due_ns=NS, sequence=1), lambda: None)
    with pytest.raises(BadSnapshotError, match=why):
        clock.at(timer, lambda: None)

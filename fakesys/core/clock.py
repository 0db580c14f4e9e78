"""Simulated time: a heap of timers, moved by hand or paced by a real clock.

A snapshot has no actions in it. Each model saves its pending timers (`Timer.saved`) with what they
are for, and arms them again by `Clock.at`; timers that are due together keep their order.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from errno import EINVAL
from typing import Annotated

from msgspec import Meta, Struct

from fakesys.core.errors import Blocked, KernelError, Waiters
from fakesys.core.saved import U63, Saved, check
from fakesys.core.scheduling.resched import (
    SlicedCall,
    cond_resched_killable,
    might_resched,
    running_call,
)

NS = 1_000_000_000
# The last moment, after 73 years: its time stamps have 63 bits at most in every trace clock.
LAST_NS = (1 << 61) - 1
# When a timer is due that never runs.
NEVER_NS = (1 << 63) - 1
# In simulated seconds per real second; at this rate the last moment comes after 38 minutes.
FASTEST = 1_000_000


class SavedTimer(Saved, frozen=True):
    """When a pending timer is due; of those due together the lowest `sequence` runs first."""

    due_ns: U63
    sequence: U63


class SavedClock(Saved, frozen=True):
    """The time, simulated seconds per real second, and the number of the next timer."""

    now_ns: Annotated[int, Meta(ge=0, le=LAST_NS)]
    rate: Annotated[float, Meta(ge=0, le=FASTEST)]
    sequence: U63


class Timer(Struct, order=True):
    """An action that is due at a simulated time; `cancel` makes it do nothing."""

    due_ns: int
    sequence: int
    # Not compared: no two timers have the same sequence number.
    action: Callable[[], None] | None

    def cancel(self) -> None:
        """Drop the action; a second call does nothing."""
        self.action = None

    @property
    def saved(self) -> SavedTimer | None:
        """What a snapshot holds of it; None when it has run or was cancelled."""
        return (
            None if self.action is None else SavedTimer(due_ns=self.due_ns, sequence=self.sequence)
        )


class Clock:
    """Simulated nanoseconds since the machine was made.

    Without a source only `advance` moves the time. With a source (a monotonic clock in nanoseconds)
    `catch_up` moves it by the real time passed, multiplied by `rate`. At LAST_NS it stands still.
    """

    def __init__(self) -> None:
        self._now_ns = 0
        self._heap: list[Timer] = []
        self._sequence = 0
        # The numbers of timers that were armed again since `restore`.
        self._restored: set[int] = set()
        self._source: Callable[[], int] | None = None
        self._source_ns = 0
        self._rate = 1.0
        # Whether timers run now, in which call, and what wakes other calls after that.
        self._moving = False
        self._mover: SlicedCall | None = None
        self._rested = Waiters()

    @property
    def now_ns(self) -> int:
        """Simulated nanoseconds; between two timers it follows the source."""
        if self._source is None or self._rate == 0:
            return self._now_ns
        passed = int((self._source() - self._source_ns) * self._rate)
        now = min(self._now_ns + passed, LAST_NS)
        # Time never passes a timer that has not run: its action happens at its own time.
        due = self.next_due_ns
        return now if due is None else min(now, max(due, self._now_ns))

    @property
    def now(self) -> float:
        """Simulated seconds."""
        return self.now_ns / NS

    @property
    def rate(self) -> float:
        """Simulated seconds per real second; 0 stops the time. Setting it may raise EINVAL."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        if not 0 <= rate <= FASTEST:
            raise KernelError(EINVAL, f"a rate of {rate:g} is not between 0 and {FASTEST:g}")
        self.catch_up()
        self._rate = rate

    @property
    def next_due_ns(self) -> int | None:
        """The simulated nanoseconds at which the next timer is due; None without timers."""
        while self._heap and self._heap[0].action is None:
            heapq.heappop(self._heap)
        return self._heap[0].due_ns if self._heap else None

    def seconds_to_next(self) -> float | None:
        """Return the real seconds until a timer is due; None without timer, source or rate."""
        due = self.next_due_ns
        if due is None or self._source is None or self._rate == 0:
            return None
        return max(0.0, (due - self.now_ns) / self._rate / NS)

    def follow(self, source: Callable[[], int]) -> None:
        """Pace this clock by `source` from now on."""
        self._source = source
        self._source_ns = source()

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Run `action` once, `seconds` from now; equal times run in the order of the calls."""
        due_ns = min(self.now_ns + int(seconds * NS), NEVER_NS)
        timer = Timer(due_ns, self._sequence, action)
        self._sequence += 1
        heapq.heappush(self._heap, timer)
        return timer

    def saved(self) -> SavedClock:
        """Return what a snapshot holds of the clock itself; models save their timers."""
        return SavedClock(now_ns=self.now_ns, rate=self._rate, sequence=self._sequence)

    def restore(self, saved: SavedClock) -> None:
        """Show the time of a snapshot, without any timer: models arm theirs again by `at`."""
        self._heap.clear()
        self._restored.clear()
        self._now_ns, self._rate, self._sequence = saved.now_ns, saved.rate, saved.sequence

    def at(self, saved: SavedTimer, action: Callable[[], None]) -> Timer:
        """Arm a timer of a snapshot again, in its place among those that are due together.

        Raises BadSnapshotError for a time that is over, or a place that is taken or yet to come.
        """
        number = saved.sequence
        check(saved.due_ns >= self._now_ns, f"timer {number} is due in the past")
        check(number < self._sequence, f"timer {number} is of the future")
        check(number not in self._restored, f"there are two timers {number}")
        self._restored.add(number)
        timer = Timer(saved.due_ns, number, action)
        heapq.heappush(self._heap, timer)
        return timer

    def advance(self, seconds: float) -> None:
        """Move the time by hand and run everything due, in order.

        Raises EINVAL when that is beyond the last moment, EINTR after a signal, and Blocked while
        another call moves the time.
        """
        if self._is_moved_by_another:
            raise Blocked(self._rested)
        target = self.now_ns + round(seconds * NS)
        if target > LAST_NS:
            last = LAST_NS / NS
            raise KernelError(EINVAL, f"{target / NS:g} s are beyond the last moment, {last:g} s")
        due = self.next_due_ns
        if due is not None and due <= target:
            might_resched()
        self.catch_up()
        self._run_until(self._now_ns + round(seconds * NS))

    def catch_up(self) -> None:
        """Move the time as far as the source says and run everything due, in order.

        Does nothing while another call moves the time.
        """
        if self._source is None or self._is_moved_by_another:
            return
        real = self._source()
        target = self._now_ns + int((real - self._source_ns) * self._rate)
        self._source_ns = real
        self._run_until(target)

    def _run_until(self, target_ns: int) -> None:
        target_ns = min(target_ns, LAST_NS)
        before = self._moving, self._mover
        self._moving, self._mover = True, running_call()
        try:
            while (due := self.next_due_ns) is not None and due <= target_ns:
                cond_resched_killable()
                self._run_next()
            self._now_ns = max(self._now_ns, target_ns)
        finally:
            self._moving, self._mover = before
            self._rested.wake()

    @property
    def _is_moved_by_another(self) -> bool:
        return self._moving and self._mover is not running_call()

    def _run_next(self) -> None:
        timer = heapq.heappop(self._heap)
        self._now_ns = max(self._now_ns, timer.due_ns)
        action, timer.action = timer.action, None
        if action is not None:
            action()

"""Calls that take long, in slices on threads of their own; only one thread runs at any time.

A thread is used for its stack only: `resume` hands the turn to it and waits until it comes back.
So models still need no locks. A call gives its turn back in `fakesys.core.scheduling.resched`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from fakesys.core.events import Task
from fakesys.core.kernel import Caller
from fakesys.core.scheduling.resched import state
from fakesys.transport.watchdog import Watchdog

SLICE_SECONDS = 0.005
# So many calls have a thread; others wait for one.
MOST_THREADS = 64


class Context(NamedTuple):
    """In whose name the models work: the process of the system call, and the simulated task."""

    caller: Caller
    task: Task


# Sets a context and returns the one that was set before.
Exchange = Callable[[Context], Context]


class LongCall:
    """One call. `run` is its work; `context`: in whose name it begins."""

    def __init__(
        self, run: Callable[[], None], context: Context, exchange: Exchange, watchdog: Watchdog
    ) -> None:
        self._run = run
        self._context = context
        self._exchange = exchange
        self._watchdog = watchdog
        self._thread: threading.Thread | None = None
        self._turn, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._slice_ends = 0.0
        self._repeated = False
        self._finishing = False
        # While it is set, the call rests only when it says so.
        self._until: Callable[[], bool] | None = None
        # Whether it waits for the end of another call, and so cannot be resumed.
        self._waits = False
        self.locks = 0
        self.done = False
        self.refusal: OSError | None = None

    def resume(self) -> None:
        """Let the call run for a slice, or to its end. Call it from the thread whose turn it is."""
        if self._thread is None and not self._start():
            return
        watched, before = self._watchdog.watching, (state.running, state.serving)
        outside = self._exchange(self._context)
        state.running, state.serving = self, False
        self._slice_ends = time.monotonic() + SLICE_SECONDS
        self._turn.release()
        self._back.acquire()
        state.running, state.serving = before
        state.tell_if_unlocked()
        self._context = self._exchange(outside)
        if watched:
            self._watchdog.enter()

    def give_way(self) -> None:
        """Let others in if the slice is over; without a lock also if a copy waits to be made."""
        if self._until is not None:
            if self._until():
                self._give_turn()
        elif state.unlocked and not self.locks:
            # Until those that hold a lock have come so far, too.
            while state.unlocked and self.rest():
                pass
        elif time.monotonic() >= self._slice_ends:
            self.rest()

    def rest(self) -> bool:
        """Let others in now; return False where the call has to go on without a rest."""
        if self._finishing or self._until is not None:
            return False
        self._give_turn()
        return True

    def _give_turn(self) -> None:
        """Give the turn back, and wait for the next one."""
        self._watchdog.leave()
        self._back.release()
        self._turn.acquire()
        self._watchdog.enter()

    def take_repeated(self) -> bool:
        """Return True once: every long call is the repetition of one that raised TakesLong."""
        first, self._repeated = not self._repeated, True
        return first

    @property
    def begun(self) -> bool:
        """Whether it had a slice already."""
        return self._thread is not None

    def drop(self) -> None:
        """Forget the work of a call that has not begun."""
        self.done = True

    def interrupt(self, refusal: OSError) -> None:
        """Ask the call to end with this refusal where it can."""
        if self.refusal is None:
            self.refusal = refusal

    def finish(self, refusal: OSError) -> None:
        """Let the call end with this refusal where it can, or run to its end, in one slice.

        A call that itself waits for the end of another goes on after that.
        """
        self.interrupt(refusal)
        if self.done or self._waits or self is state.running:
            return
        self._finishing = True
        self._resume_for_another()

    def run_until(self, done: Callable[[], bool]) -> None:
        """Let the call run without a rest until `done` says so, or to its end."""
        if self.done or self._waits or self is state.running:
            return
        self._until = done
        self._resume_for_another()
        self._until = None

    def _resume_for_another(self) -> None:
        running = state.running
        if isinstance(running, LongCall):
            running._waits = True
        self.resume()
        if isinstance(running, LongCall):
            running._waits = False

    def _start(self) -> bool:
        """Start the thread. Where there can be no more, run the call and return False."""
        self._thread = threading.Thread(target=self._work, name="long call", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._run()
            self.done = True
        return not self.done

    def _work(self) -> None:
        self._turn.acquire()
        self._watchdog.enter()
        try:
            self._run()
        finally:
            self._watchdog.leave()
            self.done = True
            self._back.release()


class LongCalls:
    """All long calls of a mount, which take turns. `context`: returns that of a new call."""

    def __init__(self, exchange: Exchange, watchdog: Watchdog) -> None:
        self._exchange = exchange
        self._watchdog = watchdog
        self._active: deque[LongCall] = deque()
        self._queued: deque[LongCall] = deque()

    def __bool__(self) -> bool:
        return bool(self._queued) or any(not call.done for call in self._active)

    def add(self, run: Callable[[], None], context: Context) -> LongCall:
        """Queue a call and return it. The caller may resume it, too."""
        self._drop_done()
        call = LongCall(run, context, self._exchange, self._watchdog)
        (self._active if len(self._active) < MOST_THREADS else self._queued).append(call)
        return call

    def run_slice(self) -> None:
        """Run one slice of the call whose turn it is."""
        if self._active:
            call = self._active[0]
            self._active.rotate(-1)
            if not call.done:
                call.resume()
            self._drop_done()

    def finish_all(self, refusal: OSError) -> None:
        """End every call, but that which runs now, with this refusal."""
        for call in (*self._active, *self._queued):
            call.finish(refusal)

    def _drop_done(self) -> None:
        for call in [call for call in self._active if call.done]:
            self._active.remove(call)
        while self._queued and len(self._active) < MOST_THREADS:
            call = self._queued.popleft()
            if not call.done:
                self._active.append(call)

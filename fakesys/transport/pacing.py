"""Pace the simulated clock of a mounted machine by real time, in a task of trio."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

import trio

from fakesys.core.clock import Clock
from fakesys.core.events import IDLE
from fakesys.core.kernel import MACHINE
from fakesys.core.scheduling.resched import state
from fakesys.transport.served import ServedMachine
from fakesys.transport.slices import Context, LongCalls

_log = logging.getLogger(__name__)


class Pacer:
    """Moves the simulated clock along with real time, so that timers run when they fall due.

    `settle` is called after timers have run, so that clients see what they changed. `calls`: where
    timers run in slices, so that clients are served between them; None: they run at once.
    """

    def __init__(
        self,
        machine: ServedMachine,
        settle: Callable[[], None],
        calls: LongCalls | None = None,
    ) -> None:
        self._machine = machine
        self._settle = settle
        self._calls = calls
        self._clock: Clock | None = None
        self._armed: tuple[int | None, float] = (None, 1.0)
        self._changed = trio.Event()

    def look(self) -> None:
        """Wake the task when requests have changed the next timer or the rate of the clock."""
        clock = self._machine.clock
        if clock is not self._clock or (clock.next_due_ns, clock.rate) != self._armed:
            self._changed.set()

    async def run(self) -> None:
        """Sleep to the next timer, run what is due, settle; until cancelled."""
        while True:
            await self._catch_up()
            clock = self._machine.clock
            self._armed = (clock.next_due_ns, clock.rate)
            seconds = clock.seconds_to_next()
            self._changed = trio.Event()
            with trio.move_on_after(math.inf if seconds is None else seconds):
                await self._changed.wait()

    async def _catch_up(self) -> None:
        clock = self._machine.clock
        if clock is not self._clock:
            self._follow(clock)
        due = clock.next_due_ns
        if self._calls is None or due is None or clock.now_ns < due:
            self._run_due(clock)
            return
        call = self._calls.add(lambda: self._run_due(clock), Context(MACHINE, IDLE))
        while not call.done:
            call.resume()
            self._settle()
            await trio.lowlevel.checkpoint()

    def _run_due(self, clock: Clock) -> None:
        try:
            clock.catch_up()
        except BaseException as error:
            call = state.running
            # A machine that was replaced or ends does not run what was due in it.
            if call is None or call.refusal is not error:
                _log.error("internal error in a timer", exc_info=error)
                self._machine.bug(error)
        if state.running is None:
            self._settle()

    def _follow(self, clock: Clock) -> None:
        # A reset makes a new clock; its rate is set by the machine.
        clock.follow(time.monotonic_ns)
        self._clock = clock

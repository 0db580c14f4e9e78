"""Pace the simulated clock of a mounted machine by real time, in a task of trio."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

import trio

from fakesys.core.clock import Clock
from fakesys.transport.served import ServedMachine

_log = logging.getLogger(__name__)


class Pacer:
    """Moves the simulated clock along with real time, so that timers run when they fall due.

    `settle` is called after timers have run, so that clients see what they changed.
    """

    def __init__(self, machine: ServedMachine, settle: Callable[[], None]) -> None:
        self._machine = machine
        self._settle = settle
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
            self._catch_up()
            clock = self._machine.clock
            self._armed = (clock.next_due_ns, clock.rate)
            seconds = clock.seconds_to_next()
            self._changed = trio.Event()
            with trio.move_on_after(math.inf if seconds is None else seconds):
                await self._changed.wait()

    def _catch_up(self) -> None:
        clock = self._machine.clock
        if clock is not self._clock:
            self._follow(clock)
        try:
            clock.catch_up()
        except Exception as error:
            _log.exception("internal error in a timer")
            self._machine.bug(error)
        self._settle()

    def _follow(self, clock: Clock) -> None:
        # A reset makes a new clock; its rate is set by the machine.
        clock.follow(time.monotonic_ns)
        self._clock = clock

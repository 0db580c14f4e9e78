"""The loop of the native transport: /dev/fuse and the simulated time, on trio."""

from __future__ import annotations

import logging
import math
import os
import select
import time
from collections.abc import Callable
from errno import ECONNABORTED, EINTR, ENOENT

import trio

from fakesys.core.clock import Clock
from fakesys.transport.session import ServedMachine, Session

_log = logging.getLogger(__name__)
# A wait in trio costs as much as two requests. While requests come one after the other the
# device is polled directly for at most this long, which is also how late a timer can get.
LINGER_MS = 1
# Other tasks get their turn after so many requests.
BURST = 512


class Pacer:
    """Moves the simulated clock along with the real one and runs what falls due."""

    def __init__(self, machine: ServedMachine, session: Session) -> None:
        self._machine = machine
        self._session = session
        self._clock: Clock | None = None
        self._armed: tuple[int | None, float] = (None, 1.0)
        self._changed = trio.Event()

    def look(self) -> None:
        """After requests: is the next timer another one now?"""
        clock = self._machine.clock
        if clock is not self._clock or (clock.next_due_ns, clock.rate) != self._armed:
            self._changed.set()

    async def run(self) -> None:
        """Until cancelled: sleep to the next timer, catch up, tell the clients."""
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
        self._session.settle()

    def _follow(self, clock: Clock) -> None:
        # A reset of the machine made a new clock; its rate is the machine's business.
        clock.follow(time.monotonic_ns)
        self._clock = clock


class Server:
    """Serves one mounted device until the mount is gone."""

    def __init__(
        self,
        machine: ServedMachine,
        device: int,
        *,
        by_epoch: bool = True,
        owner: tuple[int, int] = (0, 0),
    ) -> None:
        self._device = device
        self._token: trio.lowlevel.TrioToken | None = None
        self.session = Session(
            machine, device, run_soon=self._run_soon, by_epoch=by_epoch, owner=owner
        )
        self._pacer = Pacer(machine, self.session)
        self._buffers = [self.session.buffer]
        self._poll = select.poll()
        self._poll.register(device, select.POLLIN)

    async def run(self, started: Callable[[], None]) -> None:
        """Serve; `started` is called once the kernel has said hello. Ends with the mount."""
        self._token = trio.lowlevel.current_trio_token()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pacer.run)
                await self._serve(started)
                nursery.cancel_scope.cancel()
        finally:
            self.session.close()

    async def _serve(self, started: Callable[[], None]) -> None:
        told = False
        while True:
            await trio.lowlevel.wait_readable(self._device)
            while busy := self._burst():
                await trio.lowlevel.checkpoint()
            if busy is None:
                return
            if self.session.started and not told:
                told = True
                started()

    def _burst(self) -> bool | None:
        """Serve what is there. True: there may be more; None: the mount is gone."""
        device, buffers, poll, step = (
            self._device,
            self._buffers,
            self._poll.poll,
            self.session.step,
        )
        more = True
        for _ in range(BURST):
            try:
                length = os.readv(device, buffers)
            except BlockingIOError:
                more = False
                break
            except OSError as error:
                # ENOENT: the client gave the request up while it was being fetched.
                if error.errno in (ENOENT, EINTR, ECONNABORTED):
                    continue
                return None
            step(length)
            if not poll(LINGER_MS):
                more = False
                break
        self._pacer.look()
        return more

    def _run_soon(self, action: Callable[[], None]) -> None:
        assert self._token is not None
        self._token.run_sync_soon(action)

"""The loop of the native transport: requests from `/dev/fuse`, served on the thread of trio."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from contextlib import suppress
from errno import ECONNABORTED, EINTR, ENOENT
from functools import partial

import trio

from fakesys.core.copying.copies import pipes
from fakesys.transport import collecting
from fakesys.transport.fuse.session import Session
from fakesys.transport.pacing import Pacer
from fakesys.transport.served import ServedMachine
from fakesys.transport.watchdog import Watchdog

# A wait in trio costs as much as two requests. While requests come one after the other the
# device is polled directly for at most this long, which is also how late a timer can get.
LINGER_MS = 1
# Other tasks of trio run after at most so many requests.
BURST = 512


class Server:
    """Serves one mounted device until the mount is gone.

    Reads requests in bursts and hands each to its Session; between bursts timers run.
    `by_epoch`, `owner` and `watchdog` are those of the Session.
    """

    def __init__(
        self,
        machine: ServedMachine,
        device: int,
        *,
        by_epoch: bool = True,
        owner: tuple[int, int] = (0, 0),
        watchdog: Watchdog | None = None,
    ) -> None:
        self._device = device
        self._watchdog = watchdog or Watchdog()
        self._token: trio.lowlevel.TrioToken | None = None
        self.session = Session(
            machine,
            device,
            run_soon=self._run_soon,
            by_epoch=by_epoch,
            owner=owner,
            watchdog=self._watchdog,
        )
        self._pacer = Pacer(machine, self.session.settle, self.session.calls)
        self._collector = collecting.Collector()
        self._buffers = [self.session.buffer]
        self._poll = select.poll()
        self._poll.register(device, select.POLLIN)

    @property
    def served(self) -> int:
        """Number of requests so far."""
        return self.session.served

    def settle(self) -> None:
        """Tell the clients what changed without a request."""
        self.session.settle()

    def hurry(self) -> None:
        """Allow each request a second at most from now on, since the daemon is to end."""
        self._watchdog.hurry()

    async def run(self, started: Callable[[], None]) -> None:
        """Serve until the mount is gone; `started` is called once after the INIT request."""
        self._token = trio.lowlevel.current_trio_token()
        self._watchdog.start()
        try:
            async with trio.open_nursery() as nursery:
                pipes.open(partial(self._call_when_readable, nursery))
                nursery.start_soon(self._pacer.run)
                await self._serve(started)
                nursery.cancel_scope.cancel()
        finally:
            self.session.close()
            pipes.close()
            self._watchdog.stop()

    def _call_when_readable(
        self, nursery: trio.Nursery, descriptor: int, action: Callable[[], None]
    ) -> None:
        nursery.start_soon(self._when_readable, descriptor, action)

    async def _when_readable(self, descriptor: int, action: Callable[[], None]) -> None:
        """Call an action of a model once a pipe can be read, and serve those that it has woken."""
        await trio.lowlevel.wait_readable(descriptor)
        action()
        self.session.settle()

    async def _serve(self, started: Callable[[], None]) -> None:
        told = False
        while True:
            await self._wait()
            while (busy := self._burst()) or self.session.working:
                if busy is None:
                    return
                if self.session.working:
                    self.session.work()
                # Requests may come without a pause for hours.
                if self._collector.is_urgent():
                    self._collector.collect()
                await trio.lowlevel.checkpoint()
            if busy is None:
                return
            if self.session.started and not told:
                told = True
                started()

    async def _wait(self) -> None:
        """Wait for a request, and use the time if none comes for a while."""
        if collecting.is_due():
            with trio.move_on_after(collecting.IDLE_SECONDS):
                await trio.lowlevel.wait_readable(self._device)
                return
            self._collector.collect()
        await trio.lowlevel.wait_readable(self._device)

    def _burst(self) -> bool | None:
        """Serve the requests that are there. True: there may be more; None: the mount is gone."""
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
                # ENOENT: the request was interrupted while it was being read.
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
        # After the end there is nothing left that an action could deal with.
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(action)

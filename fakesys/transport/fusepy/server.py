"""The loop of the transport through fusepy: requests from threads of libfuse, served by trio.

libfuse calls from threads of its own. Each call crosses over to the trio thread, which owns the
models; a call that has to wait does so in its thread of libfuse and crosses over again once it was
woken. Differences to the native transport are listed in fakesys/docs/limits.md.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from errno import EINTR, EIO, ENODEV
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import trio

from fakesys.core.errors import Blocked, KernelError, Underway
from fakesys.core.kernel import Caller
from fakesys.transport.fusepy import library
from fakesys.transport.fusepy.open_files import OpenDirectories, OpenFiles
from fakesys.transport.fusepy.operations import Calls, Operations
from fakesys.transport.fusepy.paths import PathCalls
from fakesys.transport.mounting import SOURCE_PREFIX, MountError
from fakesys.transport.pacing import Pacer
from fakesys.transport.served import ServedMachine
from fakesys.transport.watchdog import Watchdog

_log = logging.getLogger(__name__)
# How often a waiting call asks libfuse for a signal, of which libfuse does not tell.
INTERRUPT_CHECK_SECONDS = 0.01
T = TypeVar("T")
P = ParamSpec("P")


@dataclass(eq=False)
class _Wait:
    """A call that must be repeated once it was woken."""

    blocked: Blocked
    woken: threading.Event = field(default_factory=threading.Event)


class Server:
    """Mounts, and serves the mount until it is gone.

    `owner` is the user and group who mounted. `watchdog`: ends requests that take too long; no
    request is sliced. Raises MountError without fusepy or libfuse 2.
    """

    def __init__(
        self,
        machine: ServedMachine,
        point: Path,
        instance: str,
        *,
        allow_other: bool = False,
        owner: tuple[int, int] = (0, 0),
        watchdog: Watchdog | None = None,
    ) -> None:
        self._watchdog = watchdog or Watchdog()
        self._fuse = library.load()
        self._machine = machine
        self._binder = machine.fs.binder
        self._point = point
        self._options = {
            **library.OPTIONS,
            "fsname": SOURCE_PREFIX + instance,
            "allow_other": allow_other,
        }
        self._calls = Calls(
            PathCalls(machine.fs, owner), OpenFiles(machine.fs, owner), OpenDirectories(machine.fs)
        )
        self._pacer = Pacer(machine, self.settle)
        self._token: trio.lowlevel.TrioToken | None = None
        self._started: Callable[[], None] = lambda: None
        self._ended = False
        self._kernel = machine.kernel
        self._waiting: set[_Wait] = set()
        self._stderr = library.StderrCapture()
        self.served = 0

    def settle(self) -> None:
        """Remove nodes that are gone, after a change without a request. Clients cache nothing."""
        if self._kernel is not self._machine.kernel:
            # What calls wait for in the machine before this one will never happen.
            self._kernel = self._machine.kernel
            for wait in self._waiting:
                wait.woken.set()
        if self._binder.unsettled:
            self._machine.fs.settle()

    def hurry(self) -> None:
        """Allow each request a second at most from now on, since the daemon is to end."""
        self._watchdog.hurry()

    async def run(self, started: Callable[[], None]) -> None:
        """Mount and serve; `started` is called once after the INIT request.

        Raises MountError with the message of libfuse. When cancelled, it leaves threads of libfuse
        behind, which end with the process.
        """
        self._token = trio.lowlevel.current_trio_token()
        self._watchdog.start()
        self._started = started
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pacer.run)
                await trio.to_thread.run_sync(self._main, abandon_on_cancel=True)
                nursery.cancel_scope.cancel()
        finally:
            self._ended = True
            self._watchdog.stop()
            self._calls.close_all()

    def _main(self) -> None:
        """Run the main loop of libfuse, in a thread of its own."""
        operations = Operations(
            self._fuse,
            self._calls,
            run=self._run_on_trio,
            started=self._mounted,
            bug=self._bug_outside,
        )
        options = dict(self._options)
        # One character per byte: fusepy would refuse a name that is not valid UTF-8.
        point = os.fsencode(self._point).decode("latin-1")
        self._stderr.start()
        try:
            self._fuse.FUSE(operations, point, raw_fi=True, encoding="latin-1", **options)
        except RuntimeError:
            message = self._stderr.stop()
            if message is not None:
                raise MountError(message) from None
            _log.warning("libfuse ended with an error")
        finally:
            self._stderr.stop()

    def _bug_outside(self, error: BaseException) -> None:
        """Report an error that happened in a thread of libfuse."""
        self._cross(self._bug, error)

    def _mounted(self) -> None:
        """Let `started` be called: the INIT request shows that the mount exists."""
        assert self._token is not None
        self._stderr.stop()
        self._token.run_sync_soon(self._started)

    def _run_on_trio(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call on the trio thread, again each time after it was woken."""
        caller = self._caller()
        request = functools.partial(call, *args, **kwargs)
        while True:
            answer = self._cross(self._step, caller, request)
            if not isinstance(answer, _Wait):
                result: T = answer
                return result
            try:
                self._wait(answer)
            finally:
                self._cross(self._forget, answer)

    def _forget(self, wait: _Wait) -> None:
        wait.blocked.waiters.discard(wait)
        self._waiting.discard(wait)

    def _caller(self) -> Caller:
        uid, gid, pid = self._fuse.fuse_get_context()
        return Caller(pid, uid, gid)

    def _cross(self, call: Callable[..., Any], *arguments: object) -> Any:
        try:
            return trio.from_thread.run_sync(call, *arguments, trio_token=self._token)
        except trio.RunFinishedError:
            raise KernelError(ENODEV, "the mount is going") from None

    def _step(self, caller: Caller, call: Callable[[], T]) -> T | _Wait:
        """Perform one request, on the trio thread."""
        if self._ended:
            raise KernelError(ENODEV, "the mount is going")
        self.served += 1
        kernel = self._machine.kernel
        kernel.caller = caller
        try:
            self._watchdog.enter()
            if kernel.on_request is not None:
                kernel.on_request(caller)
            return call()
        except Blocked as blocked:
            wait = _Wait(blocked)
            blocked.waiters.add(wait, wait.woken.set)
            self._waiting.add(wait)
            return wait
        except KernelError:
            raise
        except BaseException as error:
            self._bug(error)
            raise KernelError(EIO, "internal error") from None
        finally:
            self._watchdog.leave()
            self.settle()
            self._pacer.look()

    def _bug(self, error: BaseException) -> None:
        _log.error("internal error", exc_info=error)
        self._machine.bug(error)

    def _wait(self, wait: _Wait) -> None:
        """Wait until woken. Raises EINTR after a signal, ENODEV when the mount is gone."""
        library = self._fuse._libfuse
        connection = library.fuse_get_context().contents.fuse
        while not wait.woken.wait(INTERRUPT_CHECK_SECONDS):
            gone = self._ended or library.fuse_exited(connection)
            if library.fuse_interrupted() and isinstance(wait.blocked, Underway) and not gone:
                self._cross(wait.blocked.interrupted)
            elif gone or library.fuse_interrupted():
                raise KernelError(ENODEV if gone else EINTR, "a waiting call was ended")

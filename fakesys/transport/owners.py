"""Watch the processes that own objects of a model, such as VMs, which end with them.

A VM of KVM lives as long as its descriptor; here it lives as long as the process that created it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import trio

from fakesys.transport.processes import is_alive

# How often to look at a process where pidfd_open(2) does not work.
LOOK_SECONDS = 0.2


class Owners:
    """Watches processes in the loop of a mount, one task each.

    `settle` is called after a model was told of an end, so that clients see the change.
    `bug` takes the exception of a model that failed meanwhile.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        settle: Callable[[], None],
        bug: Callable[[BaseException], None],
    ) -> None:
        self._nursery = nursery
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()
        self._settle = settle
        self._bug = bug

    def watch(self, pid: int, ended: Callable[[], None]) -> Callable[[], None]:
        """Call `ended` once when the process of this thread has ended; return what stops that.

        A number that is no running process is taken as a name: `ended` is never called then.
        """
        process = process_of(pid)
        if not is_alive(process):
            return lambda: None
        scope, stopped = trio.CancelScope(), threading.Event()

        def stop() -> None:
            stopped.set()
            self._in_loop(scope.cancel)

        self._in_loop(self._nursery.start_soon, self._wait, process, ended, scope, stopped)
        return stop

    def _in_loop(self, action: Callable[..., object], *arguments: object) -> None:
        """Call the loop now, or soon from a call that runs in slices on another thread."""
        if threading.get_ident() == self._thread:
            action(*arguments)
        else:
            self._token.run_sync_soon(action, *arguments)

    async def _wait(
        self,
        process: int,
        ended: Callable[[], None],
        scope: trio.CancelScope,
        stopped: threading.Event,
    ) -> None:
        with scope:
            await _end_of(process)
            if stopped.is_set():
                return
            try:
                ended()
            except Exception as error:
                self._bug(error)
            self._settle()


def process_of(thread: int) -> int:
    """Return the process of a thread; the number itself when the thread is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{thread}/status").read_text().splitlines():
            if line.startswith("Tgid:"):
                return int(line.removeprefix("Tgid:"))
    return thread


async def _end_of(process: int) -> None:
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return
    except OSError:
        await _seen_ended(process)
        return
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


async def _seen_ended(process: int) -> None:
    while is_alive(process):  # noqa: ASYNC110 - without a pidfd there is no event to wait for
        await trio.sleep(LOOK_SECONDS)

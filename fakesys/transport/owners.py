"""Says when a process has ended: for what lives no longer than the process that made it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import trio

# How often a process is looked at where the kernel has no descriptors for processes.
LOOK_SECONDS = 0.2


class Owners:
    """Watches processes in the loop of a mount, one task each.

    `settle`: called after a model has heard of an end, so that clients are told.
    `bug`: takes what a model fails with.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        settle: Callable[[], None],
        bug: Callable[[BaseException], None],
    ) -> None:
        self._nursery = nursery
        self._settle = settle
        self._bug = bug

    def watch(self, pid: int, ended: Callable[[], None]) -> Callable[[], None]:
        """Call `ended` once when the process of this thread has ended; the result stops that.

        A number that is no process now is a mere name: nothing of it can end.
        """
        process = process_of(pid)
        if not _is_alive(process):
            return lambda: None
        scope = trio.CancelScope()
        self._nursery.start_soon(self._wait, process, ended, scope)
        return scope.cancel

    async def _wait(self, process: int, ended: Callable[[], None], scope: trio.CancelScope) -> None:
        with scope:
            await _end_of(process)
            try:
                ended()
            except Exception as error:
                self._bug(error)
            self._settle()


def process_of(thread: int) -> int:
    """The process that a thread belongs to; the number itself when the thread is gone."""
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
    while _is_alive(process):  # noqa: ASYNC110 - nothing tells of the end here
        await trio.sleep(LOOK_SECONDS)


def _is_alive(process: int) -> bool:
    # Here, not above: a mount without VMs needs no psutil, which takes long to import.
    from fakesys.transport import processes as host

    return host.is_alive(process)

"""Processes of the host: alive or not, their names, and which of them hold a mount.

psutil is imported where it is used: a daemon starts without it.
"""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path
from typing import NamedTuple

# Fields of /proc/PID/stat after the name, counted from 0: field 22 of proc(5).
START_FIELD = 19


class Holder(NamedTuple):
    """A process that keeps a mount in use."""

    pid: int
    command: str
    path: str


def is_alive(pid: int) -> bool:
    """Return whether the process exists and runs; a zombie does not run."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def start_time(pid: int) -> int:
    """Return when a process has started, in clock ticks since boot; 0 when there is none.

    With its pid it names one process: the kernel gives a pid to another one later.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return 0
    # The name in parentheses may contain blanks and parentheses itself.
    return int(text.rpartition(")")[2].split()[START_FIELD])


class Process:
    """One process, which is never taken for a later one with its pid; a context manager.

    `started`: its `start_time`. It may have ended already.
    """

    def __init__(self, pid: int, started: int) -> None:
        self.pid = pid
        self._descriptor: int | None = None
        try:
            descriptor = os.pidfd_open(pid)
        except (ProcessLookupError, ValueError, OverflowError):
            return
        # Compared when the descriptor is open: from then on it means this process.
        if start_time(pid) == started:
            self._descriptor = descriptor
        else:
            os.close(descriptor)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def wait_gone(self, seconds: float) -> bool:
        """Wait until it has ended; return False when it still runs after `seconds`.

        A zombie, for which its parent has not called wait(2) yet, has ended.
        """
        if self._descriptor is None:
            return True
        ready, _, _ = select.select([self._descriptor], [], [], seconds)
        return bool(ready)

    def terminate(self) -> None:
        """Send SIGTERM, if it still runs."""
        if not self.wait_gone(0):
            assert self._descriptor is not None
            signal.pidfd_send_signal(self._descriptor, signal.SIGTERM)


def command_of(pid: int) -> str:
    """Return the short name of a process as `ps` shows it, empty when it is gone.

    Characters that cannot be printed are replaced by question marks.
    """
    import psutil

    try:
        name = psutil.Process(pid).name()
    except psutil.Error:
        return ""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def holders(point: Path) -> list[Holder]:
    """Return the processes that have an open file, working directory or root below `point`.

    Those that this user may not look at are left out.
    """
    import psutil

    found = []
    for process in psutil.process_iter():
        path = _held_path(process.pid, str(point))
        if path is not None:
            found.append(Holder(process.pid, command_of(process.pid), path))
    return found


def _held_path(pid: int, point: str) -> str | None:
    # psutil lists open regular files only and calls stat(2) on each, which a dead mount blocks.
    base = f"/proc/{pid}"
    try:
        links = [
            f"{base}/cwd",
            f"{base}/root",
            *(f"{base}/fd/{fd}" for fd in os.listdir(f"{base}/fd")),
        ]
    except OSError:
        return None
    for link in links:
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if target == point or target.startswith(point + "/"):
            return target
    return None

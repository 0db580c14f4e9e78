"""Processes of the host, by psutil: alive or not, their names, and which of them hold a mount."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

import psutil

POLL_SECONDS = 0.005


class Holder(NamedTuple):
    """A process that keeps a mount in use."""

    pid: int
    command: str
    path: str


def is_alive(pid: int) -> bool:
    """Return whether the process exists and runs; a zombie does not run."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def command_of(pid: int) -> str:
    """Return the short name of a process as `ps` shows it, empty when it is gone.

    Characters that cannot be printed are replaced by question marks.
    """
    try:
        name = psutil.Process(pid).name()
    except psutil.Error:
        return ""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def wait_gone(pid: int, seconds: float) -> bool:
    """Wait until the process has ended; return False when it still runs after `seconds`.

    A zombie, for which its parent has not called wait(2) yet, has ended.
    """
    deadline = time.monotonic() + seconds
    while is_alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def holders(point: Path) -> list[Holder]:
    """Return the processes that have an open file, working directory or root below `point`.

    Those that this user may not look at are left out.
    """
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

"""The real host behind the fake one: processes, who holds a mount, names of pids. By psutil."""

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
    """Does the process exist and run? A zombie does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def command_of(pid: int) -> str:
    """The short name of a process as `ps` shows it, empty when it is gone.

    A process may call itself anything: what cannot be printed is a question mark.
    """
    try:
        name = psutil.Process(pid).name()
    except psutil.Error:
        return ""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def wait_gone(pid: int, seconds: float) -> bool:
    """Wait until the process has ended; False when it still runs after `seconds`.

    One that its parent has not yet asked about has ended too.
    """
    deadline = time.monotonic() + seconds
    while is_alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def holders(point: Path) -> list[Holder]:
    """Processes with an open file, working directory or root below `point`, as far as visible."""
    found = []
    for process in psutil.process_iter():
        path = _held_path(process.pid, str(point))
        if path is not None:
            found.append(Holder(process.pid, command_of(process.pid), path))
    return found


def _held_path(pid: int, point: str) -> str | None:
    # psutil lists open regular files only, and stats each; links are enough and touch nothing.
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

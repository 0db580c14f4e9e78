"""One cell: a program, run once on a fresh machine with one disturbance; plain data in and out."""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fakesys.sweep.links import Link, LinkError

_TASK = {
    "command": [],
    "net": False,
    "seconds": 10.0,
    "known": "",
    "aim": None,
    "first": None,
    "last": None,
    "wait": 0.0,
    "again": False,
    "check": [],
}
ENDING = 10.0


class Zygote:
    """The process that makes the worlds of this process' cells, one at a time."""

    def __init__(self) -> None:
        own, other = socket.socketpair()
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fakesys.sweep.zygote", str(other.fileno())],
                pass_fds=(other.fileno(),),
                stdin=subprocess.DEVNULL,
                # Ctrl-C at a terminal is for the sweep; this process ends when that one ends.
                start_new_session=True,
            )
        self.link = Link(own)

    def end(self) -> None:
        """End it and all processes of a cell."""
        self.link.close()
        try:
            self._process.wait(ENDING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_lock = threading.Lock()
_zygote: Zygote | None = None


def run_cell(task: Mapping[str, Any], folder: str | None = None) -> dict[str, Any]:
    """Run the cell of a task in a process that is kept for the next one; return what it gave.

    `folder`: with the files that came along with the task. Raises LinkError.

    Task: `machine` (`zygote.MachineSpec`), `command`, `environment`, `directory`, `seconds`;
    `aim` (`watch.Aim`), `first` and `last` (disturbances before and after the program), `wait`
    (simulated seconds after it), `again` (run the program once more), `check` (a command).
    Result: `status`, `hung`, `output`, `operations`, `reached`, `state`, `violated`, `bugs`, and
    `again`, `check` where asked for.
    """
    global _zygote
    whole = {**_TASK, **task}
    if folder is not None:
        whole["command"] = [_sent(word, Path(folder)) for word in whole["command"]]
        whole["check"] = [_sent(word, Path(folder)) for word in whole["check"]]
    with _lock:
        if _zygote is None:
            _zygote = Zygote()
            atexit.register(end_zygote)
        try:
            return _zygote.link.ask(whole, 600.0 + 4 * whole["seconds"])
        except BaseException:
            end_zygote()
            raise


def _sent(word: str, folder: Path) -> str:
    path = folder / Path(word).name
    return str(path) if os.sep in word and path.is_file() else word


def end_zygote() -> None:
    """End the process that run_cell keeps, if there is one."""
    global _zygote
    if _zygote is not None:
        _zygote.end()
        _zygote = None


__all__ = ["LinkError", "end_zygote", "run_cell"]

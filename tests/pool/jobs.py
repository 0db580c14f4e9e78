"""Functions that workers of the tests call."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def squared(task: Mapping[str, Any]) -> dict[str, Any]:
    return {"of": task["number"], "is": task["number"] ** 2}


def deadly_once(task: Mapping[str, Any]) -> int:
    """End the worker by SIGKILL, as a machine out of memory does; but not the next worker."""
    mark = Path(task["mark"])
    if task["number"] == task["deadly"] and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return int(task["number"])


def deadly(task: Mapping[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wrong(task: Mapping[str, Any]) -> None:
    raise ValueError(f"number {task['number']}")


def endless(task: Mapping[str, Any]) -> None:
    """Start a process, tell both numbers, and wait; tidy up when told to end."""
    child = subprocess.Popen(["sleep", "1000"])
    told = Path(task["folder"]) / f"{os.getpid()}"
    told.with_suffix(".new").write_text(f"{child.pid}")
    told.with_suffix(".new").rename(told)
    try:
        time.sleep(1000)
    finally:
        (Path(task["folder"]) / "tidied").touch()


def of_program(task: Mapping[str, Any], folder: str) -> str:
    """Run a program that came along, and leave something that the next task must not see."""
    before = sorted(os.listdir(folder))
    (Path(folder) / "left").touch()
    program = Path(folder) / "program.sh"
    return f"{before} {subprocess.check_output([program, task['word']], text=True)}"


def slow(task: Mapping[str, Any]) -> int:
    time.sleep(task["seconds"])
    return int(task["number"]) ** 2

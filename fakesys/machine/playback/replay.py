"""Runs a recorded script against a machine and compares every result with the recorded one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from errno import errorcode
from pathlib import Path
from typing import NamedTuple, Protocol

from fakesys.core.errors import ERRNO_NAMES, KernelError
from fakesys.core.text import LONGEST_QUOTE, one_line
from fakesys.machine.hardware import ScenarioError
from fakesys.machine.machine import Machine
from fakesys.machine.scenario import MOST_RECORDED, origin_in
from fakesys.machine.timeline import Timeline, log
from fakesys.machine.untrusted.below import Below
from fakesys.machine.untrusted.files import read_file
from fakesys.subsystems.control.recording import ADVANCE, FOLDER, RATE
from fakesys.subsystems.control.script import ScriptError, Step

NOW = f"{FOLDER}clock/now"


class Difference(NamedTuple):
    """A step that had another result than when it was recorded."""

    step: Step
    result: str


class Target(Protocol):
    """What the steps are done on. Each raises OSError."""

    def write(self, path: str, text: bytes, *, truncate: bool) -> int:
        """Call write(2) once; return the number of bytes taken."""

    def clear(self, path: str) -> None:
        """Open with O_TRUNC, and close."""

    def mkdir(self, path: str) -> None:
        """Make a directory."""

    def rmdir(self, path: str) -> None:
        """Remove a directory."""

    def read(self, path: str) -> str:
        """Return the text of a file."""


class InMemory:
    """A machine of this process."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        if machine.scenario.at:
            Timeline(machine, log).schedule()

    def write(self, path: str, text: bytes, *, truncate: bool) -> int:
        """Write as a process does on a mount."""
        return self._machine.write(path, text.decode("latin-1"), truncate=truncate)

    def clear(self, path: str) -> None:
        """Open with O_TRUNC as a process does on a mount."""
        fs = self._machine.fs
        fs.open(fs.resolve(path), os.O_WRONLY | os.O_TRUNC).release()

    def mkdir(self, path: str) -> None:
        """Make a directory, such as an instance of tracefs."""
        self._machine.mkdir(path)

    def rmdir(self, path: str) -> None:
        """Remove a directory that `mkdir` made."""
        self._machine.rmdir(path)

    def read(self, path: str) -> str:
        """Return the text of a file."""
        return self._machine.read(path)


class OnMount:
    """A mount, by system calls. No path of a step leads out of it: such a step is EXDEV."""

    def __init__(self, root: Below) -> None:
        self._root = root

    def write(self, path: str, text: bytes, *, truncate: bool) -> int:
        """Call write(2) once; return the number of bytes taken."""
        with self._open(path, os.O_TRUNC if truncate else os.O_APPEND) as descriptor:
            return os.write(descriptor, text)

    def clear(self, path: str) -> None:
        """Call open(2) with O_TRUNC."""
        with self._open(path, os.O_TRUNC):
            pass

    def mkdir(self, path: str) -> None:
        """Call mkdir(2)."""
        self._root.mkdir(path)

    def rmdir(self, path: str) -> None:
        """Call rmdir(2)."""
        self._root.rmdir(path)

    def read(self, path: str) -> str:
        """Return the text of a file."""
        with os.fdopen(self._root.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            return file.read().decode("latin-1")

    @contextmanager
    def _open(self, path: str, flags: int) -> Iterator[int]:
        # O_NONBLOCK: what would wait here for ever did not wait when it was recorded.
        descriptor = self._root.open(path, os.O_WRONLY | os.O_NONBLOCK | flags)
        try:
            yield descriptor
        finally:
            with suppress(OSError):
                os.close(descriptor)


def recording_in(file: Path) -> str:
    """Return the text of a recorded script. Raises UnusableFileError."""
    return read_file(file, MOST_RECORDED).decode("utf-8", "surrogateescape")


def machine_of(script: str) -> Machine:
    """Return a new machine like the one that was recorded. Raises ScriptError."""
    try:
        origin = origin_in(script)
    except ScenarioError as error:
        raise ScriptError(f"{error}; use --mount") from None
    try:
        return Machine(origin.profile, origin.scenario, seed=origin.seed)
    except (ScenarioError, KernelError) as error:
        why = one_line(str(error), LONGEST_QUOTE)
        raise ScriptError(f"the line `#: ` describes no machine: {why}") from None


def run_steps(steps: Iterable[Step], target: Target) -> Iterator[Difference]:
    """Do the steps; yield those with another result. The time stops between two steps."""
    rate = target.read(RATE)
    try:
        for step in steps:
            result = done(step, target)
            if result != step.result:
                yield Difference(step, result)
    finally:
        target.write(RATE, rate.encode(), truncate=True)


def done(step: Step, target: Target) -> str:
    """Do a step; return its result: `ok`, or the name of an errno."""
    try:
        return _do(step, target)
    except OSError as error:
        number = error.errno or 0
        return ERRNO_NAMES.get(number) or errorcode.get(number, str(number))


def _do(step: Step, target: Target) -> str:
    match step.word:
        case "put" | "add" | "block":
            taken = target.write(step.path, step.text, truncate=step.word == "put")
            return "ok" if taken == len(step.text) else f"{taken} bytes"
        case "mkdir":
            target.mkdir(step.path)
            return "ok"
        case "rmdir":
            target.rmdir(step.path)
            return "ok"
        case "clear":
            target.clear(step.path)
        case "hold" | "start":
            target.write(RATE, b"0\n", truncate=True)
    if step.word == "start":
        left = float(step.seconds) - float(target.read(NOW))
        if left > 0:
            target.write(ADVANCE, f"{left:.9f}\n".encode(), truncate=True)
    if step.word == "advance":
        target.write(ADVANCE, f"{step.seconds}\n".encode(), truncate=True)
    return ""

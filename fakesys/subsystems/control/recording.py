"""What is written to the mount, as it happens, in the words of `script.py`.

It costs nothing without an open recording: the file system knows a recorder only then. Other files
that tell of each write are listeners too (`writers.py`).
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from errno import EAGAIN, EINVAL
from typing import Protocol, TypeVar

from fakesys.core.clock import NS, Clock
from fakesys.core.errors import Blocked, KernelError, Waiters
from fakesys.core.kernel import Begun, Caller
from fakesys.core.scheduling.resched import SlicedCall, running_call
from fakesys.core.version import __version__
from fakesys.subsystems.control.faults import parse_seconds
from fakesys.subsystems.control.script import LONGEST_BY_SHELL, Step, line_of, preamble

FOLDER = "sys/kernel/debug/fakesys/"
ADVANCE, RATE, RESET = (f"{FOLDER}{name}" for name in ("clock/advance", "clock/rate", "reset"))
SNAPSHOT = f"{FOLDER}snapshot"
# A reader that is slower than the writers for so long loses what comes then.
MOST_KEPT = 64 << 20

L = TypeVar("L", bound="Listener")


class Recorded(Protocol):
    """What a recording must know of the machine."""

    @property
    def clock(self) -> Clock:
        """The time of the present kernel."""

    @property
    def mount_options(self) -> str:
        """The options of `fakesys mount` that make such a machine."""

    @property
    def description(self) -> str:
        """What the machine was at its beginning, as one line."""

    def pinned(self, path: str, text: bytes) -> bytes:
        """Return the text that has the same effect for every writer."""

    @property
    def caller(self) -> Caller:
        """The process that makes the present call."""

    def comm(self, pid: int) -> str:
        """Return the name of a task, its bytes as one character each."""


class Listener(Protocol):
    """What hears of all that may change the machine."""

    def wrote(
        self, begun: Begun, path: str, text: bytes, error: KernelError | None, *, truncatable: bool
    ) -> None:
        """Hear of a write. `truncatable`: to a file that reacts to O_TRUNC."""

    def happened(self, begun: Begun, path: str, text: bytes) -> None:
        """Hear of what happened by itself and what this write would do as well."""

    def truncated(self, begun: Begun, path: str) -> None:
        """Hear of an open with O_TRUNC of a file that reacts to it."""

    def made(self, begun: Begun, word: str, path: str, error: KernelError | None) -> None:
        """Hear of a `mkdir` or `rmdir`."""


@dataclass(eq=False)
class Recordings:
    """All open recordings and other listeners. `changed`: called when one is opened or closed."""

    machine: Recorded
    changed: Callable[[], None]
    all: list[Listener] = field(default_factory=list)
    # The calls within `unrecorded`: other calls go on between the slices of one.
    _unrecorded: set[SlicedCall | None] = field(default_factory=set)

    def open(self) -> Recording:
        """Begin another recording, of what happens from now on."""
        return self.add(Recording(self))

    def add(self, listener: L) -> L:
        """Let a listener hear of what happens from now on; return it."""
        self.all.append(listener)
        self.changed()
        return listener

    def close(self, listener: Listener) -> None:
        """End what a listener hears: its reader has gone."""
        self.all.remove(listener)
        self.changed()

    @contextmanager
    def unrecorded(self) -> Iterator[None]:
        """Leave out what the machine itself writes within the block."""
        outer, call = self._unrecorded, running_call()
        self._unrecorded = outer | {call}
        try:
            yield
        finally:
            if call not in outer:
                self._unrecorded = self._unrecorded - {call}

    @property
    def _listening(self) -> Sequence[Listener]:
        """The listeners that hear of what this call does."""
        return () if running_call() in self._unrecorded else self.all

    def begin(self) -> Begun:
        """Return time and caller of a request that may change something, which begins now."""
        clock = self.machine.clock
        now, due = clock.now_ns, clock.next_due_ns
        # What is due but has not happened comes after this write.
        at_ns = now if due is None or due > now else due - 1
        return Begun(at_ns, self.machine.caller)

    def wrote(
        self,
        begun: Begun,
        path: str,
        text: bytes,
        error: KernelError | None,
        *,
        truncatable: bool,
    ) -> None:
        """Record a write that was taken, or refused with `error`."""
        for listener in self._listening:
            listener.wrote(begun, path, text, error, truncatable=truncatable)

    def happened(self, begun: Begun, path: str, text: bytes) -> None:
        """Record that something happened which this write would do."""
        for listener in self._listening:
            listener.happened(begun, path, text)

    def truncated(self, path: str) -> None:
        """Record that a file which reacts to O_TRUNC was opened with it."""
        begun = self.begin()
        for listener in self._listening:
            listener.truncated(begun, path)

    def made(self, begun: Begun, word: str, path: str, error: KernelError | None) -> None:
        """Record a `mkdir` or `rmdir` that was done, or refused with `error`."""
        for listener in self._listening:
            listener.made(begun, word, path, error)


class Lines:
    """Lines for one reader. `lost`: the text that tells how many came while too many waited."""

    def __init__(self, lost: Callable[[int], str]) -> None:
        self._told = lost
        self._pieces: deque[bytes] = deque()
        self._kept = self._lost = 0
        self.waiters = Waiters()

    def __len__(self) -> int:
        return len(self._pieces)

    def say(self, text: str, most: int) -> None:
        """Add a line, unless more than `most` bytes wait for the reader."""
        if self._kept > most:
            self._lost += 1
            return
        if self._lost:
            text = self._told(self._lost) + text
            self._lost = 0
        data = text.encode("utf-8", "surrogateescape")
        self._pieces.append(data)
        self._kept += len(data)
        self.waiters.wake()

    def read(self, size: int, *, nonblock: bool) -> bytes:
        """Return what comes next. Raises EAGAIN or Blocked when there is nothing yet."""
        if not self._pieces:
            if nonblock:
                raise KernelError(EAGAIN, "nothing was written since")
            raise Blocked(self.waiters)
        data = self._pieces.popleft()
        while self._pieces and len(data) < size:
            data += self._pieces.popleft()
        if len(data) > size:
            self._pieces.appendleft(data[size:])
            data = data[:size]
        self._kept -= len(data)
        return data


def refuse_write() -> KernelError:
    """Return the refusal of a write to what is written to others."""
    return KernelError(EINVAL, "a recording is only read")


class Recording:
    """One open file: the script so far."""

    def __init__(self, recordings: Recordings) -> None:
        self._recordings = recordings
        self._machine = recordings.machine
        self._lines = Lines("# LOST: {} lines, the reader was too slow\n".format)
        # The time of a machine on which the script so far has run.
        self._now_ns = self._machine.clock.now_ns
        # A file that was opened with O_TRUNC: if the next step writes to it, one line says both.
        self._truncated: str | None = None
        self._say(preamble(__version__, self._machine.mount_options, self._machine.description))
        self._step(Step(0, "start", seconds=_seconds(self._now_ns)))

    def wrote(
        self, begun: Begun, path: str, text: bytes, error: KernelError | None, *, truncatable: bool
    ) -> None:
        """Add one write. `truncatable`: to a file that reacts to O_TRUNC."""
        if error is None:
            text = self._machine.pinned(path, text)
        self._add(begun.at_ns, path, text, error, truncatable=truncatable)

    def happened(self, begun: Begun, path: str, text: bytes) -> None:
        """Add the write that would do what has happened."""
        self._add(begun.at_ns, path, text, None, truncatable=False)

    def _add(
        self, at_ns: int, path: str, text: bytes, error: KernelError | None, *, truncatable: bool
    ) -> None:
        if path == SNAPSHOT:
            if text.endswith(b'"}\n'):
                self._say("# a snapshot was loaded here, which is not recorded\n")
                self._now_ns = self._machine.clock.now_ns
            return
        truncated, self._truncated = self._truncated, None
        if truncated is not None and truncated != path:
            self._step(Step(0, "clear", path=truncated))
        self._advance(at_ns)
        by_shell = len(text) <= LONGEST_BY_SHELL and b"\n" not in text[:-1]
        if truncated == path and not by_shell:
            self._step(Step(0, "clear", path=path))
        word = ("add" if truncatable and truncated != path else "put") if by_shell else "block"
        self._step(Step(0, word, result_of(error), path, text))
        if error is None:
            self._follow(path, text)

    def truncated(self, begun: Begun, path: str) -> None:
        """Add an open with O_TRUNC, which the next write may make part of its line."""
        self._flush()
        self._advance(begun.at_ns)
        self._truncated = path

    def made(self, begun: Begun, word: str, path: str, error: KernelError | None) -> None:
        """Add a step on a directory."""
        self._flush()
        self._advance(begun.at_ns)
        self._step(Step(0, word, result_of(error), path))

    def read(self, offset: int, size: int, *, nonblock: bool) -> bytes:
        """Return the next part of the script. Raises EAGAIN or Blocked when there is none yet."""
        self._flush()
        return self._lines.read(size, nonblock=nonblock)

    def write(self, data: bytes, offset: int, *, nonblock: bool) -> int:
        """Refuse with EINVAL: the file is only read."""
        raise refuse_write()

    def poll(self) -> int:
        """Return POLLIN while there is something to read."""
        return select.POLLIN | select.POLLRDNORM if self._lines or self._truncated else 0

    def waiters(self) -> Waiters:
        """Return the waiters that each step wakes."""
        return self._lines.waiters

    def release(self) -> None:
        """End the recording."""
        self._recordings.close(self)

    def _flush(self) -> None:
        truncated, self._truncated = self._truncated, None
        if truncated is not None:
            self._step(Step(0, "clear", path=truncated))

    def _advance(self, to_ns: int) -> None:
        if to_ns > self._now_ns:
            self._step(Step(0, "advance", seconds=_seconds(to_ns - self._now_ns)))
            self._now_ns = to_ns

    def _follow(self, path: str, text: bytes) -> None:
        """Follow a write that moves or resets the time, as it does where the script runs."""
        if path == ADVANCE:
            self._now_ns += round(parse_seconds(text.decode("latin-1")) * NS)
        elif path == RESET:
            self._now_ns = 0
        if path in (RATE, RESET):
            self._step(Step(0, "hold"))

    def _step(self, step: Step) -> None:
        if "\n" in step.path:
            self._say("# a path with a newline, which is not recorded\n")
            return
        self._say(line_of(step))

    def _say(self, text: str) -> None:
        self._lines.say(text, MOST_KEPT)


def result_of(error: KernelError | None) -> str:
    """Return `ok` or the name of the errno."""
    return "ok" if error is None else error.name


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds // NS}.{nanoseconds % NS:09}"

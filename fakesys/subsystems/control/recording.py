"""What is written to the mount, as it happens, in the words of `script.py`.

Costs nothing while nobody reads: the file system is told of a recorder only then.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from errno import EAGAIN, EINVAL
from typing import Protocol

from fakesys.core.clock import NS, Clock
from fakesys.core.errors import Blocked, KernelError
from fakesys.core.version import __version__
from fakesys.core.waiters import Waiters
from fakesys.subsystems.control.faults import parse_seconds
from fakesys.subsystems.control.script import LONGEST_BY_SHELL, Step, line_of, preamble
from fakesys.tree.node import File

FOLDER = "sys/kernel/debug/fakesys/"
ADVANCE, RATE, RESET = (f"{FOLDER}{name}" for name in ("clock/advance", "clock/rate", "reset"))
SNAPSHOT = f"{FOLDER}snapshot"
# A reader that is slower than the writers for so long loses what comes then.
MOST_KEPT = 64 << 20


class Recorded(Protocol):
    """What a recording must know of the machine."""

    @property
    def clock(self) -> Clock:
        """The time of the present kernel."""

    @property
    def origin(self) -> str:
        """The options of `mount` that make such a machine."""

    @property
    def description(self) -> str:
        """What the machine was at its beginning, as one line."""

    def pinned(self, path: str, text: bytes) -> bytes:
        """The text that means the same whoever writes it."""


@dataclass(eq=False)
class Recordings:
    """All open recordings. `changed`: called when the first one comes or the last one goes."""

    machine: Recorded
    changed: Callable[[], None]
    all: list[Recording] = field(default_factory=list)
    paused: bool = False
    _begun_ns: int = 0

    def open(self) -> Recording:
        """A new one, from now on."""
        made = Recording(self)
        self.all.append(made)
        self.changed()
        return made

    def close(self, recording: Recording) -> None:
        """Its reader has gone."""
        self.all.remove(recording)
        self.changed()

    @contextmanager
    def unrecorded(self) -> Iterator[None]:
        """What the machine writes itself meanwhile is no request of anybody."""
        before, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = before

    def begin(self) -> None:
        """A request that may change something begins now."""
        if self.paused:
            return
        clock = self.machine.clock
        now, due = clock.now_ns, clock.next_due_ns
        # What is due but has not happened comes after this write.
        self._begun_ns = now if due is None or due > now else due - 1

    def wrote(self, file: File, text: bytes, error: KernelError | None) -> None:
        """A write was taken, or refused."""
        path = file.path
        if error is None and not self.paused:
            text = self.machine.pinned(path, text)
        self.write(path, text, error, minds_truncation=file.row.truncate is not None)

    def write(
        self,
        path: str,
        text: bytes,
        error: KernelError | None = None,
        *,
        minds_truncation: bool = False,
    ) -> None:
        """Something happened that this write would do."""
        for recording in () if self.paused else self.all:
            recording.wrote(self._begun_ns, path, text, error, appends=minds_truncation)

    def cleared(self, path: str) -> None:
        """A file that minds it was opened with O_TRUNC."""
        self.begin()
        for recording in () if self.paused else self.all:
            recording.cleared(self._begun_ns, path)

    def made(self, word: str, path: str, error: KernelError | None) -> None:
        """`mkdir` or `rmdir` was done, or refused."""
        for recording in () if self.paused else self.all:
            recording.made(self._begun_ns, Step(0, word, _result(error), path))


class Recording:
    """One open file: the script so far."""

    def __init__(self, recordings: Recordings) -> None:
        self._recordings = recordings
        self._machine = recordings.machine
        self._pieces: deque[bytes] = deque()
        self._kept = self._lost = 0
        self._waiters = Waiters()
        # The time that a machine has which was brought here by the script.
        self._now_ns = self._machine.clock.now_ns
        # A file that was cleared: if the next step writes to it, one line says both.
        self._cleared: str | None = None
        self._say(preamble(__version__, self._machine.origin, self._machine.description))
        self._step(Step(0, "start", seconds=_seconds(self._now_ns)))

    def wrote(
        self, at_ns: int, path: str, text: bytes, error: KernelError | None, *, appends: bool
    ) -> None:
        """One write. `appends`: to a file that opening with O_TRUNC would have cleared."""
        if path == SNAPSHOT:
            if text.endswith(b'"}\n'):
                self._say("# a snapshot was loaded here, which is not recorded\n")
                self._now_ns = self._machine.clock.now_ns
            return
        cleared, self._cleared = self._cleared, None
        if cleared is not None and cleared != path:
            self._step(Step(0, "clear", path=cleared))
        self._advance(at_ns)
        by_shell = len(text) <= LONGEST_BY_SHELL and b"\n" not in text[:-1]
        if cleared == path and not by_shell:
            self._step(Step(0, "clear", path=path))
        word = ("add" if appends and cleared != path else "put") if by_shell else "block"
        self._step(Step(0, word, _result(error), path, text))
        if error is None:
            self._follow(path, text)

    def cleared(self, at_ns: int, path: str) -> None:
        """An open with O_TRUNC."""
        self._flush()
        self._advance(at_ns)
        self._cleared = path

    def made(self, at_ns: int, step: Step) -> None:
        """A directory."""
        self._flush()
        self._advance(at_ns)
        self._step(step)

    def read(self, offset: int, size: int, *, nonblock: bool) -> bytes:
        """The next part of the script. Raises EAGAIN or Blocked when there is none yet."""
        self._flush()
        if not self._pieces:
            if nonblock:
                raise KernelError(EAGAIN, "nothing was written since")
            raise Blocked(self._waiters)
        data = self._pieces.popleft()
        while self._pieces and len(data) < size:
            data += self._pieces.popleft()
        if len(data) > size:
            self._pieces.appendleft(data[size:])
            data = data[:size]
        self._kept -= len(data)
        return data

    def write(self, data: bytes, offset: int, *, nonblock: bool) -> int:
        """Raises EINVAL: it is only read."""
        raise KernelError(EINVAL, "a recording is only read")

    def poll(self) -> int:
        """POLLIN while there is something to read."""
        return select.POLLIN | select.POLLRDNORM if self._pieces or self._cleared else 0

    def waiters(self) -> Waiters:
        """Woken by each step."""
        return self._waiters

    def release(self) -> None:
        """Nobody reads any more."""
        self._recordings.close(self)

    def _flush(self) -> None:
        cleared, self._cleared = self._cleared, None
        if cleared is not None:
            self._step(Step(0, "clear", path=cleared))

    def _advance(self, to_ns: int) -> None:
        if to_ns > self._now_ns:
            self._step(Step(0, "advance", seconds=_seconds(to_ns - self._now_ns)))
            self._now_ns = to_ns

    def _follow(self, path: str, text: bytes) -> None:
        """What the write did to the time of a machine that is brought here by the script."""
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
        if self._kept > MOST_KEPT:
            self._lost += 1
            return
        if self._lost:
            text = f"# LOST: {self._lost} lines, the reader was too slow\n{text}"
            self._lost = 0
        data = text.encode("utf-8", "surrogateescape")
        self._pieces.append(data)
        self._kept += len(data)
        self._waiters.wake()


def _result(error: KernelError | None) -> str:
    return "ok" if error is None else error.name


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds // NS}.{nanoseconds % NS:09}"

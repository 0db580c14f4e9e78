"""Files that give events as they happen, as a pipe does: uevents and lines of the log.

A reader starts at the oldest kept record, waits when there is nothing new, and never sees one
twice.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from errno import EAGAIN, EINVAL
from typing import Generic, Protocol, TypeVar

from fakesys.core.errors import Blocked, KernelError, Waiters
from fakesys.core.events import Uevent
from fakesys.core.journal import LineLog, UeventLog, render_uevent

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


def everything(_record: object) -> bool:
    """Want every record."""
    return True


class Journal(Protocol[R_co]):
    """Records to follow. `generation`: number of replacements; `replaced_at`: last number then."""

    generation: int
    replaced_at: int
    waiters: Waiters

    def since(self, number: int) -> Iterator[tuple[int, R_co]]:
        """Yield the records after this number."""


class JournalStream(Generic[R]):
    """One open file on a journal. `render`: the text of a record; `wanted`: which are shown."""

    def __init__(
        self,
        journal: Journal[R],
        render: Callable[[int, R], str],
        wanted: Callable[[R], bool] = everything,
    ) -> None:
        self._journal = journal
        self._render = render
        self._wanted = wanted
        self._last = 0
        self._generation = journal.generation
        self._records: Iterator[tuple[int, R]] = iter(())
        self._text = b""

    def read(self, offset: int, size: int, *, nonblock: bool) -> bytes:
        """Return the next records, up to `size` bytes.

        Raises EAGAIN or Blocked when there is none.
        """
        self._fill(size)
        if not self._text:
            if nonblock:
                raise KernelError(EAGAIN, "nothing new")
            raise Blocked(self._journal.waiters)
        data, self._text = self._text[:size], self._text[size:]
        return data

    def write(self, data: bytes, offset: int, *, nonblock: bool) -> int:
        """Refuse with EINVAL: a journal is only read."""
        raise KernelError(EINVAL, "a journal is only read")

    def poll(self) -> int:
        """Return POLLIN while there is something to read."""
        self._fill(1)
        return select.POLLIN | select.POLLRDNORM if self._text else 0

    def waiters(self) -> Waiters:
        """Return the waiters that each record wakes."""
        return self._journal.waiters

    def release(self) -> None:
        """Do nothing: the journal stays."""

    def _fill(self, size: int) -> None:
        pieces = [self._text]
        length = len(self._text)
        while length < size:
            piece = self._next()
            if piece is None:
                break
            pieces.append(piece)
            length += len(piece)
        self._text = b"".join(pieces)

    def _next(self) -> bytes | None:
        """Return the text of the next wanted record; None at the end of the journal."""
        fresh = False
        if self._generation != self._journal.generation:
            # Another machine was loaded: what it remembers was not missed by this reader.
            self._generation, self._last = self._journal.generation, self._journal.replaced_at
            self._records = iter(())
        while True:
            for number, record in self._records:
                self._last = number
                if self._wanted(record):
                    return self._render(number, record).encode("latin-1", "replace")
            if fresh:
                return None
            # An iterator that is used up does not see what came after it was made.
            self._records, fresh = self._journal.since(self._last), True


def uevent_stream(
    log: UeventLog, wanted: Callable[[Uevent], bool] = everything
) -> JournalStream[Uevent]:
    """Return the uevents of a journal, `KEY=value` lines with a blank line after each."""
    return JournalStream(log, render_uevent, wanted)


def line_stream(log: LineLog, wanted: Callable[[str], bool] = everything) -> JournalStream[str]:
    """Return the lines of a journal."""
    return JournalStream(log, lambda _number, line: f"{line}\n", wanted)

"""Files that give the records of a journal: uevents and lines of the log.

A text, as `trace` is one, ends with what is there; reading on at its end gives what came since. A
pipe, as `trace_pipe` is one, waits when there is nothing new and gives no record twice. Both begin
with the oldest record that is kept.
"""

from __future__ import annotations

import re
import select
from collections.abc import Callable, Iterator
from errno import EAGAIN, EINVAL
from typing import Generic, Protocol, TypeVar

from fakesys.core.errors import Blocked, KernelError, Waiters
from fakesys.core.events import Uevent
from fakesys.core.journal import LineLog, UeventLog, render_uevent
from fakesys.core.scheduling.resched import cond_resched_killable, might_resched

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

# How much is skipped at once, in bytes.
_PIECE = 1 << 14
# Level of every line (LOGLEVEL_INFO), and what a writer puts before a line.
INFO = 6
NS_PER_US = 1000
_PRIORITY = re.compile(r"\A<\d+>")


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


class Cursor(Generic[R]):
    """A place in a journal. `render`: the text of a record; `wanted`: which are shown.

    `text`: what was taken from the journal and not given to the reader.
    """

    def __init__(
        self,
        journal: Journal[R],
        render: Callable[[int, R], str],
        wanted: Callable[[R], bool] = everything,
    ) -> None:
        self.journal = journal
        self.render, self.wanted = render, wanted
        self.text = b""
        self._last = 0
        self._generation = journal.generation
        self._records: Iterator[tuple[int, R]] = iter(())

    def again(self) -> Cursor[R]:
        """Return another place in the same journal, at its beginning."""
        return Cursor(self.journal, self.render, self.wanted)

    def take(self, size: int) -> bytes:
        """Return the next bytes, up to `size`; none at the end of the journal."""
        self.fill(size)
        data, self.text = self.text[:size], self.text[size:]
        return data

    def skip(self, count: int) -> None:
        """Go on by `count` bytes, or to the end; others are served meanwhile."""
        if count:
            might_resched()
        while count and (piece := self.take(min(count, _PIECE))):
            count -= len(piece)
            cond_resched_killable()

    def fill(self, size: int) -> None:
        """Take records until `text` has `size` bytes, or nothing is left."""
        pieces = [self.text]
        length = len(self.text)
        while length < size:
            piece = self.record()
            if piece is None:
                break
            pieces.append(piece)
            length += len(piece)
        self.text = b"".join(pieces)

    def record(self) -> bytes | None:
        """Return the text of the next wanted record; None at the end of the journal."""
        fresh = False
        if self._generation != self.journal.generation:
            # Another machine was loaded: what it remembers was not missed by this reader.
            self._generation, self._last = self.journal.generation, self.journal.replaced_at
            self._records = iter(())
        while True:
            for number, record in self._records:
                self._last = number
                if self.wanted(record):
                    return self.render(number, record).encode("latin-1", "replace")
            if fresh:
                return None
            # An iterator that is used up does not see what came after it was made.
            self._records, fresh = self.journal.since(self._last), True


class _JournalFile(Generic[R]):
    """What an open file on a journal does as a text and as a pipe."""

    def __init__(self, cursor: Cursor[R]) -> None:
        self._cursor = cursor

    def write(self, data: bytes, offset: int, *, nonblock: bool) -> int:
        """Refuse with EINVAL: a journal is only read."""
        raise KernelError(EINVAL, "a journal is only read")

    def release(self) -> None:
        """Do nothing: the journal stays."""


class JournalText(_JournalFile[R]):
    """An open file that ends with what is there."""

    def __init__(self, cursor: Cursor[R]) -> None:
        super().__init__(cursor)
        self._offset = 0

    def read(self, offset: int, size: int, *, nonblock: bool) -> bytes:
        """Return the text at this offset; none at the end.

        It goes on where the last read ended; any other offset begins with the records of now.
        """
        if offset != self._offset or offset == 0:
            # The new place becomes known when it is found: other reads may come before.
            cursor = self._cursor.again()
            cursor.skip(offset)
            self._cursor = cursor
        data = self._cursor.take(size)
        self._offset = offset + len(data)
        return data

    def poll(self) -> int:
        """Return that it is always ready."""
        return select.POLLIN | select.POLLRDNORM

    def waiters(self) -> None:
        """Return None: reads never wait."""


class JournalPipe(_JournalFile[R]):
    """An open file that waits for more."""

    def read(self, offset: int, size: int, *, nonblock: bool) -> bytes:
        """Return the next records, up to `size` bytes.

        Raises EAGAIN or Blocked when there is none.
        """
        data = self._cursor.take(size)
        if data:
            return data
        if nonblock:
            raise KernelError(EAGAIN, "nothing new")
        raise Blocked(self._cursor.journal.waiters)

    def poll(self) -> int:
        """Return POLLIN while there is something to read."""
        self._cursor.fill(1)
        return select.POLLIN | select.POLLRDNORM if self._cursor.text else 0

    def waiters(self) -> Waiters:
        """Return the waiters that each record wakes."""
        return self._cursor.journal.waiters


class MessageDevice(_JournalFile[str]):
    """An open /dev/kmsg: each read gives one record, each write makes one.

    Like kernel/printk/printk.c:devkmsg_read, devkmsg_write (v6.1).
    """

    def __init__(self, log: LineLog, write: Callable[[str], None]) -> None:
        super().__init__(Cursor(log, lambda number, line: message_record(log, number, line)))
        self._write = write
        self._record = b""

    def read(self, offset: int, size: int, *, nonblock: bool) -> bytes:
        """Return the next record.

        Raises EINVAL for less room than it needs, EAGAIN or Blocked when there is none.
        """
        record = self._next()
        if not record:
            if nonblock:
                raise KernelError(EAGAIN, "nothing new")
            raise Blocked(self._cursor.journal.waiters)
        if len(record) > size:
            raise KernelError(EINVAL, f"the next record has {len(record)} bytes")
        self._record = b""
        return record

    def write(self, data: bytes, offset: int, *, nonblock: bool) -> int:
        """Log a line, without the `<PRIORITY>` before it."""
        text = _PRIORITY.sub("", data.decode("latin-1")).removesuffix("\n")
        self._write(text.replace("\n", "\\x0a"))
        return len(data)

    def poll(self) -> int:
        """Return POLLIN while there is something to read."""
        return select.POLLIN | select.POLLRDNORM if self._next() else 0

    def waiters(self) -> Waiters:
        """Return the waiters that each record wakes."""
        return self._cursor.journal.waiters

    def _next(self) -> bytes:
        """Return the next record, which stays the next; b"" at the end."""
        if not self._record:
            self._record = self._cursor.record() or b""
        return self._record


def message_record(log: LineLog, number: int, line: str) -> str:
    """Return a record of /dev/kmsg: `PRIORITY,NUMBER,MICROSECONDS,-;TEXT`."""
    return f"{INFO},{number - 1},{log.time_of(number) // NS_PER_US},-;{line}\n"


def messages_from(log: LineLog) -> Cursor[str]:
    """Return the records of /dev/kmsg as one text."""
    return Cursor(log, lambda number, line: message_record(log, number, line))


def uevents_from(log: UeventLog, wanted: Callable[[Uevent], bool] = everything) -> Cursor[Uevent]:
    """Return the uevents of a journal, `KEY=value` lines with a blank line after each."""
    return Cursor(log, render_uevent, wanted)


def lines_from(log: LineLog, wanted: Callable[[str], bool] = everything) -> Cursor[str]:
    """Return the lines of a journal."""
    return Cursor(log, lambda _number, line: f"{line}\n", wanted)

"""The journals of the machine: the last uevents and log lines, numbered; the oldest are dropped.

Readers follow with the number of the last record that they have read. The uevents of a large
`UeventBatch` are made when they are read; other records are kept packed, but for the newest, since
65,536 of them as objects would take more memory than the models of a usual machine.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TypeVar

from msgspec import Struct, msgpack

from fakesys.core.errors import Waiters
from fakesys.core.events import Bus, LogLine, Uevent, UeventBatch

CAPACITY = 65536
# At least so many records are packed as one: the text of records is much alike.
PACKED = 256
NEWLINE = "\n"

R = TypeVar("R")


def _pack(records: object) -> bytes:
    return zlib.compress(msgpack.encode(records), 1)


def _unpack(packed: bytes, records: type[R]) -> R:
    return msgpack.decode(zlib.decompress(packed), type=records)


class UeventLog:
    """The last 65,536 uevents with their sequence numbers, which begin at 1."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        # Each chunk with the number of its first event.
        self._chunks: deque[tuple[int, UeventBatch | Uevent]] = deque()
        # How many of the newest chunks are small, and how many events these hold.
        self._small = self._small_events = 0
        self.last = 0
        # How often the records were replaced, and the last number then: older cursors are void.
        self.generation = self.replaced_at = 0
        self.waiters = Waiters()

    def listen(self, bus: Bus) -> None:
        """Record the events of this bus from now on."""
        bus.subscribe(Uevent, self._on_uevent)
        bus.subscribe(UeventBatch, self._on_batch)

    @property
    def first(self) -> int:
        """The number of the oldest event that is kept."""
        return max(1, self.last - self._capacity + 1)

    def since(self, number: int) -> Iterator[tuple[int, Uevent]]:
        """Return the events after this number that are kept now, each with its own.

        Readers keep the result from one request to the next: it is not touched by later events.
        """
        start = max(number + 1, self.first)
        newest_first = []
        for first, chunk in reversed(self._chunks):
            newest_first.append((first, chunk))
            if first <= start:
                break
        return _events(newest_first[::-1], start)

    def clear(self) -> None:
        """Drop the events; the numbers go on."""
        self._chunks.clear()
        self._small = self._small_events = 0

    def kept(self) -> tuple[UeventBatch | Uevent, ...]:
        """Return what is kept, oldest first; the numbers of all end at `last`."""
        return tuple(chunk for _, chunk in self._chunks)

    def replace(self, last: int, chunks: Sequence[UeventBatch | Uevent]) -> None:
        """Replace all records; readers continue with the records after these.

        Precondition: there are at most `last` events in the chunks.
        """
        self.clear()
        self.last = last - sum(map(_count, chunks))
        for chunk in chunks:
            self._keep(chunk, _count(chunk))
        self.replaced_at = last
        self.generation += 1

    def _on_uevent(self, event: Uevent) -> None:
        self._append(event, 1)

    def _on_batch(self, batch: UeventBatch) -> None:
        if batch.count:
            self._append(batch, batch.count)

    def _append(self, chunk: UeventBatch | Uevent, count: int) -> None:
        self._keep(chunk, count)
        self.waiters.wake()

    def _keep(self, chunk: UeventBatch | Uevent, count: int) -> None:
        self._chunks.append((self.last + 1, chunk))
        self.last += count
        if count <= PACKED:
            self._small += 1
            self._small_events += count
        else:
            self._small = self._small_events = 0
        if self._small_events >= PACKED:
            self._pack_small()
        while len(self._chunks) > 1 and self._chunks[1][0] <= self.first:
            self._chunks.popleft()

    def _pack_small(self) -> None:
        """Replace the newest small chunks by one batch, whose events are packed."""
        chunks = [self._chunks.pop() for _ in range(self._small)][::-1]
        first = chunks[0][0]
        events = [event for _, event in _events(chunks, first)]
        make = partial(_unpack, _pack(events), list[Uevent])
        self._chunks.append((first, UeventBatch(len(events), make)))
        self._small = self._small_events = 0


def _count(chunk: UeventBatch | Uevent) -> int:
    return 1 if isinstance(chunk, Uevent) else chunk.count


def _events(
    chunks: list[tuple[int, UeventBatch | Uevent]], start: int
) -> Iterator[tuple[int, Uevent]]:
    """Yield the events from number `start` on."""
    for first, chunk in chunks:
        if isinstance(chunk, Uevent):
            if first >= start:
                yield first, chunk
        elif first + chunk.count > start:
            skip = max(0, start - first)
            yield from enumerate(islice(chunk.make(), skip, None), first + skip)


def _at_boot() -> int:
    return 0


class Lines(Struct, frozen=True):
    """Log lines in order, and the time of each in nanoseconds."""

    texts: list[str]
    times: list[int]


class LineLog:
    """The last 65,536 log lines, each with its number, beginning at 1, and its time."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        # Lines that are packed, with the number of the first, and the newest, which are not.
        self._blocks: deque[tuple[int, bytes]] = deque()
        self._newest = Lines([], [])
        # The block of which a time was asked for last.
        self._opened: tuple[bytes, Lines] = (b"", self._newest)
        self._now_ns = _at_boot
        self.last = 0
        # How often the records were replaced, and the last number then: older cursors are void.
        self.generation = self.replaced_at = 0
        self.waiters = Waiters()

    def listen(self, bus: Bus, now_ns: Callable[[], int] = _at_boot) -> None:
        """Record the lines of this bus from now on, each with the time that `now_ns` gives."""
        self._now_ns = now_ns
        bus.subscribe(LogLine, self._on_line)

    @property
    def first(self) -> int:
        """The number of the oldest line that is kept."""
        begin = self._blocks[0][0] if self._blocks else self._first_of_newest
        return max(begin, self.last - self._capacity + 1)

    @property
    def _first_of_newest(self) -> int:
        return self.last - len(self._newest.texts) + 1

    def since(self, number: int) -> Iterator[tuple[int, str]]:
        """Return the lines after this number that are kept now, each with its own.

        Readers keep the result from one request to the next: it is not touched by later lines.
        """
        start = max(number + 1, self.first)
        blocks = [(first, packed) for first, packed in self._blocks if first + PACKED > start]
        skipped = max(0, start - self._first_of_newest)
        newest = self._newest.texts[skipped:]
        return _lines(blocks, start, self._first_of_newest + skipped, newest)

    def kept(self) -> tuple[str, ...]:
        """Return the lines that are kept, oldest first; their numbers end at `last`."""
        return tuple(line for _, line in self.since(0))

    def times(self) -> tuple[int, ...]:
        """Return the times of the lines that are kept, in nanoseconds."""
        return tuple(self.time_of(number) for number in range(self.first, self.last + 1))

    def time_of(self, number: int) -> int:
        """Return the time of a line, in nanoseconds; 0 for one that is not kept."""
        if not self.first <= number <= self.last:
            return 0
        place = number - self._first_of_newest
        if place >= 0:
            return self._newest.times[place]
        block, place = divmod(number - self._blocks[0][0], PACKED)
        packed = self._blocks[block][1]
        if self._opened[0] is not packed:
            self._opened = packed, _unpack(packed, Lines)
        return self._opened[1].times[place]

    def replace(self, last: int, lines: Iterable[str], times: Iterable[int]) -> None:
        """Replace all records; readers continue with the records after these."""
        records = list(zip(lines, times, strict=True))
        self._blocks.clear()
        self._newest = Lines([], [])
        self.last = last - len(records)
        for text, time in records:
            self._keep(text, time)
        self.replaced_at = last
        self.generation += 1

    def _on_line(self, event: LogLine) -> None:
        self._keep(event.text, self._now_ns())
        self.waiters.wake()

    def _keep(self, text: str, time: int) -> None:
        newest = self._newest
        newest.texts.append(text)
        newest.times.append(time)
        self.last += 1
        if len(newest.texts) == PACKED:
            self._blocks.append((self._first_of_newest, _pack(newest)))
            self._newest = Lines([], [])
        while self._blocks and self._blocks[0][0] + PACKED <= self.last - self._capacity + 1:
            self._blocks.popleft()


def _lines(
    blocks: list[tuple[int, bytes]], start: int, first_of_newest: int, newest: list[str]
) -> Iterator[tuple[int, str]]:
    """Yield the lines of blocks from number `start` on, then the newest."""
    for first, packed in blocks:
        skip = max(0, start - first)
        yield from enumerate(islice(_unpack(packed, Lines).texts, skip, None), first + skip)
    yield from enumerate(newest, first_of_newest)


def render_uevent(number: int, event: Uevent) -> str:
    """Return one uevent as `KEY=value` lines and a blank line.

    A value that ends with a newline, as the kernel's APMASK does, is written without it.
    """
    fields = {
        "ACTION": event.action,
        "DEVPATH": event.devpath,
        "SUBSYSTEM": event.subsystem,
        **event.env,
        "SEQNUM": str(number),
    }
    lines = (f"{key}={value.removesuffix(NEWLINE)}\n" for key, value in fields.items() if value)
    return "".join(lines) + NEWLINE

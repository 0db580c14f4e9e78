"""The journals of the machine: the last uevents and log lines, numbered; the oldest are dropped.

Readers follow with the number of the last record that they have read. The uevents of a
`UeventBatch` are made when they are read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from fakesys.core.errors import Waiters
from fakesys.core.events import Bus, LogLine, Uevent, UeventBatch

CAPACITY = 65536
NEWLINE = "\n"


class UeventLog:
    """The last 65,536 uevents with their sequence numbers, which begin at 1."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        # Each chunk with the number of its first event.
        self._chunks: deque[tuple[int, UeventBatch | Uevent]] = deque()
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

    def kept(self) -> tuple[UeventBatch | Uevent, ...]:
        """Return what is kept, oldest first; the numbers of all end at `last`."""
        return tuple(chunk for _, chunk in self._chunks)

    def replace(self, last: int, chunks: Sequence[UeventBatch | Uevent]) -> None:
        """Replace all records; readers continue with the records after these.

        Precondition: there are at most `last` events in the chunks.
        """
        self._chunks.clear()
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
        while len(self._chunks) > 1 and self._chunks[1][0] <= self.first:
            self._chunks.popleft()


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


class LineLog:
    """The last 65,536 log lines, each with its number, beginning at 1, and its time."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._lines: deque[str] = deque(maxlen=capacity)
        self._times: deque[int] = deque(maxlen=capacity)
        self._now_ns = _at_boot
        self.last = 0
        # How often the records were replaced, and the last number then: older cursors are void.
        self.generation = self.replaced_at = 0
        self.waiters = Waiters()

    def listen(self, bus: Bus, now_ns: Callable[[], int] = _at_boot) -> None:
        """Record the lines of this bus from now on, each with the time that `now_ns` gives."""
        self._now_ns = now_ns
        bus.subscribe(LogLine, self._on_line)

    def since(self, number: int) -> Iterator[tuple[int, str]]:
        """Return the lines after this number that are kept now, each with its own.

        Readers keep the result from one request to the next: it is not touched by later lines.
        """
        count = max(0, min(self.last - number, len(self._lines)))
        newest_first = list(islice(reversed(self._lines), count))
        return enumerate(reversed(newest_first), self.last - count + 1)

    def kept(self) -> tuple[str, ...]:
        """Return the lines that are kept, oldest first; their numbers end at `last`."""
        return tuple(self._lines)

    def times(self) -> tuple[int, ...]:
        """Return the times of the lines that are kept, in nanoseconds."""
        return tuple(self._times)

    def time_of(self, number: int) -> int:
        """Return the time of a line, in nanoseconds; 0 for one that is not kept."""
        place = number - 1 - self.last + len(self._times)
        return self._times[place] if 0 <= place < len(self._times) else 0

    def replace(self, last: int, lines: Iterable[str], times: Iterable[int]) -> None:
        """Replace all records; readers continue with the records after these."""
        self._lines.clear()
        self._lines.extend(lines)
        self._times.clear()
        self._times.extend(times)
        self.last = self.replaced_at = last
        self.generation += 1

    def _on_line(self, event: LogLine) -> None:
        self._lines.append(event.text)
        self._times.append(self._now_ns())
        self.last += 1
        self.waiters.wake()


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

"""What the machine remembers of its past: uevents and log lines, oldest dropped, numbered.

Readers follow with a cursor; many uevents of one operation stay unmade until somebody reads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

from fakesys.core.events import Bus, LogLine, Uevent, UeventBatch
from fakesys.core.waiters import Waiters

CAPACITY = 65536


class UeventLog:
    """The last 65,536 uevents with their sequence numbers, which begin at 1."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        # Each chunk: number of its first event, how many, and what makes them.
        self._chunks: deque[tuple[int, UeventBatch | Uevent]] = deque()
        self.last = 0
        # How often the past was replaced, and its last number: older cursors mean nothing then.
        self.pasts = self.past = 0
        self.waiters = Waiters()

    def listen(self, bus: Bus) -> None:
        """Hear of the events of this bus from now on."""
        bus.subscribe(Uevent, self._on_uevent)
        bus.subscribe(UeventBatch, self._on_batch)

    @property
    def first(self) -> int:
        """Number of the oldest event still here."""
        return max(1, self.last - self._capacity + 1)

    def since(self, number: int) -> Iterator[tuple[int, Uevent]]:
        """The events after this number, or as far back as they are kept."""
        start = max(number + 1, self.first)
        for first, chunk in tuple(self._chunks):
            if isinstance(chunk, Uevent):
                if first >= start:
                    yield first, chunk
            elif first + chunk.count > start:
                skip = max(0, start - first)
                yield from enumerate(islice(chunk.make(), skip, None), first + skip)

    def clear(self) -> None:
        """Forget the events; the numbers go on."""
        self._chunks.clear()

    def kept(self) -> tuple[int, tuple[tuple[int, UeventBatch | Uevent], ...]]:
        """The last number and the chunks, for `replace`."""
        return self.last, tuple(self._chunks)

    def replace(self, last: int, chunks: Iterable[tuple[int, UeventBatch | Uevent]]) -> None:
        """Another past; whoever reads goes on with what comes after it."""
        self._chunks.clear()
        self._chunks.extend(chunks)
        self.last = self.past = last
        self.pasts += 1

    def _on_uevent(self, event: Uevent) -> None:
        self._append(event, 1)

    def _on_batch(self, batch: UeventBatch) -> None:
        if batch.count:
            self._append(batch, batch.count)

    def _append(self, chunk: UeventBatch | Uevent, count: int) -> None:
        self._chunks.append((self.last + 1, chunk))
        self.last += count
        while len(self._chunks) > 1 and self._chunks[1][0] <= self.first:
            self._chunks.popleft()
        self.waiters.wake()


class LineLog:
    """The last 65,536 log lines, each with its number, beginning at 1."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._lines: deque[str] = deque(maxlen=capacity)
        self.last = 0
        # How often the past was replaced, and its last number: older cursors mean nothing then.
        self.pasts = self.past = 0
        self.waiters = Waiters()

    def listen(self, bus: Bus) -> None:
        """Hear of the lines of this bus from now on."""
        bus.subscribe(LogLine, self._on_line)

    def since(self, number: int) -> Iterator[tuple[int, str]]:
        """The lines after this number, or as far back as they are kept."""
        first = self.last - len(self._lines) + 1
        start = max(number + 1, first)
        yield from enumerate(islice(self._lines, start - first, None), start)

    def kept(self) -> tuple[int, tuple[str, ...]]:
        """The last number and the lines, for `replace`."""
        return self.last, tuple(self._lines)

    def replace(self, last: int, lines: Iterable[str]) -> None:
        """Another past; whoever reads goes on with what comes after it."""
        self._lines.clear()
        self._lines.extend(lines)
        self.last = self.past = last
        self.pasts += 1

    def _on_line(self, event: LogLine) -> None:
        self._lines.append(event.text)
        self.last += 1
        self.waiters.wake()


def render_uevent(number: int, event: Uevent) -> str:
    """One uevent as `KEY=value` lines with a blank line after it."""
    fields = {
        "ACTION": event.action,
        "DEVPATH": event.devpath,
        "SUBSYSTEM": event.subsystem,
        **event.env,
        "SEQNUM": str(number),
    }
    return "".join(f"{key}={value}\n" for key, value in fields.items() if value != "") + "\n"

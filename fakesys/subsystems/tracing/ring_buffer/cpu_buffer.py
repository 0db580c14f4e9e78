"""The ring buffer of one CPU: pages of binary records. Like kernel/trace/ring_buffer.c (v6.1).

The record format is the kernel's, so reading a raw page copies memory. Knows no event.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from struct import Struct
from struct import error as StructError
from typing import Any, NamedTuple, Protocol

from fakesys.core.event_format import Packer, context_word

PAGE_SIZE = 4096
PAGE_HEADER = 16
DATA_SIZE = PAGE_SIZE - PAGE_HEADER

# Values of type_len, the low five bits of a record's first word.
LONG_RECORD = 0
SMALL_MAX = 28 * 4
PADDING = 29
TIME_EXTEND = 30
TIME_STAMP = 31

# A shorter rest of a page is not accounted for.
RB_EVNT_MIN_SIZE = 8

DELTA_BITS = 27
DELTA_MAX = (1 << DELTA_BITS) - 1
# The most that a time extend adds; a time stamp has as many bits, and lacks those above.
EXTEND_BITS = 59
EXTEND_MAX = (1 << EXTEND_BITS) - 1

_WORD = Struct("<I")
_TWO_WORDS = Struct("<II")


class Form(Protocol):
    """What a buffer needs of the format of an event."""

    @property
    def packer(self) -> Packer | None:
        """How its records are written into a page; None if they vary in length."""

    def encode(self, event: Any, pid: int) -> bytes:
        """Return the record of an event."""


class Record(NamedTuple):
    """One event of a page: its time, its payload, and the offset at which the record ends."""

    stamp: int
    payload: bytes
    end: int


# Bypasses the Python code of NamedTuple's constructor: this runs for every event that is read.
_RECORD: Callable[[tuple[int, bytes, int]], Record] = partial(tuple.__new__, Record)


class Page:
    """One page of records; `commit` bytes of `data` are in use.

    `stamp`: the time before the first record. `filler`: the bytes at the end that had no room for
    the next record; 0 while the page is being written.
    """

    __slots__ = ("commit", "data", "entries", "filler", "stamp")

    def __init__(self, stamp: int, room: int = DATA_SIZE) -> None:
        self.stamp = stamp
        self.data = bytearray(room)
        self.commit = 0
        self.entries = 0
        self.filler = 0

    def decoded(self, start: int, stamp: int, limit: int) -> tuple[list[int], list[bytes]]:
        """Return stamps and payloads of the events from byte `start` to `limit`, all at once.

        Usual records are decoded here, for speed; from the first other one on, `records` does it.
        """
        data = bytes(self.data[:limit])
        words = memoryview(data).cast("I")
        position, time = start, stamp
        stamps: list[int] = []
        payloads: list[bytes] = []
        while position < limit:
            head = words[position >> 2]
            size = (head & 31) << 2
            if not 0 < size <= SMALL_MAX:
                for record in self.records(position, time, limit):
                    stamps.append(record.stamp)
                    payloads.append(record.payload)
                break
            time += head >> 5
            begin = position + 4
            position = begin + size
            stamps.append(time)
            payloads.append(data[begin:position])
        return stamps, payloads

    def records(
        self, start: int = 0, stamp: int | None = None, limit: int | None = None
    ) -> Iterator[Record]:
        """Return the events from byte `start` to `limit`; `stamp` is the time before the first."""
        position = start
        time = self.stamp if stamp is None else stamp
        end = self.commit if limit is None else limit
        data = bytes(self.data[:end])
        unpack, make = _WORD.unpack_from, _RECORD
        while position < end:
            (head,) = unpack(data, position)
            kind = head & 31
            time += head >> 5
            position += 4
            if 0 < kind < PADDING:
                size = kind * 4
            elif kind == LONG_RECORD:
                size = unpack(data, position)[0] - 4
                position += 4
            elif kind == PADDING:
                if head >> 5 == 0:
                    return
                position += 4 + unpack(data, position)[0]
                continue
            else:
                high = unpack(data, position)[0] << DELTA_BITS
                position += 4
                if kind == TIME_EXTEND:
                    # The low bits were added above.
                    time += high
                else:
                    time = _absolute(high + (head >> 5), time - (head >> 5))
                continue
            begin, position = position, position + size
            yield make((time, data[begin:position], position))


def _absolute(stamp: int, before: int) -> int:
    """Return the time that a time stamp of 59 bits means after an event at `before`.

    Like ring_buffer.c:rb_fix_abs_ts (v6.1).
    """
    high = before & ~EXTEND_MAX
    if not high:
        return stamp
    stamp |= high
    return stamp if stamp >= before else stamp + EXTEND_MAX + 1


def encode_record(delta: int, payload: bytes) -> bytes:
    """Return header and payload, with a time extend before them if `delta` needs one."""
    prefix = b""
    if delta > DELTA_MAX:
        low = (delta & DELTA_MAX) << 5
        prefix = _TWO_WORDS.pack(low | TIME_EXTEND, delta >> DELTA_BITS)
        delta = 0
    size = len(payload)
    if size <= SMALL_MAX:
        return prefix + _WORD.pack(delta << 5 | size >> 2) + payload
    return prefix + _TWO_WORDS.pack(delta << 5, size + 4) + payload


class CpuBuffer:
    """The pages of one CPU: a reader page outside the ring, and the ring, oldest first.

    `limit`: the most pages in the ring. `overwrite`: does a full buffer drop its oldest page
    rather than a new event? `room`: the bytes of records that a page has.
    """

    def __init__(self, limit: int, *, overwrite: bool = True, room: int = DATA_SIZE) -> None:
        self.limit = limit
        self.room = room
        # What the size was when it was set; other pages do not change it.
        self.size_bytes = limit * room
        self.overwrite = overwrite
        # How many open files show its events: its size cannot be changed then.
        self.readers = 0
        self.reset()

    def reset(self) -> None:
        """Drop all events and set all counts to 0."""
        self.ring: deque[Page] = deque()
        # The page that a consumer is reading, how far, and the time of what it read last.
        self.reader: Page | None = None
        self.read_position = 0
        self.read_stamp = 0
        self.write_stamp = 0
        self.entries_written = self.overrun = self.dropped = self.read_events = 0
        self.bytes = 0
        # Events lost before the reader page, and `overrun` when it was taken.
        self.lost = 0
        self.last_overrun = 0

    @property
    def entries(self) -> int:
        """How many events are in the buffer and not consumed."""
        return self.entries_written - self.overrun - self.read_events

    @property
    def size_kb(self) -> int:
        """The size of the ring in KB, rounded down."""
        return self.size_bytes // 1024

    def write(self, stamp: int, payload: bytes) -> bool:
        """Record an event; return False if it was dropped because the buffer is full.

        Precondition: the length of the payload is a multiple of 4 and a record fits into a page.
        """
        page = self.ring[-1] if self.ring else self.reader
        delta = stamp - self.write_stamp
        if page is not None:
            if 0 <= delta <= DELTA_MAX and len(payload) <= SMALL_MAX:
                record = _WORD.pack(delta << 5 | len(payload) >> 2) + payload
            else:
                record = encode_record(min(max(delta, 0), EXTEND_MAX), payload)
            start = page.commit
            end = start + len(record)
            # After a longer jump than a record can hold, a page with a time of its own begins.
            if start and end <= self.room and not page.filler and delta <= EXTEND_MAX:
                page.data[start:end] = record
                page.commit = end
                page.entries += 1
                self.entries_written += 1
                self.bytes += len(record)
                self.write_stamp = stamp if delta > 0 else self.write_stamp
                return True
            self._fill(page)
        if len(self.ring) >= self.limit and not self._make_room():
            self.dropped += 1
            return False
        self._write_first(stamp, payload)
        return True

    def put(self, stamp: int, form: Form, event: Any, pid: int) -> bool:
        """Record an event of a task as `write` does, without a payload on the way if possible."""
        packer = form.packer
        page = self.ring[-1] if self.ring else self.reader
        if packer is None or page is None:
            return self.write(stamp, form.encode(event, pid))
        size, words, common, varies, pack_into, get = packer
        delta, start = stamp - self.write_stamp, page.commit
        end = start + size
        fits = words <= SMALL_MAX >> 2 and 0 < delta <= DELTA_MAX and end <= self.room
        if not fits or not start or page.filler:
            return self.write(stamp, form.encode(event, pid))
        if varies:
            common |= context_word(event.context())
        try:
            pack_into(page.data, start, delta << 5 | words, common, pid, *get(event))
        except StructError:  # A value has more bits than its field.
            return self.write(stamp, form.encode(event, pid))
        page.commit = end
        page.entries += 1
        self.entries_written += 1
        self.bytes += size
        self.write_stamp = stamp
        return True

    def oldest_stamp(self) -> int | None:
        """Return the time of the oldest unread event, None if there is none."""
        for page, start, stamp, end in self.pages():
            return next(page.records(start, stamp, end)).stamp
        return None

    def pages(self) -> list[tuple[Page, int, int, int]]:
        """Return what is unread now: page, first byte, time of the event before it, end."""
        found = []
        if self.reader is not None and self.read_position < self.reader.commit:
            found.append((self.reader, self.read_position, self.read_stamp, self.reader.commit))
        found.extend((page, 0, page.stamp, page.commit) for page in self.ring)
        return found

    def unread_of_page(self) -> Iterator[Record]:
        """Return the unread events of the oldest page that has any.

        That page becomes the reader page. Call `consumed` for each event that is consumed, in
        this order.
        """
        page = self._reader_page()
        if page is None:
            return iter(())
        return page.records(self.read_position, self.read_stamp)

    def consumed(self, record: Record) -> None:
        """Consume an event, and with it the count of lost ones.

        Precondition: it is the oldest unread event.
        """
        self.bytes -= record.end - self.read_position
        self.read_position = record.end
        self.read_stamp = record.stamp
        self.read_events += 1
        self.lost = 0

    def has_full_page(self) -> bool:
        """Return whether the writer has left the oldest unread page.

        Like ring_buffer.c:ring_buffer_read_page with `full` (v6.1).
        """
        return self._reader_page() is not None and bool(self.ring)

    def take_page(self, room: int | None = None) -> tuple[int, bytes, int] | None:
        """Consume the unread events of the oldest page, as many as fit into `room` bytes, or all.

        Return the time before the first one, the records, and how many events were lost before;
        b"" as records if the first one does not fit; None if there is no event.
        Like ring_buffer.c:ring_buffer_read_page (v6.1).
        """
        page = self._reader_page()
        if page is None:
            return None
        start, stamp = self.read_position, self.read_stamp
        for record in page.records(start, stamp):
            if room is not None and record.end - start > room:
                break
            self.read_events += 1
            self.read_stamp = record.stamp
            self.read_position = record.end
        if self.read_position == start:
            return stamp, b"", 0
        lost, self.lost = self.lost, 0
        data = bytes(page.data[start : self.read_position])
        self.bytes -= len(data)
        return stamp, data, lost

    def resize(self, limit: int) -> None:
        """Change the number of pages; shrinking drops the oldest."""
        self.limit = limit
        self.size_bytes = limit * self.room
        while len(self.ring) > limit:
            self._drop_oldest()

    def set_room(self, room: int) -> None:
        """Have pages of another size, as many as hold as much, and drop all events.

        Like ring_buffer.c:ring_buffer_subbuf_order_set (v6.18).
        Differs: the counts begin at 0 again.
        """
        self.limit = max(2, -(-self.limit * self.room // room))
        self.room = room
        self.reset()

    def _write_first(self, stamp: int, payload: bytes) -> None:
        page = Page(stamp, self.room)
        record = encode_record(0, payload)
        page.data[: len(record)] = record
        page.commit = len(record)
        page.entries = 1
        self.ring.append(page)
        self.entries_written += 1
        self.bytes += len(record)
        self.write_stamp = stamp

    def _make_room(self) -> bool:
        if not self.overwrite:
            return False
        self._drop_oldest()
        return True

    def _drop_oldest(self) -> None:
        page = self.ring.popleft()
        self.overrun += page.entries
        self.bytes -= page.commit + page.filler

    def _fill(self, page: Page) -> None:
        """Count the rest of a page as used. Like ring_buffer.c:rb_reset_tail (v6.1)."""
        rest = self.room - page.commit
        if rest >= RB_EVNT_MIN_SIZE and not page.filler:
            page.filler = rest
            self.bytes += rest

    def _reader_page(self) -> Page | None:
        # Like ring_buffer.c:rb_get_reader_page: a page read to its end is replaced by the oldest.
        page = self.reader
        if page is not None and self.read_position < page.commit:
            return page
        if not self.ring:
            return None
        if page is not None:
            self.bytes -= page.filler
        self.reader = self.ring.popleft()
        self.read_position = 0
        self.read_stamp = self.reader.stamp
        self.lost = self.overrun - self.last_overrun
        self.last_overrun = self.overrun
        return self.reader


def pages_for(kilobytes: int, room: int = DATA_SIZE) -> int:
    """Return how many pages hold this many KB of records: at least two."""
    return max(2, -(-kilobytes * 1024 // room))


def room_of(order: int) -> int:
    """Return the bytes of records in a page of 2^order pages of memory."""
    return (PAGE_SIZE << order) - PAGE_HEADER

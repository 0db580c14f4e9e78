"""Records of a page that may be wrong, read one by one.

`ring_buffer/cpu_buffer.py:Page.records` reads pages that the writer made, and checks nothing.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from struct import Struct

from fakesys.core.event_format import COMMON_SIZE, EventFormat
from fakesys.core.saved import check, check_range, refuse
from fakesys.subsystems.tracing.ring_buffer.cpu_buffer import (
    DELTA_BITS,
    LONG_RECORD,
    PADDING,
    TIME_EXTEND,
    TIME_STAMP,
)
from fakesys.subsystems.tracing.saved.values import U64_END

_WORD = Struct("<I")
# Head and payload of the shortest record; the payload begins with the number of the event.
_RECORD = Struct(f"<IH{COMMON_SIZE - 2}x")
# Bytes of a word, in which sizes and times are stored.
WORD = 4


class PageReader:
    """Reads pages with the events of one kernel.

    `defined`: the numbers of the events that clients have defined, also of those that are gone.
    """

    def __init__(
        self, formats: Mapping[int, EventFormat], defined: Container[int] = range(0)
    ) -> None:
        self._formats = formats
        self._defined = defined
        # Events and lengths that were found right: few, while a snapshot has millions of records.
        self._right: set[tuple[int, int]] = set()

    def records(self, stamp: int, data: bytes) -> list[tuple[int, int]]:
        """Return time and end of each record; `stamp` is the time before the first.

        Raises BadSnapshotError for what is no record, an unknown event, or a record of a length
        that its event does not have.
        """
        found: list[tuple[int, int]] = []
        position, whole, extended = 0, len(data), -1
        unpack, right, least = _RECORD.unpack_from, self._right, _RECORD.size
        while position < whole:
            if position + least > whole:
                refuse("a page ends within a record")
            head, number = unpack(data, position)
            kind = head & 31
            if kind in (TIME_EXTEND, TIME_STAMP):
                check(extended != position, "a page has two times for one record")
                stamp = _extended(stamp, head, data, position + WORD)
                position = extended = position + 2 * WORD
                continue
            end = position + WORD + kind * WORD
            if (number, kind) not in right or end > whole:
                end = self._end(data, position, kind, number)
            stamp, position = stamp + (head >> 5), end
            found.append((stamp, end))
        check_range(stamp, U64_END, "the time of a record")
        return found

    def _end(self, data: bytes, position: int, kind: int, number: int) -> int:
        """Return where a record ends whose kind of event and length was not seen before."""
        check(kind < PADDING, "a page has padding between records")
        begin, size = position + WORD, kind * WORD
        if kind == LONG_RECORD:
            size = _word(data, begin) - WORD
            begin += WORD
            check(begin + COMMON_SIZE <= len(data), "a page ends within a record")
            number = data[begin] | data[begin + 1] << 8
        check(size % WORD == 0 and size >= COMMON_SIZE, "a record has a wrong length")
        check(begin + size <= len(data), "a record goes beyond its page")
        form = self._formats.get(number)
        if form is not None:
            check(form.has_length(size), f"a record has the wrong length for {form.name}")
        elif number not in self._defined:
            refuse(f"a record is of event {number}, which does not exist")
        if kind != LONG_RECORD:
            self._right.add((number, kind))
        return begin + size


def _extended(stamp: int, head: int, data: bytes, position: int) -> int:
    """Return the time after a time extend, or that of a time stamp."""
    check_range(stamp, U64_END, "the time of a record")
    high = _word(data, position) << DELTA_BITS
    return high + (head >> 5) + (stamp if head & 31 == TIME_EXTEND else 0)


def _word(data: bytes, position: int) -> int:
    (word,) = _WORD.unpack_from(data, position)
    return int(word)

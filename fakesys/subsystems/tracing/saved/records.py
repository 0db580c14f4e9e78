"""Records of a page that may be wrong, read one by one.

`ring_buffer/cpu_buffer.py:Page.records` reads pages that the writer made, and checks nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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

Formats = Mapping[int, EventFormat]

_WORD = Struct("<I")
_NUMBER = Struct("<H")
# Bytes of a word, in which sizes and times are stored.
WORD = 4


def records(stamp: int, data: bytes, formats: Formats) -> Iterator[tuple[int, int]]:
    """Return time and end of each record of a page; `stamp` is the time before the first.

    Raises BadSnapshotError for what is no record, an unknown event, or a record that is too short
    for its event.
    """
    position, extended = 0, False
    while position < len(data):
        check(position + WORD <= len(data), "a page ends within a record")
        (head,) = _WORD.unpack_from(data, position)
        kind, delta = head & 31, head >> 5
        position += WORD
        if kind in (TIME_EXTEND, TIME_STAMP):
            check(not extended, "a page has two times for one record")
            high = _word(data, position) << DELTA_BITS
            stamp, extended = high + delta + (stamp if kind == TIME_EXTEND else 0), True
            position += WORD
            continue
        begin, end = _bounds(data, position, kind)
        _check_event(data, begin, end, formats)
        stamp = check_range(stamp + delta, U64_END, "the time of a record")
        position, extended = end, False
        yield stamp, end
    check(not extended, "a page ends with a time")


def _bounds(data: bytes, position: int, kind: int) -> tuple[int, int]:
    """Return where the payload of a record begins and ends; `position` is behind its head."""
    check(kind < PADDING, "a page has padding between records")
    size = kind * WORD
    if kind == LONG_RECORD:
        size = _word(data, position) - WORD
        position += WORD
    check(size % WORD == 0 and size >= COMMON_SIZE, "a record has a wrong length")
    check(position + size <= len(data), "a record goes beyond its page")
    return position, position + size


def _check_event(data: bytes, begin: int, end: int, formats: Formats) -> None:
    (number,) = _NUMBER.unpack_from(data, begin)
    form = formats.get(number)
    if form is None:
        refuse(f"a record is of event {number}, which does not exist")
    check(form.has_length(end - begin), f"a record has the wrong length for {form.name}")


def _word(data: bytes, position: int) -> int:
    check(position + WORD <= len(data), "a page ends within a record")
    (word,) = _WORD.unpack_from(data, position)
    return int(word)

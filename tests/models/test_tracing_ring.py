"""Ring buffer pages: byte for byte as a real kernel's, and back again."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakesys.subsystems.tracing.ring_buffer.cpu_buffer import (
    DATA_SIZE,
    DELTA_MAX,
    CpuBuffer,
    Page,
    encode_record,
    pages_for,
)
from fakesys.subsystems.tracing.ring_buffer.raw_page import RawPage

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "oracle" / "tracefs" / "ring-pages.json").read_text()
)
PAYLOADS = st.integers(3, 200).flatmap(lambda n: st.binary(min_size=4 * n, max_size=4 * n))
EVENTS = st.lists(st.tuples(st.integers(0, 1 << 40), PAYLOADS), max_size=60)


def _real_page(recorded: dict[str, Any]) -> bytes:
    data = bytes.fromhex(recorded["header_hex"] + recorded["data_hex"])
    return data.ljust(4096, b"\0")


@pytest.mark.parametrize("recorded", [*RECORDED["pages"], *RECORDED["pages_lost"]])
def test_real_page_is_encoded_to_the_same_bytes(recorded: dict[str, Any]) -> None:
    real = _real_page(recorded)
    assert RawPage.decode(real).encode() == real


@pytest.mark.parametrize("recorded", [*RECORDED["pages"], *RECORDED["pages_lost"]])
def test_events_of_a_real_page_fill_an_equal_page(recorded: dict[str, Any]) -> None:
    real = RawPage.decode(_real_page(recorded))
    buffer = CpuBuffer(2)
    for record in real.events():
        assert buffer.write(record.stamp, record.payload)
    taken = buffer.take_page()
    assert taken is not None
    assert taken == (real.stamp, real.records, 0)


def test_real_page_has_as_many_events_as_the_text() -> None:
    lines = [line for line in RECORDED["trace"].splitlines() if not line.startswith("#")]
    assert sum(len(RawPage.decode(_real_page(p)).events()) for p in RECORDED["pages"]) == len(lines)


def test_lost_events_of_a_real_page() -> None:
    recorded = RECORDED["pages_lost"][0]
    page = RawPage.decode(_real_page(recorded))
    assert page.lost == recorded["lost"]
    assert len(page.events()) == recorded["events"]


@given(EVENTS)
@settings(max_examples=60)
def test_what_is_written_is_read(events: list[tuple[int, bytes]]) -> None:
    buffer = CpuBuffer(200)
    time = 0
    written = []
    for passed, payload in events:
        time += passed
        assert buffer.write(time, payload)
        written.append((time, payload))
    read = []
    while (taken := buffer.take_page()) is not None:
        stamp, records, lost = taken
        assert lost == 0
        page = RawPage.decode(RawPage(stamp, records).encode())
        read += [(record.stamp, record.payload) for record in page.events()]
    assert read == written
    assert (buffer.entries, buffer.bytes) == (0, 0)


@given(
    st.binary(max_size=DATA_SIZE),
    st.integers(0, (1 << 63) - 1),
    st.none() | st.integers(1, 1 << 40),
)
@settings(max_examples=60)
def test_page_codec_is_its_own_inverse(records: bytes, stamp: int, lost: int | None) -> None:
    page = RawPage(stamp, records, lost)
    back = RawPage.decode(page.encode())
    assert (back.stamp, back.records) == (stamp, records)
    room = len(records) + 8 <= DATA_SIZE
    assert back.lost == (lost if room or lost is None else 0)


@pytest.mark.parametrize("delta", [0, DELTA_MAX, DELTA_MAX + 1, 1 << 50])
def test_time_between_records_survives(delta: int) -> None:
    page = Page(1000)
    record = encode_record(delta, b"abcdefgh")
    page.data[: len(record)] = record
    page.commit = len(record)
    assert [r.stamp for r in page.records()] == [1000 + delta]
    assert len(record) == (12 if delta <= DELTA_MAX else 20)


def test_overwriting_loses_the_oldest_page_as_a_whole() -> None:
    buffer = CpuBuffer(pages_for(8))
    for number in range(600):
        buffer.write(number, b"x" * 80)
    assert (buffer.entries, buffer.overrun) == (120, 480)
    oldest = next(buffer.unread_of_page(), None)
    assert oldest is not None
    assert oldest.stamp == 480
    assert buffer.lost == 480


def test_without_overwriting_new_events_are_dropped() -> None:
    buffer = CpuBuffer(2)
    buffer.overwrite = False
    kept = sum(buffer.write(number, b"x" * 80) for number in range(600))
    assert (kept, buffer.dropped, buffer.overrun) == (96, 504, 0)


def test_consumed_events_leave_the_counts() -> None:
    buffer = CpuBuffer(2)
    for number in range(3):
        buffer.write(number, b"x" * 12)
    record = next(buffer.unread_of_page(), None)
    assert record is not None
    buffer.consumed(record)
    assert (buffer.entries, buffer.read_events, buffer.bytes) == (2, 1, 32)


@pytest.mark.parametrize(("rest", "counted"), [(4, 0), (8, 8)])
def test_a_rest_without_room_for_any_event_does_not_count(rest: int, counted: int) -> None:
    buffer = CpuBuffer(2)
    used = 0
    while (room := DATA_SIZE - rest - used) > 0:
        record = min(room, 100)
        buffer.write(0, b"x" * (record - 4))
        used += record
    assert buffer.bytes == used
    buffer.write(0, b"x" * 12)
    assert buffer.bytes == used + counted + 16


def test_shrinking_drops_the_oldest() -> None:
    buffer = CpuBuffer(4)
    for number in range(4 * 48):
        buffer.write(number, b"x" * 80)
    buffer.resize(2)
    assert (buffer.entries, buffer.overrun) == (96, 96)


def test_memory_of_a_full_buffer_is_its_size() -> None:
    import sys

    buffer = CpuBuffer(pages_for(400))
    for number in range(6000):
        buffer.write(number, b"x" * 80)
    used = sum(sys.getsizeof(page) + sys.getsizeof(page.data) for page in buffer.ring)
    assert used < 400 * 1024 * 1.2
    assert len(buffer.ring) == buffer.limit


# What a page may hold: an event, a discarded one, a time extend, an absolute time.
Part = tuple[str, int, bytes]
SMALL = st.integers(1, 28).flatmap(lambda n: st.binary(min_size=4 * n, max_size=4 * n))
LARGE = st.integers(29, 90).flatmap(lambda n: st.binary(min_size=4 * n, max_size=4 * n))
PARTS: st.SearchStrategy[list[Part]] = st.lists(
    st.one_of(
        st.tuples(st.just("event"), st.integers(0, DELTA_MAX), SMALL | LARGE),
        st.tuples(st.just("discarded"), st.integers(1, DELTA_MAX), SMALL),
        st.tuples(st.just("extend"), st.integers(0, 1 << 50), st.just(b"")),
        st.tuples(st.just("absolute"), st.integers(0, 1 << 58), st.just(b"")),
    ),
    max_size=10,
)


def packed(part: Part) -> bytes:
    """As include/linux/ring_buffer.h says, apart from the code under test."""
    kind, number, payload = part
    if kind == "event":
        if len(payload) <= 112:
            return struct.pack("<I", number << 5 | len(payload) // 4) + payload
        return struct.pack("<II", number << 5, len(payload) + 4) + payload
    if kind == "discarded":
        return struct.pack("<II", number << 5 | 29, len(payload)) + payload
    low, high = number & DELTA_MAX, number >> 27
    return struct.pack("<II", low << 5 | (30 if kind == "extend" else 31), high)


@given(PARTS, st.integers(0, 1 << 50), st.none() | st.integers(1, 1 << 40), st.booleans())
@settings(max_examples=100)
def test_a_page_of_anything_is_decoded(
    parts: list[Part], stamp: int, lost: int | None, padded: bool
) -> None:
    records = b"".join(map(packed, parts))
    if padded:
        # The rest of a page that the next event did not fit into.
        records += struct.pack("<I", 29) + b"\xff" * 8
    time, expected = stamp, []
    for kind, number, payload in parts:
        time = number if kind == "absolute" else time + number
        if kind == "event":
            expected.append((time, payload))
    page = RawPage.decode(RawPage(stamp, records, lost).encode())
    assert [(record.stamp, record.payload) for record in page.events()] == expected
    assert page.lost == lost


def test_a_full_page_has_no_room_for_the_number_of_lost_events() -> None:
    records = packed(("event", 0, b"x" * (DATA_SIZE - 12)))
    page = RawPage.decode(RawPage(0, records, 5).encode())
    assert (page.lost, len(page.events())) == (0, 1)


@given(EVENTS, st.integers(1, 5), st.booleans())
@settings(max_examples=60)
def test_counts_always_add_up(events: list[tuple[int, bytes]], pages: int, overwrite: bool) -> None:
    buffer = CpuBuffer(pages)
    buffer.overwrite = overwrite
    time, kept = 0, 0
    for number, (passed, payload) in enumerate(events):
        time += passed
        kept += buffer.write(time, payload)
        if number % 7 == 3 and (record := next(buffer.unread_of_page(), None)) is not None:
            buffer.consumed(record)
    left = [record for page, *place in buffer.pages() for record in page.records(*place)]
    assert buffer.entries == len(left)
    assert kept == buffer.entries + buffer.overrun + buffer.read_events
    assert buffer.dropped == len(events) - kept
    assert buffer.dropped == 0 or not overwrite
    assert buffer.bytes >= sum(len(record.payload) + 4 for record in left)
    stamps = [record.stamp for record in left]
    assert stamps == sorted(stamps)
    assert buffer.oldest_stamp() == (stamps[0] if stamps else None)

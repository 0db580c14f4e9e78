"""The pages of each CPU, those of the snapshot, and how far they were read."""

from __future__ import annotations

from collections import deque
from typing import Annotated

from msgspec import Meta

from fakesys.core.saved import U63, Saved, check, check_range
from fakesys.subsystems.tracing.ring_buffer.buffer_set import MOST_ORDER, BufferSet
from fakesys.subsystems.tracing.ring_buffer.cpu_buffer import (
    RB_EVNT_MIN_SIZE,
    CpuBuffer,
    Page,
    room_of,
)
from fakesys.subsystems.tracing.saved.records import PageReader
from fakesys.subsystems.tracing.saved.values import U64_END

MOST_ROOM = room_of(MOST_ORDER)
Data = Annotated[bytes, Meta(min_length=1, max_length=MOST_ROOM)]


class SavedPage(Saved, frozen=True):
    """The records of a page; `stamp` is the time before the first."""

    stamp: int
    records: Data


class SavedBuffer(Saved, frozen=True):
    """The buffer of one CPU.

    `pages`: oldest first; the first is the reader page unless `read_position` is None.
    `size_bytes`: as it was set, with pages of the size of then.
    `full`: has the newest page refused a record, so that no other is added to it?
    `lost`: events lost before the reader page; `lost_before`: `overrun` when it was taken.
    """

    limit: Annotated[int, Meta(ge=2, le=(1 << 63) - 1)]
    size_bytes: U63
    pages: tuple[SavedPage, ...]
    read_position: Annotated[int, Meta(ge=0, le=MOST_ROOM)] | None
    full: bool
    overrun: U63
    dropped: U63
    read_events: U63
    lost: U63
    lost_before: U63


class SavedBuffers(Saved, frozen=True):
    """The buffers of one instance. `asked_kb`: by CPU, the size that was asked for.

    `order`: of their pages, each 2^order pages of memory.
    """

    expanded: bool
    order: Annotated[int, Meta(ge=0, le=MOST_ORDER)]
    asked_kb: tuple[int | None, ...]
    live: tuple[SavedBuffer, ...]
    snapshot: tuple[SavedBuffer, ...] | None


def save_buffers(buffers: BufferSet) -> SavedBuffers:
    """Return the buffers of an instance as plain values."""
    kept = buffers.snapshot
    return SavedBuffers(
        expanded=buffers.expanded,
        order=buffers.order,
        asked_kb=tuple(buffers.asked.get(cpu) for cpu in range(len(buffers))),
        live=tuple(map(_save_buffer, buffers.live)),
        snapshot=None if kept is None else tuple(map(_save_buffer, kept)),
    )


def restore_buffers(
    saved: SavedBuffers, buffers: BufferSet, reader: PageReader, *, cpus: int, overwrite: bool
) -> None:
    """Give an instance the buffers of a snapshot, one for each CPU. Raises BadSnapshotError."""
    for count in map(len, (saved.asked_kb, saved.live, saved.snapshot or saved.live)):
        check(count == cpus, f"there are {count} buffers for {cpus} CPUs")
    buffers.expanded, buffers.order = saved.expanded, saved.order
    room = buffers.room
    buffers.asked.clear()
    for cpu, kilobytes in enumerate(saved.asked_kb):
        if kilobytes is not None:
            buffers.asked[cpu] = check_range(kilobytes, U64_END, "the size of a buffer")
    buffers.live = [_restored(buffer, reader, room) for buffer in saved.live]
    buffers.snapshot = None
    if saved.snapshot is not None:
        check(saved.snapshot, "a snapshot has no buffers")
        buffers.snapshot = [_restored(buffer, reader, room) for buffer in saved.snapshot]
    buffers.set_overwrite(overwrite)


def _save_buffer(buffer: CpuBuffer) -> SavedBuffer:
    pages = _pages(buffer)
    return SavedBuffer(
        limit=buffer.limit,
        size_bytes=buffer.size_bytes,
        pages=tuple(
            SavedPage(stamp=page.stamp, records=bytes(page.data[: page.commit])) for page in pages
        ),
        read_position=None if buffer.reader is None else buffer.read_position,
        full=bool(pages and pages[-1].filler),
        overrun=buffer.overrun,
        dropped=buffer.dropped,
        read_events=buffer.read_events,
        lost=buffer.lost,
        lost_before=buffer.last_overrun,
    )


def _pages(buffer: CpuBuffer) -> list[Page]:
    """Return the reader page, if there is one, and the ring, oldest first."""
    return [*([] if buffer.reader is None else [buffer.reader]), *buffer.ring]


def _restored(saved: SavedBuffer, reader: PageReader, room: int) -> CpuBuffer:
    buffer = CpuBuffer(saved.limit, room=room)
    buffer.size_bytes = saved.size_bytes
    pages: list[Page] = []
    for each in saved.pages:
        page, buffer.write_stamp = _page(each, reader, room)
        pages.append(page)
    _fill(pages, room, full=saved.full)
    buffer.ring = deque(pages)
    if saved.read_position is None:
        check(not saved.read_events and not saved.lost_before, "events were read without a page")
    else:
        check(pages, "a buffer has a reader page and no page")
        buffer.reader = buffer.ring.popleft()
        _read_to(saved.read_position, buffer, buffer.reader, reader)
    check(len(buffer.ring) <= buffer.limit, "a buffer has more pages than it may have")
    _restore_counts(saved, buffer, sum(page.entries for page in pages))
    return buffer


def _page(saved: SavedPage, reader: PageReader, room: int) -> tuple[Page, int]:
    """Return a page and the time of its last record."""
    check(len(saved.records) <= room, "a page has more records than it has room for")
    page = Page(check_range(saved.stamp, U64_END, "the time of a page"))
    # It grows when the writer goes on, so that memory follows the size of the file.
    page.data = bytearray(saved.records)
    page.commit = len(saved.records)
    times = [time for time, _ in reader.records(saved.stamp, saved.records)]
    page.entries = len(times)
    return page, times[-1]


def _fill(pages: list[Page], room: int, *, full: bool) -> None:
    """Count the rest of each page as used, as the writer did when it left the page."""
    for page in pages if full else pages[:-1]:
        rest = room - page.commit
        page.filler = rest if rest >= RB_EVNT_MIN_SIZE else 0
    check(not full or (pages and pages[-1].filler), "a page without a rest has refused a record")


def _read_to(position: int, buffer: CpuBuffer, page: Page, reader: PageReader) -> None:
    """Set how far the reader page was read; count the events that were read of it."""
    ends = {0: page.stamp}
    ends.update((end, time) for time, end in reader.records(page.stamp, bytes(page.data)))
    check(position in ends, "a page was read to the middle of a record")
    buffer.read_position, buffer.read_stamp = position, ends[position]
    buffer.read_events = sum(0 < end <= position for end in ends)


def _restore_counts(saved: SavedBuffer, buffer: CpuBuffer, entries: int) -> None:
    """Set the counts; what the pages tell is counted there. `entries`: events in all pages."""
    check(buffer.read_events <= saved.read_events, "more events were read than were counted")
    check(saved.lost <= saved.lost_before <= saved.overrun, "more events are lost than were")
    check(not saved.lost or not buffer.read_position, "lost events come after those that were read")
    unread = entries - buffer.read_events
    buffer.overrun, buffer.dropped = saved.overrun, saved.dropped
    buffer.read_events = saved.read_events
    buffer.lost, buffer.last_overrun = saved.lost, saved.lost_before
    buffer.entries_written = unread + buffer.overrun + buffer.read_events
    buffer.bytes = sum(page.commit + page.filler for page in _pages(buffer)) - buffer.read_position

"""The journals in a snapshot. Nothing but the AP bus sends uevents in batches.

A small batch is saved as its events, since when a journal packs it depends on what came before.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta

from fakesys.core.events import Uevent, UeventBatch
from fakesys.core.journal import CAPACITY, PACKED, LineLog, UeventLog
from fakesys.core.saved import U63, Line, Saved, check
from fakesys.subsystems.ap_bus.saved.rows import SavedRows, restored_batch, save_rows
from fakesys.subsystems.ap_bus.uevents import RowEvents


class SavedUevent(Saved, frozen=True, tag="uevent"):
    """One uevent; `env` keeps the order of the fields."""

    action: Line
    devpath: Line
    subsystem: Line
    env: dict[Line, Line]


class SavedUevents(Saved, frozen=True):
    """The uevents that are kept, oldest first; the number of the newest is `last`."""

    last: U63
    kept: Annotated[tuple[SavedUevent | SavedRows, ...], Meta(max_length=CAPACITY)]


class SavedLog(Saved, frozen=True):
    """The lines that are kept, oldest first; the number of the newest is `last`.

    `times`: nanoseconds of the clock, one for each line.
    """

    last: U63
    kept: Annotated[tuple[Annotated[str, Meta(max_length=1 << 17)], ...], Meta(max_length=CAPACITY)]
    times: Annotated[tuple[U63, ...], Meta(max_length=CAPACITY)]


def save_uevents(log: UeventLog) -> SavedUevents:
    """Return what a snapshot holds of the uevents."""
    kept = [saved for chunk in log.kept() for saved in _save_chunk(chunk)]
    # The oldest chunk may begin with events that are not kept any more.
    return SavedUevents(last=log.last, kept=tuple(kept[-CAPACITY:]))


def _save_chunk(chunk: Uevent | UeventBatch) -> Iterator[SavedUevent | SavedRows]:
    if isinstance(chunk, Uevent):
        yield _save_uevent(chunk)
    elif isinstance(chunk.make, RowEvents) and chunk.count > PACKED:
        yield save_rows(chunk.make)
    else:
        yield from map(_save_uevent, chunk.make())


def _save_uevent(event: Uevent) -> SavedUevent:
    return SavedUevent(
        action=event.action,
        devpath=event.devpath,
        subsystem=event.subsystem,
        env=dict(event.env),
    )


def restored_uevents(saved: SavedUevents) -> list[Uevent | UeventBatch]:
    """Return the events for `UeventLog.replace`. Raises BadSnapshotError."""
    kept = [_restored_chunk(chunk) for chunk in saved.kept]
    total = sum(1 if isinstance(chunk, Uevent) else chunk.count for chunk in kept)
    check(total <= saved.last, "there are more uevents than were sent")
    return kept


def _restored_chunk(saved: SavedUevent | SavedRows) -> Uevent | UeventBatch:
    if isinstance(saved, SavedRows):
        return restored_batch(saved)
    return Uevent(saved.action, saved.devpath, saved.subsystem, saved.env)


def save_log(log: LineLog) -> SavedLog:
    """Return what a snapshot holds of the kernel log."""
    return SavedLog(last=log.last, kept=log.kept(), times=log.times())


def check_log(saved: SavedLog) -> None:
    """Raise BadSnapshotError for lines that no log has."""
    check(len(saved.kept) <= saved.last, "there are more lines than were logged")
    check(len(saved.kept) == len(saved.times), "not every line of the log has a time")

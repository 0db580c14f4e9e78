"""Uevents of many queues in a snapshot: as masks, as a journal keeps them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fakesys.core.events import UeventBatch
from fakesys.core.saved import U8, U63, Line, Mask, Saved, check, mask_of, mask_text
from fakesys.subsystems.ap_bus.hardware_spec import CardMode
from fakesys.subsystems.ap_bus.uevents import Action, Row, RowEvents, Step, batch

# More happens to no queue in one operation.
_ACTIONS = Meta(min_length=1, max_length=16)


class SavedAction(Saved, frozen=True):
    """One uevent of a queue; the fields are those of `Action`."""

    name: Line
    driver: Line | None
    extra: Annotated[tuple[tuple[Line, Line], ...], Meta(max_length=16)]


class SavedStep(Saved, frozen=True):
    """What happened to each queue of a mask."""

    mask: Mask
    actions: Annotated[tuple[SavedAction, ...], _ACTIONS]


class SavedRow(Saved, frozen=True):
    """What happened to queues of one card; the fields are those of `Row`."""

    apid: U8
    mode: CardMode
    steps: tuple[SavedStep, ...]
    complete: Mask
    first: U63
    reverse: bool


class SavedRows(Saved, frozen=True, tag="queues"):
    """A batch of uevents of queues."""

    rows: tuple[SavedRow, ...]


def save_rows(events: RowEvents) -> SavedRows:
    """Return what a snapshot holds of a batch."""
    return SavedRows(rows=tuple(_save_row(row) for row in events.rows))


def _save_row(row: Row) -> SavedRow:
    return SavedRow(
        apid=row.apid,
        mode=CardMode(row.mode),
        steps=tuple(
            SavedStep(
                mask=mask_text(step.mask),
                actions=tuple(
                    SavedAction(name=action.name, driver=action.driver, extra=action.extra)
                    for action in step.actions
                ),
            )
            for step in row.steps
        ),
        complete=mask_text(row.complete),
        first=row.first,
        reverse=row.reverse,
    )


def restored_batch(saved: SavedRows) -> UeventBatch:
    """Return the batch of a snapshot. Raises BadSnapshotError."""
    made = batch([_restored_row(row) for row in saved.rows])
    check(made.count, "a batch without uevents")
    return made


def _restored_row(saved: SavedRow) -> Row:
    steps = tuple(Step(mask_of(step.mask), _restored_actions(step)) for step in saved.steps)
    row = Row(
        saved.apid, str(saved.mode), steps, mask_of(saved.complete), saved.first, saved.reverse
    )
    check(sum(step.mask for step in steps) == row.mask, "a queue is in two steps of a row")
    bound = sum(
        step.mask for step in steps if [action.name for action in step.actions].count("bind") == 1
    )
    check(not row.complete & ~bound, "the bindings are complete without a binding")
    return row


def _restored_actions(saved: SavedStep) -> tuple[Action, ...]:
    return tuple(Action(action.name, action.driver, action.extra) for action in saved.actions)

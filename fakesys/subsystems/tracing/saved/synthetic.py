"""Synthetic events as their definitions."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fakesys.core.saved import Saved, check
from fakesys.subsystems.tracing.events.catalog import LAST_ID, EventCatalog
from fakesys.subsystems.tracing.events.synthetic import parse_definition
from fakesys.subsystems.tracing.instances.synthetic import SyntheticEvents
from fakesys.subsystems.tracing.saved.values import Written

EventId = Annotated[int, Meta(ge=0, le=LAST_ID + 1)]


class SavedDefinition(Saved, frozen=True):
    """An event: its name, its fields as they were defined, its number."""

    name: Written
    fields: Written
    number: EventId


class SavedSynthetic(Saved, frozen=True):
    """All events, oldest first, and the number of the next one."""

    events: tuple[SavedDefinition, ...]
    next_id: EventId


def save_synthetic(events: SyntheticEvents, catalog: EventCatalog) -> SavedSynthetic:
    """Return the events as plain values."""
    found = (
        SavedDefinition(name=name, fields=form.definition.text, number=form.id)
        for name, form in events.formats.items()
    )
    return SavedSynthetic(events=tuple(found), next_id=catalog.next_id)


def restore_synthetic(
    saved: SavedSynthetic, events: SyntheticEvents, catalog: EventCatalog
) -> None:
    """Define the events. Raises BadSnapshotError, KernelError."""
    check(saved.next_id >= catalog.next_id, "the next event has the number of another")
    catalog.next_id = saved.next_id
    for one in saved.events:
        check(one.number in catalog.defined_ids, f"event {one.name!r} cannot have its number")
        check(one.number not in catalog.by_id, f"event {one.name!r} has the number of another")
        check(one.name not in events.formats, f"event {one.name!r} is there twice")
        events.add(parse_definition(one.name, one.fields, lambda message, at: None), one.number)

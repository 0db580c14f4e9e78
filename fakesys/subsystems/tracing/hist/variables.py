"""Variables across histograms: where a name is looked for, and references to what is found.

Like kernel/trace/trace_events_hist.c:find_event_var, find_match_var, find_var_file,
create_var_ref, resolve_var_refs (v6.1).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from fakesys.core.event_format import EventFormat
from fakesys.subsystems.tracing.events.ftrace import FTRACE
from fakesys.subsystems.tracing.hist.histogram import (
    MOST_VARIABLES,
    Flag,
    HistField,
    Histogram,
    Key,
    Value,
)

NOT_UNIQUE = (
    "Variable name not unique, need to use fully qualified name (subsys.event.var) for variable"
)
_KEPT = Flag.TIMESTAMP | Flag.USECS | Flag.STACKTRACE


class Counted(Protocol):
    """A histogram on an event, as its event lists it."""

    @property
    def histogram(self) -> Histogram:
        """What it counts."""

    @property
    def filter_text(self) -> str:
        """Which events it counts; nothing for all."""


class Synthetic(Protocol):
    """A synthetic event, as far as actions need it."""

    def takes(self, number: int, kind: str, size: int, signed: bool, *, stack: bool) -> bool:
        """Return whether its field of this number takes values of a type."""

    @property
    def width(self) -> int:
        """The number of its fields."""


class Place(Protocol):
    """What a histogram that is made needs of its instance."""

    @property
    def removing(self) -> bool:
        """Is it made only to find an equal one?"""

    @property
    def has_stack_field(self) -> bool:
        """Is `common_stacktrace` the name of the call chain (6.3)?"""

    def log(self, message: str, at: str | None) -> None:
        """Append a mistake to `error_log`."""

    def find(self, system: str, event: str) -> EventFormat | None:
        """Return an event; system `ftrace` is searched too."""

    def on_event(self, form: EventFormat) -> Iterable[Counted]:
        """Return the histograms on an event, in their order."""

    def with_variables(self) -> Iterable[Histogram]:
        """Return the histograms of the instance that have variables, newest first."""

    def synthetic(self, name: str) -> Synthetic | None:
        """Return a synthetic event."""

    def count_too(self, form: EventFormat, text: str) -> None:
        """Put a histogram on another event. Raises KernelError."""

    def watch_snapshot(self, histogram: Histogram) -> None:
        """Let the histogram take snapshots of the instance. Raises EBUSY."""


def event_variable(
    histogram: Histogram, place: Place, system: str, event: str, name: str
) -> HistField | None:
    """Find a variable by its name, on the named event if one is named.

    Logs it if the name is not unique.
    """
    if not system or not event:
        found, unique = _of_matched(histogram, place, name)
        if not unique:
            return None
        if found is not None:
            return found
    form = _event_of(place, system, event, name)
    return None if form is None else _on(place, form, name)


def _of_matched(histogram: Histogram, place: Place, name: str) -> tuple[HistField | None, bool]:
    """Find a variable of the events of onmatch; the second value: is there one at most?"""
    found: HistField | None = None
    for action in histogram.actions:
        if action.handler != "onmatch":
            continue
        form = _event_of(place, action.place[0], action.place[1], name)
        other = None if form is None else _on(place, form, name)
        if other is not None and found is not None:
            place.log(NOT_UNIQUE, name)
            return None, False
        found = other or found
    return found, True


def _event_of(place: Place, system: str, event: str, name: str) -> EventFormat | None:
    """Return the named event, or the only one that has the variable."""
    if system:
        return None if system == FTRACE else place.find(system, event)
    found: EventFormat | None = None
    for histogram in place.with_variables():
        if histogram.form is found or histogram.variable(name) is None:
            continue
        if found is not None:
            place.log(NOT_UNIQUE, name)
            return None
        found = histogram.form
    return found


def _on(place: Place, form: EventFormat, name: str) -> HistField | None:
    for counted in place.on_event(form):
        found = counted.histogram.variable(name)
        if found is not None:
            return found
    return None


def is_taken(histogram: Histogram, place: Place, name: str) -> bool:
    """Return whether a variable of this name is on the event already, so that none can be made."""
    if histogram.variable(name) is not None:
        return not place.removing
    return _on(place, histogram.form, name) is not None and not place.removing


def refer(histogram: Histogram, variable: HistField, system: str, event: str) -> HistField | None:
    """Return the reference of a histogram to a variable; None if it has too many."""
    for old in histogram.references:
        if old.index == variable.index and old.owner is variable.owner:
            return old
    number = len(histogram.references)
    if number >= MOST_VARIABLES:
        return None
    made = HistField(
        lambda hit: hit.references[number],
        Flag.REFERENCE | (variable.flags & _KEPT),
        variable.type,
        variable.size,
        variable.signed,
        index=variable.index,
        owner=variable.owner,
        system=system,
        event=event,
        name=variable.variable or variable.name,
        reference=number,
    )
    histogram.references.append(made)
    return made


def resolve(histogram: Histogram, key: Key, values: list[Value], *, own: bool) -> bool:
    """Read the variables of other histograms, or its own, that it refers to.

    Return False when one is not set for this key.
    """
    for reference in histogram.references:
        owner = reference.owner
        assert owner is not None
        if (owner is histogram) is not own:
            continue
        row = owner.rows.get(key)
        if row is None or reference.index not in row.variables:
            return False
        if own or not reference.once:
            values[reference.reference] = row.variables[reference.index]
        else:
            values[reference.reference] = row.variables.pop(reference.index)
    return True

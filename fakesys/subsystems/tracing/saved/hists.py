"""Histograms as the lines that make them, with their counts, variables and snapshots.

One can refer to variables of another on any event, so all of them are made again in the order in
which they were made, once the other triggers are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from msgspec import Meta

from fakesys.core.saved import U63, Natural, Saved, check, check_range, refuse
from fakesys.subsystems.tracing.filter.filters import Filter
from fakesys.subsystems.tracing.hist.count import COMM_LENGTH
from fakesys.subsystems.tracing.hist.histogram import (
    MOST_VARIABLES,
    Flag,
    Histogram,
    Key,
    Row,
    Value,
)
from fakesys.subsystems.tracing.instances.event_file import EventFile
from fakesys.subsystems.tracing.instances.hist_trigger import HistTrigger, hists
from fakesys.subsystems.tracing.instances.instance import Instance
from fakesys.subsystems.tracing.instances.triggers import write_trigger
from fakesys.subsystems.tracing.saved.values import U64_END, Comm, Shown, Written

SavedValue = int | Shown
Number = Annotated[int, Meta(ge=0, lt=MOST_VARIABLES)]


class SavedRow(Saved, frozen=True):
    """A row of a histogram: its key, the hits and the sum of each value, task and variables."""

    key: tuple[SavedValue, ...]
    counts: tuple[int, ...]
    comm: Comm
    variables: tuple[tuple[Number, SavedValue], ...]


class SavedTable(Saved, frozen=True):
    """The counts of a histogram, in the order in which the keys came."""

    size: U63
    dropped: U63
    rows: tuple[SavedRow, ...]


class SavedWatch(Saved, frozen=True):
    """What a histogram that takes snapshots has seen last; no key if it took none."""

    value: int
    key: tuple[SavedValue, ...] | None
    comm: Comm


class SavedHist(Saved, tag="hist", frozen=True):
    """A histogram: its line, and its table; None for the table of an earlier one of its name.

    `place`: in the order in which the histograms of all instances were made. `made`: it was made
    for the sake of the next one of these that was not.
    """

    line: Written
    cpus: Natural
    paused: bool
    table: SavedTable | None
    place: Natural
    made: bool = False
    watch: SavedWatch | None = None


class Tables:
    """The histograms that were saved or restored already, and the places of all.

    Those of one name share one.
    """

    def __init__(self, instances: list[Instance]) -> None:
        self._seen: dict[int, Histogram] = {}
        triggers = [
            trigger
            for instance in instances
            for file in instance.known_files()
            for trigger in hists(file)
        ]
        triggers.sort(key=lambda trigger: trigger.serial)
        self.places = {trigger.serial: place for place, trigger in enumerate(triggers)}

    def is_new(self, histogram: Histogram) -> bool:
        """Return whether this one comes for the first time."""
        new = id(histogram) not in self._seen
        self._seen[id(histogram)] = histogram
        return new


def save_hists(file: EventFile, tables: Tables) -> Iterator[SavedHist]:
    """Return the histograms of an event, in the order in which they were made."""
    for trigger in hists(file):
        histogram = trigger.histogram
        yield SavedHist(
            line=trigger.line,
            cpus=cpus_of(trigger.condition),
            paused=trigger.paused,
            table=_save_table(histogram) if tables.is_new(histogram) else None,
            place=tables.places[trigger.serial],
            made=trigger.maker is not None,
            watch=_save_watch(trigger),
        )


def make_hist(saved: SavedHist, instance: Instance, file: EventFile) -> None:
    """Make a histogram as its line does. Raises BadSnapshotError, KernelError.

    Precondition: `Shared.cpus` is what `saved.cpus` says.
    """
    before = len(hists(file))
    check(saved.line.startswith("hist:"), "it is no histogram")
    write_trigger(instance, file, saved.line)
    check(len(hists(file)) > before, "its line makes no trigger")


def fill_hists(saved: list[SavedHist], file: EventFile, tables: Tables) -> None:
    """Give the histograms of an event their counts, once all are made. Raises BadSnapshotError."""
    found = hists(file)
    check(len(found) == len(saved), "it has more or fewer histograms than were made")
    for one, trigger in zip(saved, found, strict=True):
        check(trigger.line == one.line, "it is another histogram")
        check((trigger.maker is not None) is one.made, "it was made for another reason")
        trigger.paused = one.paused
        if not tables.is_new(trigger.histogram):
            check(one.table is None, "a table is there already")
        elif one.table is None:
            refuse("its table is missing")
        else:
            _restore_table(one.table, trigger.histogram)
        _restore_watch(one.watch, trigger)


def cpus_of(condition: Filter | None) -> int:
    """Return how many CPUs a list of CPUs in a filter can name."""
    return 0 if condition is None else condition.cpus


def _save_table(histogram: Histogram) -> SavedTable:
    rows = tuple(
        SavedRow(
            key=key,
            counts=tuple(row.sums),
            comm=row.comm,
            variables=tuple(row.variables.items()),
        )
        for key, row in histogram.rows.items()
    )
    return SavedTable(size=histogram.size, dropped=histogram.dropped, rows=rows)


def _restore_table(saved: SavedTable, histogram: Histogram) -> None:
    check(saved.size == histogram.size, f"its table has no {saved.size} rows")
    check(len(saved.rows) <= saved.size, "a table has more rows than it may have")
    histogram.dropped = saved.dropped
    for row in saved.rows:
        _check_row(row, histogram)
        variables: Mapping[int, Value] = dict(row.variables)
        check(len(variables) == len(row.variables), "a variable has two values")
        histogram.rows[row.key] = Row(list(row.counts), row.comm, dict(variables))
        histogram.hits += row.counts[0]
    check(len(histogram.rows) == len(saved.rows), "two rows of a table have the same key")


def _check_row(row: SavedRow, histogram: Histogram) -> None:
    columns = len(histogram.sums)
    check(len(row.counts) == columns, "a row has more or fewer values than its histogram")
    check(len(row.comm) <= COMM_LENGTH, f"the name {row.comm!r} is too long")
    for count in row.counts:
        check_range(count, U64_END, "a sum")
    _check_key(row.key, histogram)
    for _, value in row.variables:
        _check_value(value, "a variable")


def _check_key(key: Key, histogram: Histogram) -> None:
    check(len(key) == len(histogram.keys), "a row has more or fewer keys than its histogram")
    for value, field in zip(key, histogram.keys, strict=True):
        is_text = bool(field.flags & (Flag.TEXT | Flag.STACKTRACE))
        check(isinstance(value, str) is is_text, f"{value!r} is no key of its histogram")
        _check_value(value, "a key")


def _check_value(value: Value, what: str) -> None:
    if isinstance(value, int):
        check_range(value, U64_END, what)


def _save_watch(trigger: HistTrigger) -> SavedWatch | None:
    watch = trigger.instance.watch
    if watch is None or watch.histogram is not trigger.histogram:
        return None
    return SavedWatch(value=watch.value, key=watch.key if watch.updated else None, comm=watch.comm)


def _restore_watch(saved: SavedWatch | None, trigger: HistTrigger) -> None:
    watch = trigger.instance.watch
    if watch is None or watch.histogram is not trigger.histogram:
        check(saved is None, "it takes no snapshots")
        return
    if saved is None:
        refuse("what it saw last is missing")
    watch.value = check_range(saved.value, U64_END, "the last value of a snapshot")
    watch.comm = saved.comm
    if saved.key is not None:
        _check_key(saved.key, trigger.histogram)
        watch.key, watch.updated = saved.key, True

"""Triggers as the lines that make them, with what has happened since."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta

from fakesys.core.saved import U63, Natural, Saved, check, check_range, refuse
from fakesys.subsystems.tracing.filter.filters import Filter
from fakesys.subsystems.tracing.hist.fields import Value
from fakesys.subsystems.tracing.hist.parse import LARGEST_BITS, SMALLEST_BITS, Spec
from fakesys.subsystems.tracing.instances.event_file import EventFile
from fakesys.subsystems.tracing.instances.hist_trigger import HistTrigger, Table
from fakesys.subsystems.tracing.instances.instance import Instance
from fakesys.subsystems.tracing.instances.triggers import SwitchTrigger, write_trigger
from fakesys.subsystems.tracing.saved.values import U64_END, Shown, Written

SIZES = frozenset(1 << bits for bits in range(SMALLEST_BITS, LARGEST_BITS + 1))


class SavedSwitch(Saved, tag="switch", frozen=True):
    """A trigger without a table: its line without the count, and what is left of the count.

    `cpus`: how many CPUs a list of CPUs in its filter can name, as in `SavedFilter`.
    """

    line: Written
    cpus: Natural
    count: Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]


class SavedRow(Saved, frozen=True):
    """A row of a histogram: its key, then the hits and the sum of each value."""

    key: tuple[int | Shown, ...]
    counts: tuple[int, ...]


class SavedTable(Saved, frozen=True):
    """The counts of a histogram, in the order in which the keys came."""

    size: U63
    dropped: U63
    rows: tuple[SavedRow, ...]


class SavedHist(Saved, tag="hist", frozen=True):
    """A histogram: its line, and its table; None for the table of an earlier one of its name."""

    line: Written
    cpus: Natural
    paused: bool
    table: SavedTable | None


SavedTrigger = SavedSwitch | SavedHist


class Tables:
    """The tables that were saved or restored already: histograms of one name share one."""

    def __init__(self) -> None:
        self._seen: dict[int, Table] = {}

    def is_new(self, table: Table) -> bool:
        """Return whether this table comes for the first time."""
        new = id(table) not in self._seen
        self._seen[id(table)] = table
        return new


def save_triggers(file: EventFile, tables: Tables) -> Iterator[SavedTrigger]:
    """Return the triggers of an event, in the order in which they were made."""
    for trigger in reversed(file.triggers):
        if isinstance(trigger, HistTrigger):
            new = tables.is_new(trigger.table)
            yield SavedHist(
                line=trigger.line,
                cpus=_cpus(trigger.condition),
                paused=trigger.paused,
                table=_save_table(trigger.table) if new else None,
            )
        elif isinstance(trigger, SwitchTrigger):
            cpus = _cpus(trigger.condition)
            yield SavedSwitch(line=trigger.line, cpus=cpus, count=trigger.count)


def restore_trigger(
    saved: SavedTrigger, instance: Instance, file: EventFile, tables: Tables
) -> None:
    """Make a trigger as its line does. Raises BadSnapshotError, KernelError.

    Precondition: `Shared.cpus` is what `saved.cpus` says.
    """
    before = file.triggers
    write_trigger(instance, file, saved.line)
    check(len(file.triggers) == len(before) + 1, "its line makes no trigger")
    made = file.triggers[0]
    if isinstance(saved, SavedSwitch):
        check(isinstance(made, SwitchTrigger) and made.line == saved.line, "it is another trigger")
        assert isinstance(made, SwitchTrigger)
        made.count = saved.count
        return
    check(isinstance(made, HistTrigger) and made.line == saved.line, "it is no histogram")
    assert isinstance(made, HistTrigger)
    made.paused = saved.paused
    if not tables.is_new(made.table):
        check(saved.table is None, "a table is there already")
    elif saved.table is None:
        refuse("its table is missing")
    else:
        _restore_table(saved.table, made)


def _cpus(condition: Filter | None) -> int:
    return 0 if condition is None else condition.cpus


def _save_table(table: Table) -> SavedTable:
    rows = (SavedRow(key=key, counts=tuple(counts)) for key, counts in table.rows.items())
    return SavedTable(size=table.size, dropped=table.dropped, rows=tuple(rows))


def _restore_table(saved: SavedTable, trigger: HistTrigger) -> None:
    table = trigger.table
    check(saved.size in SIZES, f"a table has no {saved.size} rows")
    check(len(saved.rows) <= saved.size, "a table has more rows than it may have")
    table.size, table.dropped = saved.size, saved.dropped
    for row in saved.rows:
        _check_row(row, trigger.spec)
        table.rows[row.key] = list(row.counts)
        table.hits += row.counts[0]
    check(len(table.rows) == len(saved.rows), "two rows of a table have the same key")


def _check_row(row: SavedRow, spec: Spec) -> None:
    columns = 1 + len(spec.values)
    check(len(row.key) == len(spec.keys), "a row has more or fewer keys than its histogram")
    check(len(row.counts) == columns, "a row has more or fewer values than its histogram")
    for count in row.counts:
        check_range(count, U64_END, "a sum")
    for value, part in zip(row.key, spec.keys, strict=True):
        _check_key(value, modified=bool(part.modifier))


def _check_key(value: Value, *, modified: bool) -> None:
    """Check a key. Of a field that is shown as it is, another histogram may have another type."""
    if isinstance(value, int):
        check_range(value, U64_END, "a key")
    else:
        check(not modified, f"{value!r} is no number")

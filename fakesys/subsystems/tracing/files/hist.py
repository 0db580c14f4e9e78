"""The text of an event's `hist` file. Like trace_events_hist.c:hist_trigger_show (v6.1)."""

from __future__ import annotations

from functools import cmp_to_key

from fakesys.subsystems.tracing.hist.fields import Value
from fakesys.subsystems.tracing.hist.parse import HITCOUNT, SortKey, Spec
from fakesys.subsystems.tracing.instances.event_file import EventFile
from fakesys.subsystems.tracing.instances.hist_trigger import HistTrigger, Key, hists

Row = tuple[Key, list[int]]


def hist_text(file: EventFile) -> str:
    """Return all tables, newest trigger first."""
    return "\n\n".join(table_text(trigger) for trigger in hists(file))


def table_text(trigger: HistTrigger) -> str:
    """Return one table with its head and its totals."""
    table, spec = trigger.table, trigger.spec
    rows = sorted_rows(list(table.rows.items()), spec.sort)
    lines = "".join(_row(spec, key, counts) for key, counts in rows)
    return (
        f"# event histogram\n#\n# trigger info: {trigger.text()}\n#\n\n{lines}\n"
        f"Totals:\n    Hits: {table.hits}\n    Entries: {len(rows)}\n"
        f"    Dropped: {table.dropped}\n"
    )


def sorted_rows(rows: list[Row], sort: tuple[SortKey, ...]) -> list[Row]:
    """Return the rows sorted by these columns; equal rows keep their order."""

    def compare(left: Row, right: Row) -> int:
        for key in sort:
            first, second = _column(left, key.column), _column(right, key.column)
            if first != second:
                less = _is_less(first, second)
                return 1 if less is key.descending else -1
        return 0

    return sorted(rows, key=cmp_to_key(compare))


def _column(row: Row, column: int) -> Value:
    return row[0][column] if column >= 0 else row[1][-1 - column]


def _is_less(left: Value, right: Value) -> bool:
    if isinstance(left, str) or isinstance(right, str):
        return str(left) < str(right)
    return left < right


def _row(spec: Spec, key: Key, counts: list[int]) -> str:
    parts = ", ".join(
        f"{part.name}: {part.show(value)}" for part, value in zip(spec.keys, key, strict=True)
    )
    values = "".join(
        f"  {value.name}: {f'{count:x}' if value.modifier == 'hex' else count:>10}"
        for value, count in zip(spec.values, counts[1:], strict=True)
    )
    return f"{{ {parts} }} {HITCOUNT}: {counts[0]:>10}{values}\n"

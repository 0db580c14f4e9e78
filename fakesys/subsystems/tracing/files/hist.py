"""The text of an event's `hist` file. Like trace_events_hist.c:hist_trigger_show (v6.1)."""

from __future__ import annotations

from functools import cmp_to_key

from fakesys.subsystems.tracing.hist.fields import HistField, Value
from fakesys.subsystems.tracing.hist.parse import HITCOUNT, SortKey, Spec
from fakesys.subsystems.tracing.instances.event_file import EventFile
from fakesys.subsystems.tracing.instances.hist_trigger import HistTrigger, Key, hists

BAR = 20

Row = tuple[Key, list[int]]


def hist_text(file: EventFile) -> str:
    """Return all tables, newest trigger first."""
    return "\n\n".join(table_text(trigger) for trigger in hists(file))


def table_text(trigger: HistTrigger) -> str:
    """Return one table with its head and its totals."""
    table, spec = trigger.table, trigger.spec
    rows = sorted_rows(list(table.rows.items()), spec.sort)
    columns = [list(column) for column in zip(*(counts for _, counts in rows), strict=True)]
    sums, most = [sum(column) for column in columns], [max(column) for column in columns]
    lines = "".join(_row(spec, key, counts, sums, most) for key, counts in rows)
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


def _row(spec: Spec, key: Key, counts: list[int], sums: list[int], most: list[int]) -> str:
    parts = ", ".join(
        f"{part.name}: {part.show(value)}" for part, value in zip(spec.keys, key, strict=True)
    )
    values = "".join(
        "  " + _value(value, counts[column], sums[column], most[column])
        for column, value in enumerate(spec.values, start=1)
        if not value.is_expression
    )
    return f"{{ {parts} }} {HITCOUNT}: {counts[0]:>10}{values}\n"


def _value(value: HistField, count: int, total: int, largest: int) -> str:
    """Like trace_events_hist.c:hist_trigger_print_val (v6.1)."""
    if value.modifier == "percent":
        hundredths = count * 10000 // total if total else 0
        return f"{value.name} (%): {hundredths // 100:3}.{hundredths % 100:02}"
    if value.modifier == "graph":
        bar = "#" * ((count * 10000 // largest) * BAR // 10000 if largest else 0)
        return f"{value.name}: {bar:<{BAR}}"
    return f"{value.name}: {f'{count:10x}' if value.modifier == 'hex' else f'{count:>10}'}"

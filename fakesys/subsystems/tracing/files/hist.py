"""The text of an event's `hist` file.

Like kernel/trace/trace_events_hist.c:hist_trigger_show, hist_trigger_print_key,
track_data_print, track_data_snapshot_print (v6.1).
"""

from __future__ import annotations

from functools import cmp_to_key

from fakesys.subsystems.tracing.events.stacks import place_of, symbol
from fakesys.subsystems.tracing.hist.actions import Action
from fakesys.subsystems.tracing.hist.fields import number_of
from fakesys.subsystems.tracing.hist.histogram import (
    HITCOUNT,
    Flag,
    HistField,
    Histogram,
    Key,
    Row,
    SortKey,
    Value,
)
from fakesys.subsystems.tracing.instances.event_file import EventFile
from fakesys.subsystems.tracing.instances.hist_trigger import HistTrigger, hists

BAR = 20
# Numbers of x86's system calls that a client of this file system makes.
_SYSCALLS = {0: "sys_read", 1: "sys_write", 2: "sys_open", 3: "sys_close", 257: "sys_openat"}

Entry = tuple[Key, Row]


def hist_text(file: EventFile) -> str:
    """Return all tables, oldest trigger first."""
    return "\n\n".join(table_text(trigger) for trigger in hists(file))


def table_text(trigger: HistTrigger) -> str:
    """Return one table with its head and its totals."""
    histogram = trigger.histogram
    entries = sorted_entries(histogram)
    columns = [list(column) for column in zip(*(row.sums for _, row in entries), strict=True)]
    sums, most = [sum(column) for column in columns], [max(column) for column in columns]
    lines = "".join(_entry(histogram, key, row, sums, most) for key, row in entries)
    return (
        f"# event histogram\n#\n# trigger info: {trigger.text()}\n#\n\n{lines}"
        f"{_snapshot(trigger)}\nTotals:\n    Hits: {histogram.hits}\n"
        f"    Entries: {len(entries)}\n    Dropped: {histogram.dropped}\n"
    )


def sorted_entries(histogram: Histogram) -> list[Entry]:
    """Return the rows in the order of the sort keys; equal rows keep their order."""

    def compare(left: Entry, right: Entry) -> int:
        for key in histogram.sort:
            first, second = _column(histogram, left, key), _column(histogram, right, key)
            if first != second:
                less = _is_less(first, second)
                return 1 if less is key.descending else -1
        return 0

    return sorted(histogram.rows.items(), key=cmp_to_key(compare))


def _column(histogram: Histogram, entry: Entry, sort: SortKey) -> Value:
    if sort.column < 0:
        return entry[1].sums[-1 - sort.column]
    field = histogram.keys[sort.column]
    if field.flags & Flag.STACKTRACE:
        # The kernel does not compare stacks.
        return 0
    value = entry[0][sort.column]
    return _as_signed(value, field) if isinstance(value, int) else value


def _as_signed(value: int, field: HistField) -> int:
    """Return the number that the kernel compares: of the size and sign of the field."""
    _, size, signed = (
        field.field_type
        if field.field and not field.flags & Flag.CPU
        else (
            "",
            field.size,
            field.signed,
        )
    )
    bits = 8 * size
    value &= (1 << bits) - 1
    return value - (1 << bits) if signed and value >> (bits - 1) else value


def _is_less(left: Value, right: Value) -> bool:
    if isinstance(left, str) or isinstance(right, str):
        return str(left) < str(right)
    return left < right


def _entry(histogram: Histogram, key: Key, row: Row, sums: list[int], most: list[int]) -> str:
    values = "".join(
        "  " + _value(value, row.sums[column], sums[column], most[column])
        for column, value in enumerate(histogram.sums)
        if column and not value.flags & Flag.EXPRESSION
    )
    tracked = "".join(
        _tracked(histogram, action, row)
        for action in histogram.actions
        if action.handler != "onmatch" and action.kind != "snapshot"
    )
    return f"{_key(histogram, key, row.comm)} {HITCOUNT}: {row.sums[0]:>10}{values}{tracked}\n"


def _key(histogram: Histogram, key: Key, comm: str) -> str:
    parts = [_part(field, value, comm) for field, value in zip(histogram.keys, key, strict=True)]
    stack = any(field.flags & Flag.STACKTRACE for field in histogram.keys)
    return f"{{ {', '.join(parts)}{'' if stack else ' '}}}"


def _part(field: HistField, value: Value, comm: str) -> str:
    flags = field.flags
    if flags & Flag.STACKTRACE:
        return f"{field.name}:\n{value}"
    return f"{field.label}: {_shown(flags, field, value, comm)}"


def _shown(flags: Flag, field: HistField, value: Value, comm: str) -> str:
    number = number_of(value)
    if flags & Flag.HEX:
        return f"{number:x}"
    if flags & Flag.SYM:
        return f"[{number:x}] {place_of(number)[0]:<45}"
    if flags & Flag.SYM_OFFSET:
        return f"[{number:x}] {symbol(number, with_offset=True):<55}"
    if flags & Flag.EXECNAME:
        return f"{comm:<16}[{number:10}]"
    if flags & Flag.SYSCALL:
        return f"{_SYSCALLS.get(number, 'unknown_syscall'):<30}[{number:3}]"
    if flags & Flag.LOG2:
        return f"~ 2^{number:<2}"
    if flags & Flag.BUCKET:
        return f"~ {number}-{number + field.buckets - 1}"
    return f"{value:<50}" if isinstance(value, str) else f"{value:>10}"


def _value(value: HistField, count: int, total: int, largest: int) -> str:
    """Like trace_events_hist.c:hist_trigger_print_val."""
    label = value.label
    if value.flags & Flag.PERCENT:
        hundredths = count * 10000 // total if total else 0
        return f"{label} (%): {hundredths // 100:3}.{hundredths % 100:02}"
    if value.flags & Flag.GRAPH:
        bar = "#" * ((count * 10000 // largest) * BAR // 10000 if largest else 0)
        return f"{label}: {bar:<{BAR}}"
    return f"{label}: {f'{count:10x}' if value.flags & Flag.HEX else f'{count:>10}'}"


def _tracked(histogram: Histogram, action: Action, row: Row) -> str:
    word = "max" if action.handler == "onmax" else "changed"
    saved = "".join(
        f"  {each.variable.variable}: {_saved(row.variables.get(each.variable.index), each.value)}"
        for each in histogram.saved_variables
    )
    return f"\n\t{word}: {row.variables.get(action.kept, 0):>10}{saved}"


def _saved(value: Value | None, field: HistField) -> str:
    if field.flags & Flag.TEXT:
        return f"{'(null)' if value is None else value:<32}"
    return f"{value or 0:>10}"


def _snapshot(trigger: HistTrigger) -> str:
    """Say which event has caused the snapshot of the instance, if this histogram takes them."""
    watch = trigger.instance.watch
    action = next((each for each in trigger.histogram.actions if each.kind == "snapshot"), None)
    if watch is None or not watch.updated or action is None:
        return ""
    return (
        "\nSnapshot taken (see tracing/snapshot).  Details:\n"
        f"\ttriggering value {{ {action.handler}({action.place[0]}) }}: {watch.value:>10}"
        f"\ttriggered by event with key: {_key(trigger.histogram, watch.key, watch.comm)}\n"
    )

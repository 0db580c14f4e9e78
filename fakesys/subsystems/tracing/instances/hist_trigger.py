"""Histograms as triggers: they count events by keys and add up values.

Like kernel/trace/trace_events_hist.c:event_hist_trigger_parse, hist_register_trigger (v6.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from errno import EEXIST, EINVAL, ENOENT
from typing import Any

from msgspec import Struct, field

from fakesys.core.errors import KernelError
from fakesys.core.events import Task
from fakesys.subsystems.tracing.base.saved_cmdlines import SavedCmdlines
from fakesys.subsystems.tracing.filter.filters import Filter
from fakesys.subsystems.tracing.hist.fields import ALL_BITS, Context, HistError, Value
from fakesys.subsystems.tracing.hist.parse import Spec, parse_hist
from fakesys.subsystems.tracing.instances.event_file import EventFile
from fakesys.subsystems.tracing.instances.instance import Instance

NO_HISTOGRAM = "Can't clear or continue a nonexistent hist trigger"

Key = tuple[Value, ...]


class Table(Struct):
    """The counts: for each key the hits, then the sum of each value.

    `size`: the most keys; `dropped`: events whose key had no room.
    """

    size: int
    rows: dict[Key, list[int]] = field(default_factory=dict)
    hits: int = 0
    dropped: int = 0

    def clear(self) -> None:
        """Drop all rows and counts."""
        self.rows.clear()
        self.hits = self.dropped = 0


class HistTrigger(Struct, eq=False):
    """One histogram on one event; histograms of the same name share a table."""

    spec: Spec
    condition: Filter | None
    table: Table
    cmdlines: SavedCmdlines
    paused: bool = False
    late: bool = False
    needs_record: bool = True

    @property
    def key(self) -> str:
        """What identifies the histogram: all of its line but the state."""
        return hist_key(self.spec, self.condition)

    def matches(self, event: Any, task: Task) -> bool:
        """Return whether the filter lets the event be counted."""
        return self.condition is None or self.condition.test(event, task)

    def fire(self, event: Any, task: Task) -> None:
        """Count the event; a new key when the table is full counts as dropped."""
        table, spec = self.table, self.spec
        key = tuple(part.get(event, task) for part in spec.keys)
        row = table.rows.get(key)
        if row is None:
            if len(table.rows) >= table.size:
                table.dropped += 1
                return
            row = table.rows[key] = [0] * (1 + len(spec.values))
            self.cmdlines.save(task.pid, task.comm)
        table.hits += 1
        row[0] += 1
        for column, value in enumerate(spec.values, start=1):
            row[column] = (row[column] + _addend(value.get(event, task))) & ALL_BITS

    def text(self) -> str:
        """Return its line in the trigger file, without newline."""
        return f"{self.key} [{'paused' if self.paused else 'active'}]"

    @property
    def line(self) -> str:
        """The line that makes such a histogram."""
        return f"hist:{self.spec.text}{if_part(self.condition)}"

    def removed(self) -> None:
        """Do nothing: the table goes with its last trigger."""


def _addend(value: Value) -> int:
    """Return what a value adds to a sum; a text adds nothing."""
    return value if isinstance(value, int) else 0


def hist_key(spec: Spec, condition: Filter | None) -> str:
    """Return the key of a histogram trigger, without making one."""
    return spec.spelling + if_part(condition)


def if_part(condition: Filter | None) -> str:
    """Return the end of a trigger line: ` if FILTER` or nothing."""
    return f" if {condition.text}" if condition else ""


def parse_spec(instance: Instance, file: EventFile, argument: str | None) -> Spec:
    """Parse the histogram of a trigger line. Raises EINVAL, and HistError, which is logged."""
    if not argument:
        raise KernelError(EINVAL, "a histogram needs keys")
    shared = instance.shared
    try:
        return parse_hist(
            argument, file.form, Context(shared.cmdlines.comm, lambda: instance.now())
        )
    except HistError as error:
        log_error(instance, file, argument, error)
        raise


def log_error(instance: Instance, file: EventFile, argument: str, error: HistError) -> None:
    """Append the error to `error_log`, and before it the one that led to it."""
    if error.before is not None:
        log_error(instance, file, argument, error.before)
    command = f"hist:{argument}"
    position = max(0, command.find(error.at)) if error.at else 0
    now = instance.shared.kernel.clock.now_ns
    instance.errors.add(now, f"hist:{file.form.name}", command, error.message, position)


def add_hist(instance: Instance, file: EventFile, spec: Spec, condition: Filter | None) -> None:
    """Add a histogram, or obey a command for one that is there.

    Raises EEXIST for a second equal histogram, ENOENT for a command without one, EINVAL for a
    shared name with other fields.
    """
    key = hist_key(spec, condition)
    old = next((other for other in hists(file) if other.key == key), None)
    if old is not None:
        _obey(old, spec)
        return
    if spec.command in ("continue", "clear"):
        refusal = HistError(NO_HISTOGRAM, "", errno=ENOENT)
        log_error(instance, file, spec.text, refusal)
        raise refusal
    table = _table_of(instance, spec)
    paused = spec.command == "pause"
    file.add_trigger(HistTrigger(spec, condition, table, instance.shared.cmdlines, paused))


def hists(file: EventFile) -> list[HistTrigger]:
    """Return the histograms on an event, newest first."""
    return [trigger for trigger in file.triggers if isinstance(trigger, HistTrigger)]


def clear_hists(file: EventFile) -> None:
    """Remove the histograms but no other trigger, as opening `trigger` with O_TRUNC does."""
    for trigger in hists(file):
        file.remove_trigger(trigger)


def switch_hists(file: EventFile, on: bool) -> bool:
    """Continue or pause the histograms of an event; return whether that changed any."""
    found = hists(file)
    changed = any(trigger.paused is on for trigger in found)
    for trigger in found:
        trigger.paused = not on
    return changed


def _obey(trigger: HistTrigger, spec: Spec) -> None:
    if spec.command == "clear":
        trigger.table.clear()
    elif spec.command:
        trigger.paused = spec.command == "pause"
    else:
        raise KernelError(EEXIST, "there is such a histogram already")


def _table_of(instance: Instance, spec: Spec) -> Table:
    """Return the table of the histograms of this name, in any instance, or a new one."""
    if spec.name:
        for other in _all_hists(instance):
            if other.spec.name == spec.name:
                if _shape(other.spec) != _shape(spec):
                    raise KernelError(EINVAL, f"histogram {spec.name} has other fields")
                return other.table
    return Table(spec.size)


def _all_hists(instance: Instance) -> Iterator[HistTrigger]:
    for each in instance.owner.every_instance():
        for file in each.known_files():
            yield from hists(file)


def _shape(spec: Spec) -> tuple[str, ...]:
    return tuple(part.spelling for part in (*spec.keys, *spec.values))

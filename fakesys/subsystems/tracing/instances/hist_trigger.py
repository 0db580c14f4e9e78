"""Histograms as triggers: they count events by keys and add up values.

Like kernel/trace/trace_events_hist.c:event_hist_trigger_parse, hist_register_trigger (v6.1).
"""

from __future__ import annotations

from errno import EEXIST, EINVAL, ENOENT
from typing import Any

from msgspec import Struct, field

from fakesys.core.errors import KernelError
from fakesys.core.events import Task
from fakesys.subsystems.tracing.filter.filters import Filter
from fakesys.subsystems.tracing.hist.fields import Context, HistError, Value
from fakesys.subsystems.tracing.hist.parse import Spec, parse_hist
from fakesys.subsystems.tracing.instances.event_file import EventFile

Key = tuple[Value, ...]


class Table(Struct):
    """The counts: for each key the hits and the sum of each value."""

    size: int
    rows: dict[Key, list[int]] = field(default_factory=dict)
    hits: int = 0
    dropped: int = 0

    def clear(self) -> None:
        """Begin anew."""
        self.rows.clear()
        self.hits = self.dropped = 0


class HistTrigger(Struct, eq=False):
    """One histogram on one event; those of one name share a table."""

    spec: Spec
    condition: Filter | None
    table: Table
    paused: bool = False
    late: bool = False
    needs_record: bool = True

    @property
    def key(self) -> str:
        """Two histograms are the same if all but their state is."""
        condition = f" if {self.condition.text}" if self.condition else ""
        return self.spec.spelling + condition

    def matches(self, event: Any, task: Task) -> bool:
        """Does its filter let it count?"""
        return self.condition is None or self.condition.test(event, task)

    def fire(self, file: EventFile, event: Any, task: Task) -> None:
        """Count the event."""
        table, spec = self.table, self.spec
        key = tuple(part.get(event, task) for part in spec.keys)
        row = table.rows.get(key)
        if row is None:
            if len(table.rows) >= table.size:
                table.dropped += 1
                return
            row = table.rows[key] = [0] * (1 + len(spec.values))
            file.instance.tracing.cmdlines.save(task.pid, task.comm)
        table.hits += 1
        row[0] += 1
        for column, value in enumerate(spec.values, start=1):
            row[column] += int(value.get(event, task))

    def text(self) -> str:
        """As the trigger file shows it."""
        return f"{self.key} [{'paused' if self.paused else 'active'}]"

    def removed(self, file: EventFile) -> None:
        """The table goes when its last trigger goes; nothing to do."""


def context_of(file: EventFile) -> Context:
    """What a histogram asks of the machine."""
    instance = file.instance
    return Context(instance.tracing.cmdlines.comm, instance.now)


def spec_of(file: EventFile, argument: str | None) -> Spec:
    """The histogram that a trigger line describes. Raises EINVAL; the mistake is logged."""
    if not argument:
        raise KernelError(EINVAL, "a histogram needs keys")
    try:
        return parse_hist(argument, file.form, context_of(file))
    except HistError as error:
        command = f"hist:{argument}"
        now = file.instance.tracing.kernel.clock.now_ns
        place = max(0, command.find(error.at))
        where = f"hist:{file.form.name}"
        file.instance.errors.add(now, where, command, error.message, place)
        raise


def add_hist(file: EventFile, spec: Spec, condition: Filter | None) -> None:
    """A new histogram, or a command to one that is there. Raises EEXIST, ENOENT, EINVAL."""
    trigger = HistTrigger(spec, condition, Table(spec.size))
    old = next((other for other in hists(file) if other.key == trigger.key), None)
    if old is not None:
        _command(old, spec)
        return
    if spec.command in ("continue", "clear"):
        raise KernelError(ENOENT, "there is no such histogram")
    trigger.paused = spec.command == "pause"
    if spec.name:
        _share_table(file, trigger)
    file.add_trigger(trigger)


def hists(file: EventFile) -> list[HistTrigger]:
    """The histograms on an event, newest first."""
    return [trigger for trigger in file.triggers if isinstance(trigger, HistTrigger)]


def clear_hists(file: EventFile) -> None:
    """Opening the trigger file with O_TRUNC takes the histograms away, nothing else."""
    for trigger in hists(file):
        file.remove_trigger(trigger)


def switch_hists(file: EventFile, on: bool) -> bool:
    """What enable_hist and disable_hist do with the histograms of an event."""
    found = hists(file)
    changed = any(trigger.paused is on for trigger in found)
    for trigger in found:
        trigger.paused = not on
    return changed


def _command(trigger: HistTrigger, spec: Spec) -> None:
    if spec.command == "clear":
        trigger.table.clear()
    elif spec.command:
        trigger.paused = spec.command == "pause"
    else:
        raise KernelError(EEXIST, "there is such a histogram already")


def _share_table(file: EventFile, trigger: HistTrigger) -> None:
    for instance in file.instance.tracing.every_instance():
        for other_file in instance.known_files():
            for other in hists(other_file):
                if other.spec.name != trigger.spec.name:
                    continue
                if _shape(other.spec) != _shape(trigger.spec):
                    raise KernelError(EINVAL, f"histogram {other.spec.name} has other fields")
                trigger.table = other.table
                return


def _shape(spec: Spec) -> tuple[str, ...]:
    return tuple(part.spelling for part in (*spec.keys, *spec.values))

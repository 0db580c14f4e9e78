"""Histograms as triggers: added to events, found again, removed.

Like kernel/trace/trace_events_hist.c:event_hist_trigger_parse, hist_register_trigger,
hist_unregister_trigger (v6.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from errno import EBUSY, EEXIST, EINVAL, ENOENT
from typing import Any

from msgspec import Struct, field

from fakesys.core.errors import KernelError
from fakesys.core.event_format import EventFormat
from fakesys.core.events import Task
from fakesys.subsystems.tracing.events.synthetic import SYNTHETIC
from fakesys.subsystems.tracing.filter.filters import Filter
from fakesys.subsystems.tracing.hist.actions import Action
from fakesys.subsystems.tracing.hist.attributes import refusal
from fakesys.subsystems.tracing.hist.count import count
from fakesys.subsystems.tracing.hist.create import create_actions
from fakesys.subsystems.tracing.hist.histogram import Histogram, Key, Row, Value
from fakesys.subsystems.tracing.hist.variables import Place, Synthetic
from fakesys.subsystems.tracing.instances.event_file import After, EventFile
from fakesys.subsystems.tracing.instances.instance import Instance, Watch

NO_HISTOGRAM = "Can't clear or continue a nonexistent hist trigger"
OTHER_NAMED = "Named hist trigger doesn't match existing named trigger (includes variables)"


class HistTrigger(Struct, eq=False):
    """One histogram on one event; those of the same name share a `Histogram`.

    `serial`: its place in the order in which all were made. `maker`: the trigger for whose sake
    it was made.
    """

    instance: Instance
    file: EventFile
    histogram: Histogram
    name: str
    condition: Filter | None
    serial: int
    paused: bool = False
    maker: HistTrigger | None = None
    late: bool = False
    needs_record: bool = True
    pending: list[tuple[str, list[Value]]] = field(default_factory=list)

    @property
    def key(self) -> str:
        """What identifies the histogram: all of its line but the state."""
        name = f"name={self.name}:" if self.name else ""
        return f"hist:{name}{self.histogram.spelling}{if_part(self.condition)}"

    @property
    def filter_text(self) -> str:
        """Which events it counts; nothing for all."""
        return "" if self.condition is None else self.condition.text

    @property
    def needs_stamp(self) -> bool:
        """Must it have the time of the event?"""
        return self.histogram.timestamps

    def matches(self, event: Any, task: Task) -> bool:
        """Return whether the filter lets the event be counted."""
        return self.condition is None or self.condition.test(event, task)

    def fire(self, event: Any, task: Task, stamp: int) -> After:
        """Count the event; return what makes its synthetic events, if there are any."""
        histogram = self.histogram
        if histogram.usecs and self.instance.in_ns:
            stamp //= 1000
        count(histogram, event, task, stamp, self)
        return self._make_synthetic if self.pending else None

    def text(self) -> str:
        """Return its line in the trigger file, without newline."""
        return f"{self.key} [{'paused' if self.paused else 'active'}]"

    @property
    def line(self) -> str:
        """The line that makes such a histogram."""
        return f"hist:{self.histogram.attributes.text}{if_part(self.condition)}"

    def removed(self) -> None:
        """Let go of what its actions use, unless others share its histogram."""
        release_event(self)
        if not any(other.histogram is self.histogram for other in all_hists(self.instance)):
            release(self.instance, self.histogram)

    def trace(self, name: str, values: list[Value]) -> None:
        """Make a synthetic event, once the event that causes it is recorded."""
        self.pending.append((name, values))

    def snapshot(self, histogram: Histogram, action: Action, key: Key, row: Row) -> None:
        """Take a snapshot of the instance if the value is news for all keys."""
        watch = self.instance.watch
        value = row.variables[action.kept]
        assert watch is not None
        assert isinstance(value, int)
        if action.is_news(value, watch.value):
            watch.value, watch.key, watch.comm, watch.updated = value, key, row.comm, True
            self.instance.swap_snapshot()

    def _make_synthetic(self) -> None:
        made, self.pending = self.pending, []
        for name, values in made:
            self.instance.owner.synthetic.emit(name, values)


class HistPlace:
    """The instance and the event on which a line puts a histogram: its `Place`.

    `command`: the text after `hist:` that is logged; `made`: triggers on other events, made for
    the sake of this one.
    """

    def __init__(
        self,
        instance: Instance,
        file: EventFile,
        command: str,
        count_too: Callable[[EventFormat, str], None],
        *,
        removing: bool,
    ) -> None:
        self.removing = removing
        self.count_too = count_too
        self._instance = instance
        self._command = f"hist:{command}"
        self._where = f"hist:{file.form.name}"

    @property
    def has_stack_field(self) -> bool:
        """Is `common_stacktrace` the name of the call chain (6.3)?"""
        return self._instance.shared.build.function_filters

    def log(self, message: str, at: str | None) -> None:
        """Append a mistake to `error_log`."""
        self._instance.log_mistake(self._where, self._command, message, at)

    def find(self, system: str, event: str) -> EventFormat | None:
        """Return an event; system `ftrace` is searched too."""
        return self._instance.shared.catalog.by_name.get(f"{system}:{event}")

    def on_event(self, form: EventFormat) -> list[HistTrigger]:
        """Return the histograms on an event, in their order."""
        return hists(self._instance.file(form))

    def with_variables(self) -> list[Histogram]:
        """Return the histograms of the instance that have variables, newest first."""
        found = [
            trigger
            for file in self._instance.known_files()
            for trigger in hists(file)
            if trigger.histogram.uses_variables
        ]
        found.sort(key=lambda trigger: -trigger.serial)
        return [trigger.histogram for trigger in found]

    def synthetic(self, name: str) -> Synthetic | None:
        """Return a synthetic event."""
        return self._instance.owner.synthetic.find(name)

    def watch_snapshot(self, histogram: Histogram) -> None:
        """Let the histogram take snapshots of the instance. Raises EBUSY."""
        self._instance.buffers.allot_snapshot()
        if self._instance.watch is not None:
            raise KernelError(EBUSY, "another histogram takes the snapshots")
        self._instance.watch = Watch(histogram)


def if_part(condition: Filter | None) -> str:
    """Return the end of a trigger line: ` if FILTER` or nothing."""
    return f" if {condition.text}" if condition else ""


def hists(file: EventFile) -> list[HistTrigger]:
    """Return the histograms on an event, oldest first."""
    return [trigger for trigger in file.triggers if isinstance(trigger, HistTrigger)]


def all_hists(instance: Instance) -> Iterator[HistTrigger]:
    """Return the histograms of all instances."""
    for each in instance.owner.every_instance():
        for file in each.known_files():
            yield from hists(file)


def update_only(file: EventFile, histogram: Histogram, condition: Filter | None) -> bool:
    """Pause, continue or clear a histogram that is there; return False if there is none."""
    command = histogram.attributes.command
    old = find_equal(file, histogram, condition) if command else None
    if old is None:
        return False
    if command == "clear":
        old.histogram.clear()
    else:
        old.paused = command == "pause"
    return True


def find_equal(
    file: EventFile, histogram: Histogram, condition: Filter | None
) -> HistTrigger | None:
    """Return the histogram on an event that equals a parsed one, filter and all."""
    wanted = histogram.attributes.name, if_part(condition), histogram.shape
    for old in hists(file):
        if (old.name, if_part(old.condition), old.histogram.shape) == wanted:
            return old
    return None


def register(
    instance: Instance,
    file: EventFile,
    histogram: Histogram,
    condition: Filter | None,
    place: Place,
) -> HistTrigger:
    """Add a histogram whose actions are made.

    Raises EEXIST for a second equal one, ENOENT for a command without one, EINVAL for a shared
    name with other fields or an unknown clock.
    """
    attributes = histogram.attributes
    named = _named(instance, attributes.name)
    if named is not None and named.shape != histogram.shape:
        raise refusal(place.log, OTHER_NAMED, f"name={attributes.name}")
    if (named is not None or not attributes.name) and find_equal(file, histogram, condition):
        raise refusal(place.log, "Hist trigger already exists", None, EEXIST)
    if attributes.command in ("cont", "clear"):
        raise refusal(place.log, NO_HISTOGRAM, None, ENOENT)
    if histogram.timestamps:
        _set_clock(instance, attributes.clock, place)
    owner = instance.owner
    trigger = HistTrigger(
        instance,
        file,
        histogram if named is None else named,
        attributes.name,
        condition,
        owner.next_serial(),
        attributes.command == "pause",
    )
    file.add_trigger(trigger, last=True)
    if file.form.system == SYNTHETIC:
        owner.synthetic.users[file.form.event] += 1
    if named is not None:
        release(instance, histogram)
    return trigger


def make_actions(instance: Instance, histogram: Histogram, place: Place) -> None:
    """Make the actions of a histogram, and count who uses which synthetic event.

    Raises as `create_actions`; what was made is given back then.
    """
    try:
        create_actions(histogram, place)
    except KernelError:
        for action in histogram.actions:
            action.synthetic = ""
        raise
    finally:
        for action in histogram.actions:
            if action.synthetic:
                instance.owner.synthetic.users[action.synthetic] += 1


def release(instance: Instance, histogram: Histogram) -> None:
    """Let go of the synthetic events and the snapshot that the actions of a histogram use."""
    for action in histogram.actions:
        if action.synthetic:
            instance.owner.synthetic.users[action.synthetic] -= 1
    for each in instance.owner.every_instance():
        if each.watch is not None and each.watch.histogram is histogram:
            each.watch = None


def release_event(trigger: HistTrigger) -> None:
    """Let go of the synthetic event that a histogram counts."""
    form = trigger.file.form
    if form.system == SYNTHETIC:
        trigger.instance.owner.synthetic.users[form.event] -= 1


def is_referred(trigger: HistTrigger) -> bool:
    """Return whether another histogram of the instance refers to its variables."""
    for file in trigger.instance.known_files():
        for other in hists(file):
            histogram = other.histogram
            if histogram is not trigger.histogram and histogram.refers_to(trigger.histogram):
                return True
    return False


def switch_hists(file: EventFile, on: bool) -> bool:
    """Continue or pause the histograms of an event; return whether that changed any."""
    found = hists(file)
    changed = any(trigger.paused is on for trigger in found)
    for trigger in found:
        trigger.paused = not on
    return changed


def _named(instance: Instance, name: str) -> Histogram | None:
    """Return the histogram that all of a name share, in any instance."""
    if not name:
        return None
    return next((each.histogram for each in all_hists(instance) if each.name == name), None)


def _set_clock(instance: Instance, clock: str, place: Place) -> None:
    try:
        instance.set_clock(clock)
    except KernelError as error:
        raise refusal(place.log, "Couldn't set trace_clock", clock, error.errno or EINVAL) from None

"""Triggers: what an event switches, counts or records besides itself.

Like kernel/trace/trace_events_trigger.c (v6.1). A line is `NAME[:ARGUMENT][:COUNT] [if FILTER]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from errno import EEXIST, EINVAL
from typing import TYPE_CHECKING, Any, Protocol

from fakesys.core.errors import KernelError
from fakesys.core.events import Task
from fakesys.core.text import kstrtoull
from fakesys.subsystems.tracing.events import EventFile
from fakesys.subsystems.tracing.filters import Filter, FilterError, compile_filter
from fakesys.subsystems.tracing.hist_trigger import (
    HistTrigger,
    Table,
    add_hist,
    spec_of,
    switch_hists,
)
from fakesys.subsystems.tracing.trace import MARKER_STACK, STACK, stack_of

if TYPE_CHECKING:
    from fakesys.subsystems.tracing.instance import Instance

UNLIMITED = -1


class Trigger(Protocol):
    """What sits on an event file."""

    paused: bool

    @property
    def key(self) -> str:
        """Two triggers of one key exclude each other; removal goes by key too."""

    @property
    def late(self) -> bool:
        """Does it fire after the event is recorded?"""

    @property
    def needs_record(self) -> bool:
        """Must the event have its place in the buffer before the trigger looks at it?"""

    def matches(self, event: Any, task: Task) -> bool:
        """Does its filter let it fire?"""

    def fire(self, file: EventFile, event: Any, task: Task) -> None:
        """Do it."""

    def text(self) -> str:
        """Its line in the trigger file, without newline."""

    def removed(self, file: EventFile) -> None:
        """It is taken off the event."""


# Does the work; the answer is whether something changed, which is what a count counts.
Action = Callable[[EventFile, Task], bool]


@dataclass(slots=True, eq=False)
class SwitchTrigger:
    """A trigger without memory but its count."""

    key: str
    name: str
    action: Action
    count: int
    condition: Filter | None
    late: bool = False
    target: EventFile | None = None
    paused: bool = False

    @property
    def needs_record(self) -> bool:
        """Filters and late triggers look at the record."""
        return self.late or self.condition is not None

    def matches(self, event: Any, task: Task) -> bool:
        """Does its filter let it fire?"""
        return self.condition is None or self.condition.test(event, task)

    def fire(self, file: EventFile, event: Any, task: Task) -> None:
        """Act, unless the count is used up."""
        if self.count != 0 and self.action(file, task) and self.count > 0:
            self.count -= 1

    def text(self) -> str:
        """As the trigger file shows it."""
        left = "unlimited" if self.count == UNLIMITED else f"count={self.count}"
        condition = f" if {self.condition.text}" if self.condition else ""
        return f"{self.name}:{left}{condition}"

    def removed(self, file: EventFile) -> None:
        """Give the soft switch back."""
        if self.target is not None:
            self.target.disarm()


@dataclass(frozen=True, slots=True)
class Line:
    """A trigger line in its parts; texts are stripped."""

    name: str
    argument: str | None
    condition: str | None
    remove: bool


_LINE = re.compile(r"(!?)([^:\s]+)(?::(\S*))?(?:\s+if(?:\s+(.*))?)?", re.DOTALL)


def parse_line(text: str) -> Line:
    """The parts of a trigger line. Raises EINVAL."""
    found = _LINE.fullmatch(text.strip())
    if found is None:
        raise KernelError(EINVAL, f"{text!r} is not NAME[:ARGUMENT][:COUNT] [if FILTER]")
    # "if" with nothing after it is an error, and so is an "if" that is missing.
    has_if = re.search(r"\sif(\s|$)", text.strip()) is not None
    if has_if and not found[4]:
        raise KernelError(EINVAL, f"{text!r} has no filter after if")
    return Line(found[2], found[3], found[4], remove=bool(found[1]))


def available(snapshot: bool, hist: bool) -> str:
    """What a trigger file shows while it has no trigger."""
    names = ["traceon", "traceoff"]
    names += ["snapshot"] if snapshot else []
    names += ["stacktrace", "enable_event", "disable_event"]
    names += ["enable_hist", "disable_hist", "hist"] if hist else []
    return f"# Available triggers:\n# {' '.join(names)}\n"


def show_triggers(file: EventFile) -> str:
    """The text of a trigger file."""
    build = file.instance.tracing.build
    if not file.triggers:
        return available(build.snapshot, build.hist)
    return "".join(f"{trigger.text()}\n" for trigger in file.triggers)


def write_trigger(file: EventFile, text: str) -> None:
    """One line written to a trigger file. Raises EINVAL, EEXIST, and what a filter raises."""
    line = parse_line(text)
    make = _makers(file.instance).get(line.name)
    if make is None:
        raise KernelError(EINVAL, f"there is no trigger {line.name!r}")
    make(file, line, text)


def trigger_of(file: EventFile, key: str) -> Trigger | None:
    """The trigger of this key on the event."""
    return next((trigger for trigger in file.triggers if trigger.key == key), None)


def add(file: EventFile, trigger: Trigger) -> None:
    """Put a trigger on the event. Raises EEXIST for a second one of its key."""
    if trigger_of(file, trigger.key) is not None:
        raise KernelError(EEXIST, f"{file.form.name} has a trigger of this kind already")
    file.add_trigger(trigger)


def remove(file: EventFile, key: str) -> bool:
    """Take the trigger of this key off the event; was there one?"""
    trigger = trigger_of(file, key)
    if trigger is None:
        return False
    file.remove_trigger(trigger)
    trigger.removed(file)
    return True


def condition_of(file: EventFile, line: Line) -> Filter | None:
    """The compiled filter of a line. Raises FilterError, which is logged."""
    if line.condition is None:
        return None
    try:
        return compile_filter(line.condition, file.form)
    except FilterError as error:
        file.instance.log_filter_error(line.condition, error)
        # Unlike a filter file, the trigger file answers EINVAL for all of them.
        raise KernelError(EINVAL, str(error)) from error


Maker = Callable[[EventFile, Line, str], None]


def _makers(instance: Instance) -> dict[str, Maker]:
    build = instance.tracing.build
    makers: dict[str, Maker] = {
        "traceon": _simple("traceonoff", _switch_on),
        "traceoff": _simple("traceonoff", _switch_off),
        "stacktrace": _simple("stacktrace", _stack, late=True),
        "enable_event": _event_switch(on=True),
        "disable_event": _event_switch(on=False),
    }
    if build.snapshot:
        makers["snapshot"] = _simple("snapshot", _take_snapshot, prepare=_allot_snapshot)
    if build.hist:
        makers["hist"] = _make_hist
        makers["enable_hist"] = _hist_switch(on=True)
        makers["disable_hist"] = _hist_switch(on=False)
    return makers


def _make_hist(file: EventFile, line: Line, text: str) -> None:
    spec = spec_of(file, line.argument)
    condition = condition_of(file, line)
    if line.remove:
        remove(file, HistTrigger(spec, condition, Table(0)).key)
        return
    add_hist(file, spec, condition)


def _hist_switch(*, on: bool) -> Maker:
    def make(file: EventFile, line: Line, text: str) -> None:
        target, count_text = _target(file, line)
        key = f"hist {target.form.name}"
        if line.remove:
            remove(file, key)
            return

        def switch(_file: EventFile, _task: Task) -> bool:
            return switch_hists(target, on)

        name = f"{line.name}:{target.form.name}"
        count, condition = _count(count_text), condition_of(file, line)
        add(file, SwitchTrigger(key, name, switch, count, condition))

    return make


def _simple(
    key: str,
    action: Action,
    *,
    late: bool = False,
    prepare: Callable[[Instance], object] | None = None,
) -> Maker:
    def make(file: EventFile, line: Line, text: str) -> None:
        if line.remove:
            remove(file, key)
            return
        # The count is read before the old trigger is looked for only in newer kernels.
        if trigger_of(file, key) is not None:
            raise KernelError(EEXIST, f"{file.form.name} has a trigger {key} already")
        count = _count(line.argument)
        condition = condition_of(file, line)
        if prepare is not None:
            prepare(file.instance)
        add(file, SwitchTrigger(key, line.name, action, count, condition, late))

    return make


def _event_switch(*, on: bool) -> Maker:
    def make(file: EventFile, line: Line, text: str) -> None:
        target, count_text = _target(file, line)
        key = f"event {target.form.name}"
        if line.remove:
            remove(file, key)
            return
        if trigger_of(file, key) is not None:
            raise KernelError(EEXIST, f"{target.form.name} is switched by a trigger already")
        count = _count(count_text)
        condition = condition_of(file, line)

        def switch(_file: EventFile, _task: Task) -> bool:
            if target.soft_disabled is not on:
                return False
            target.soft_switch(on)
            return True

        name = f"{line.name}:{target.form.name}"
        target.arm()
        add(file, SwitchTrigger(key, name, switch, count, condition, target=target))

    return make


def _target(file: EventFile, line: Line) -> tuple[EventFile, str | None]:
    parts = (line.argument or "").split(":", 2)
    if len(parts) < 2:
        raise KernelError(EINVAL, f"{line.name} needs SYSTEM:EVENT")
    instance = file.instance
    form = instance.tracing.find(parts[0], parts[1])
    return instance.file(form), parts[2] if len(parts) == 3 else None


def _count(text: str | None) -> int:
    if not text:
        return UNLIMITED
    try:
        return kstrtoull(text)
    except KernelError as error:
        raise KernelError(EINVAL, f"{text!r} is no count") from error


def _switch_on(file: EventFile, _task: Task) -> bool:
    return _switch(file.instance, on=True)


def _switch_off(file: EventFile, _task: Task) -> bool:
    return _switch(file.instance, on=False)


def _switch(instance: Instance, *, on: bool) -> bool:
    if instance.on is on:
        return False
    instance.switch(on)
    return True


def _stack(file: EventFile, task: Task) -> bool:
    instance = file.instance
    marker = file.form is instance.tracing.print
    stack = stack_of(MARKER_STACK if marker else STACK)
    instance.record(instance.tracing.stack, stack, task)
    return True


def _allot_snapshot(instance: Instance) -> None:
    instance.allot_snapshot()


def _take_snapshot(file: EventFile, _task: Task) -> bool:
    file.instance.swap_snapshot()
    return True

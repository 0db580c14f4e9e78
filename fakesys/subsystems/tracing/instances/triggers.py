"""Triggers: what an event switches, counts or records besides itself.

Like kernel/trace/trace_events_trigger.c (v6.1). A line is `NAME[:ARGUMENT][:COUNT] [if FILTER]`.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EEXIST, EINVAL
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from fakesys.core.errors import KernelError
from fakesys.core.events import Task
from fakesys.core.text import kstrtoull
from fakesys.subsystems.tracing.events.ftrace import MARKER_STACK, STACK, stack_of
from fakesys.subsystems.tracing.filter.filters import Filter, FilterError, compile_filter
from fakesys.subsystems.tracing.instances.event_file import EventFile
from fakesys.subsystems.tracing.instances.hist_trigger import (
    HistTrigger,
    Table,
    add_hist,
    spec_of,
    switch_hists,
)

if TYPE_CHECKING:
    from fakesys.subsystems.tracing.instances.instance import Instance

UNLIMITED = -1
_BLANKS = " \t\n\v\f\r"


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


class SwitchTrigger(Struct, eq=False):
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
        if self.count != 0 and self.action(file, task) and self.count != UNLIMITED:
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


class Line(Struct, frozen=True):
    """A trigger line: its name, what stands behind it, and whether it begins with `!`."""

    name: str
    rest: str | None
    remove: bool


def parse_line(text: str) -> Line:
    """The parts of a trigger line. Like trace_events_trigger.c:trigger_process_regex."""
    body = text.strip(_BLANKS)
    name, _, rest = _cut(body, ": \t")
    return Line(name.removeprefix("!"), rest.lstrip(_BLANKS) or None, body.startswith("!"))


def _cut(text: str, separators: str) -> tuple[str, bool, str]:
    """Before the first of the separators, was there one, and behind it: strsep()."""
    place = min((at for at in map(text.find, separators) if at >= 0), default=-1)
    return (text, False, "") if place < 0 else (text[:place], True, text[place + 1 :])


def _argument_and_condition(rest: str | None, *, needed: bool) -> tuple[str | None, str | None]:
    """ARGUMENT and `if FILTER`. An argument that is not needed begins with a digit.

    Like trace_events_trigger.c:event_trigger_separate_filter. Raises EINVAL.
    """
    if rest is None:
        if needed:
            raise KernelError(EINVAL, "the trigger needs SYSTEM:EVENT")
        return None, None
    if not needed and not (rest[0].isascii() and rest[0].isdigit()):
        return None, rest
    argument, _, condition = _cut(rest, " \t")
    return argument, condition.lstrip(_BLANKS) or None


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
    make(file, line)


def trigger_of(file: EventFile, key: str) -> Trigger | None:
    """The trigger of this key on the event."""
    return next((trigger for trigger in file.triggers if trigger.key == key), None)


def add(file: EventFile, trigger: Trigger) -> None:
    """Put a trigger on the event. Raises EEXIST for a second one of its key."""
    _refuse_second(file, trigger.key)
    file.add_trigger(trigger)


def _refuse_second(file: EventFile, key: str) -> None:
    if trigger_of(file, key) is not None:
        raise KernelError(EEXIST, f"{file.form.name} has a trigger {key} already")


def remove(file: EventFile, key: str) -> bool:
    """Take the trigger of this key off the event; was there one?"""
    trigger = trigger_of(file, key)
    if trigger is None:
        return False
    file.remove_trigger(trigger)
    trigger.removed(file)
    return True


def condition_of(file: EventFile, text: str | None) -> Filter | None:
    """The compiled filter behind `if`. Raises EINVAL, and FilterError, which is logged."""
    if text is None:
        return None
    word, more, body = _cut(text, " \t")
    if word != "if" or not more:
        raise KernelError(EINVAL, f"{text!r} is not `if FILTER`")
    try:
        return compile_filter(body, file.form, file.instance.tracing.dialect)
    except FilterError as error:
        file.instance.log_filter_error(body, error)
        raise


Maker = Callable[[EventFile, Line], None]


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


def _make_hist(file: EventFile, line: Line) -> None:
    argument, condition_text = _hist_and_condition(line.rest)
    spec = spec_of(file, argument)
    condition = condition_of(file, condition_text)
    if line.remove:
        remove(file, HistTrigger(spec, condition, Table(0)).key)
        return
    add_hist(file, spec, condition)


def _hist_and_condition(rest: str | None) -> tuple[str | None, str | None]:
    """The histogram and `if FILTER`: the word `if` divides them, so blanks may stand before it.

    Like trace_events_hist.c:event_hist_trigger_parse (v6.1). Raises EINVAL.
    """
    if rest is None:
        return None, None
    if rest.startswith("if"):
        raise KernelError(EINVAL, "there is no histogram before if")
    place = rest.find("if", 1)
    while place >= 0:
        behind = rest[place + 2 : place + 3]
        if rest[place - 1] in " \t":
            if len(rest) - place <= len("if "):
                raise KernelError(EINVAL, "there is no filter after if")
            if behind in " \t":
                return rest[: place - 1].strip(_BLANKS), rest[place:].strip(_BLANKS)
        place = rest.find("if", place + 1)
    return rest, None


def _hist_switch(*, on: bool) -> Maker:
    def make(file: EventFile, line: Line) -> None:
        target, count_text, condition_text = _target(file, line)
        key = f"hist {target.form.name}"
        if line.remove:
            remove(file, key)
            return

        def switch(_file: EventFile, _task: Task) -> bool:
            return switch_hists(target, on)

        name = f"{line.name}:{target.form.name}"
        count, condition = _count(count_text), condition_of(file, condition_text)
        add(file, SwitchTrigger(key, name, switch, count, condition))

    return make


def _simple(
    key: str,
    action: Action,
    *,
    late: bool = False,
    prepare: Callable[[Instance], object] | None = None,
) -> Maker:
    def make(file: EventFile, line: Line) -> None:
        if line.remove:
            remove(file, key)
            return
        argument, condition_text = _argument_and_condition(line.rest, needed=False)
        count, condition = _count(argument), condition_of(file, condition_text)
        _refuse_second(file, key)
        if prepare is not None:
            prepare(file.instance)
        add(file, SwitchTrigger(key, line.name, action, count, condition, late))

    return make


def _event_switch(*, on: bool) -> Maker:
    def make(file: EventFile, line: Line) -> None:
        target, count_text, condition_text = _target(file, line)
        key = f"event {target.form.name}"
        if line.remove:
            remove(file, key)
            return
        count, condition = _count(count_text), condition_of(file, condition_text)
        _refuse_second(file, key)

        def switch(_file: EventFile, _task: Task) -> bool:
            if target.soft_disabled is not on:
                return False
            target.soft_switch(on)
            return True

        name = f"{line.name}:{target.form.name}"
        target.arm()
        add(file, SwitchTrigger(key, name, switch, count, condition, target=target))

    return make


def _target(file: EventFile, line: Line) -> tuple[EventFile, str | None, str | None]:
    """Which event a line switches, how often, and `if FILTER`. Raises EINVAL."""
    argument, condition = _argument_and_condition(line.rest, needed=True)
    system, _, rest = (argument or "").partition(":")
    event, counted, count = rest.partition(":")
    instance = file.instance
    target = instance.file(instance.tracing.find(system, event))
    return target, count if counted else None, condition


def _count(text: str | None) -> int:
    """How often a trigger fires. A signed number of 64 bits: -1, the largest, means for ever."""
    if text is None:
        return UNLIMITED
    value = kstrtoull(text.partition(":")[0])
    return value - (1 << 64) if value >> 63 else value


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

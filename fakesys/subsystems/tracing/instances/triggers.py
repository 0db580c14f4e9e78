"""Triggers: what an event switches, counts or records besides itself.

Like kernel/trace/trace_events_trigger.c (v6.1). A line is `NAME[:ARGUMENT][:COUNT] [if FILTER]`,
with `!` before it to remove the trigger:

    traceoff:1 if port == 0x80
    enable_event:kvm:kvm_exit:5
    !stacktrace
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EEXIST, EINVAL
from functools import partial
from typing import Any

from msgspec import Struct

from fakesys.core.errors import KernelError
from fakesys.core.events import Task
from fakesys.core.text import kstrtoull
from fakesys.subsystems.tracing.base.policy import Build
from fakesys.subsystems.tracing.filter.dialect import FilterError
from fakesys.subsystems.tracing.filter.filters import Filter, compile_filter
from fakesys.subsystems.tracing.instances.event_file import EventFile, Trigger
from fakesys.subsystems.tracing.instances.hist_trigger import (
    add_hist,
    hist_key,
    if_part,
    parse_spec,
    switch_hists,
)
from fakesys.subsystems.tracing.instances.instance import Instance

UNLIMITED = -1
_BLANKS = " \t\n\v\f\r"

# What a trigger does; the result says whether anything changed, for only that is counted.
Action = Callable[[Task], bool]
# The same, not yet bound to the event that the trigger is on.
InstanceAction = Callable[[Instance, EventFile, Task], bool]


class SwitchTrigger(Struct, eq=False):
    """A trigger whose only state is its count. `target`: the event that it switches, armed."""

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
        """Does it look at the record? Filters and late triggers do."""
        return self.late or self.condition is not None

    def matches(self, event: Any, task: Task) -> bool:
        """Return whether its filter lets it fire."""
        return self.condition is None or self.condition.test(event, task)

    def fire(self, event: Any, task: Task) -> None:
        """Act, unless the count is used up; what changes nothing is not counted."""
        if self.count != 0 and self.action(task) and self.count != UNLIMITED:
            self.count -= 1

    def text(self) -> str:
        """Return its line in the trigger file, without newline."""
        left = "unlimited" if self.count == UNLIMITED else f"count={self.count}"
        return f"{self.name}:{left}{if_part(self.condition)}"

    @property
    def line(self) -> str:
        """The line that makes such a trigger, without a count."""
        return f"{self.name}{if_part(self.condition)}"

    def removed(self) -> None:
        """Disarm the event that it switches."""
        if self.target is not None:
            self.target.disarm()


class TriggerLine(Struct, frozen=True):
    """A trigger line: its name, the rest, and whether it begins with `!`."""

    name: str
    rest: str | None
    remove: bool


Maker = Callable[[Instance, EventFile, TriggerLine], None]


def parse_line(text: str) -> TriggerLine:
    """Split a trigger line. Like trace_events_trigger.c:trigger_process_regex."""
    body = text.strip(_BLANKS)
    name, _, rest = _cut(body, ": \t")
    return TriggerLine(name.removeprefix("!"), rest.lstrip(_BLANKS) or None, body.startswith("!"))


def _cut(text: str, separators: str) -> tuple[str, bool, str]:
    """Return what is before the first separator, whether there is one, and the rest: strsep()."""
    place = min((at for at in map(text.find, separators) if at >= 0), default=-1)
    return (text, False, "") if place < 0 else (text[:place], True, text[place + 1 :])


def _argument_and_condition(rest: str | None, *, needed: bool) -> tuple[str | None, str | None]:
    """Return ARGUMENT and `if FILTER`. An argument that is not needed begins with a digit.

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


def available(build: Build) -> str:
    """Return what a trigger file shows while it has no trigger."""
    names = ["traceon", "traceoff"]
    names += ["snapshot"] if build.snapshot else []
    names += ["stacktrace", "enable_event", "disable_event"]
    names += ["enable_hist", "disable_hist", "hist"] if build.hist else []
    return f"# Available triggers:\n# {' '.join(names)}\n"


def show_triggers(build: Build, file: EventFile) -> str:
    """Return the text of a trigger file."""
    if not file.triggers:
        return available(build)
    return "".join(f"{trigger.text()}\n" for trigger in file.triggers)


def write_trigger(instance: Instance, file: EventFile, text: str) -> None:
    """Obey one line written to a trigger file.

    Raises EINVAL for an unknown trigger or a wrong argument, EEXIST for a second trigger of a
    kind, and FilterError.
    """
    line = parse_line(text)
    make = _makers(instance.shared.build).get(line.name)
    if make is None:
        raise KernelError(EINVAL, f"there is no trigger {line.name!r}")
    make(instance, file, line)


def _trigger_of(file: EventFile, key: str) -> Trigger | None:
    return next((trigger for trigger in file.triggers if trigger.key == key), None)


def _add(file: EventFile, trigger: Trigger) -> None:
    _refuse_second(file, trigger.key)
    file.add_trigger(trigger)


def _refuse_second(file: EventFile, key: str) -> None:
    if _trigger_of(file, key) is not None:
        raise KernelError(EEXIST, f"{file.form.name} has a trigger {key} already")


def _remove(file: EventFile, key: str) -> None:
    """Remove the trigger of this key, if the event has it."""
    trigger = _trigger_of(file, key)
    if trigger is not None:
        file.remove_trigger(trigger)
        trigger.removed()


def _compile_condition(instance: Instance, file: EventFile, text: str | None) -> Filter | None:
    """Compile the filter after `if`. Raises EINVAL, and FilterError, which is logged."""
    if text is None:
        return None
    word, more, body = _cut(text, " \t")
    if word != "if" or not more:
        raise KernelError(EINVAL, f"{text!r} is not `if FILTER`")
    try:
        return compile_filter(body, file.form, instance.dialect)
    except FilterError as error:
        instance.log_filter_error(body, error)
        raise


def _makers(build: Build) -> dict[str, Maker]:
    makers: dict[str, Maker] = {
        "traceon": _simple("traceonoff", _trace_on),
        "traceoff": _simple("traceonoff", _trace_off),
        "stacktrace": _simple("stacktrace", _record_stack, late=True),
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


def _make_hist(instance: Instance, file: EventFile, line: TriggerLine) -> None:
    argument, condition_text = _hist_and_condition(line.rest)
    spec = parse_spec(instance, file, argument)
    condition = _compile_condition(instance, file, condition_text)
    if line.remove:
        _remove(file, hist_key(spec, condition))
        return
    add_hist(instance, file, spec, condition)


def _hist_and_condition(rest: str | None) -> tuple[str | None, str | None]:
    """Return the histogram and `if FILTER`; the word `if` divides them, so blanks may precede it.

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


def _simple(
    key: str,
    action: InstanceAction,
    *,
    late: bool = False,
    prepare: Callable[[Instance], None] | None = None,
) -> Maker:
    def make(instance: Instance, file: EventFile, line: TriggerLine) -> None:
        if line.remove:
            _remove(file, key)
            return
        argument, condition_text = _argument_and_condition(line.rest, needed=False)
        count = _count(argument)
        condition = _compile_condition(instance, file, condition_text)
        _refuse_second(file, key)
        if prepare is not None:
            prepare(instance)
        act = partial(action, instance, file)
        _add(file, SwitchTrigger(key, line.name, act, count, condition, late))

    return make


def _event_switch(*, on: bool) -> Maker:
    def make(instance: Instance, file: EventFile, line: TriggerLine) -> None:
        target, count_text, condition_text = _target(instance, line)
        key = f"event {target.form.name}"
        if line.remove:
            _remove(file, key)
            return
        count = _count(count_text)
        condition = _compile_condition(instance, file, condition_text)
        _refuse_second(file, key)

        def switch(_task: Task) -> bool:
            if target.soft_disabled is not on:
                return False
            target.soft_switch(on)
            return True

        name = f"{line.name}:{target.form.name}"
        target.arm()
        _add(file, SwitchTrigger(key, name, switch, count, condition, target=target))

    return make


def _hist_switch(*, on: bool) -> Maker:
    def make(instance: Instance, file: EventFile, line: TriggerLine) -> None:
        target, count_text, condition_text = _target(instance, line)
        key = f"hist {target.form.name}"
        if line.remove:
            _remove(file, key)
            return

        def switch(_task: Task) -> bool:
            return switch_hists(target, on)

        name = f"{line.name}:{target.form.name}"
        count = _count(count_text)
        condition = _compile_condition(instance, file, condition_text)
        _add(file, SwitchTrigger(key, name, switch, count, condition))

    return make


def _target(instance: Instance, line: TriggerLine) -> tuple[EventFile, str | None, str | None]:
    """Return the event that a line switches, COUNT, and `if FILTER`. Raises EINVAL."""
    argument, condition = _argument_and_condition(line.rest, needed=True)
    system, _, rest = (argument or "").partition(":")
    event, counted, count = rest.partition(":")
    target = instance.file(instance.shared.catalog.find(system, event))
    return target, count if counted else None, condition


def _count(text: str | None) -> int:
    """Parse how often a trigger fires: a signed number of 64 bits, of which -1 means unlimited."""
    if text is None:
        return UNLIMITED
    value = kstrtoull(text.partition(":")[0])
    return value - (1 << 64) if value >> 63 else value


def _trace_on(instance: Instance, _file: EventFile, _task: Task) -> bool:
    return _switch(instance, on=True)


def _trace_off(instance: Instance, _file: EventFile, _task: Task) -> bool:
    return _switch(instance, on=False)


def _switch(instance: Instance, *, on: bool) -> bool:
    if instance.on is on:
        return False
    instance.switch(on)
    return True


def _record_stack(instance: Instance, file: EventFile, task: Task) -> bool:
    instance.record_stack(file.form, task)
    return True


def _allot_snapshot(instance: Instance) -> None:
    instance.buffers.allot_snapshot()


def _take_snapshot(instance: Instance, _file: EventFile, _task: Task) -> bool:
    instance.swap_snapshot()
    return True

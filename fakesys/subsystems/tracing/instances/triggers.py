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
from fakesys.subsystems.tracing.filter.filters import Filter
from fakesys.subsystems.tracing.instances.event_file import After, EventFile, Trigger
from fakesys.subsystems.tracing.instances.hist_command import (
    BLANKS,
    clear_hists,
    compile_condition,
    cut,
    obey_hist,
)
from fakesys.subsystems.tracing.instances.hist_trigger import if_part, switch_hists
from fakesys.subsystems.tracing.instances.instance import Instance

UNLIMITED = -1

# What a trigger does; the result says whether anything changed, for only that is counted.
Action = Callable[[Task], bool]
# The same, not yet bound to the event that the trigger is on.
InstanceAction = Callable[[Instance, EventFile, Task], bool]


class SwitchTrigger(Struct, eq=False):
    """A trigger whose only state is its count.

    `target`: the event that it switches, armed. `switches_hists`: of another event.
    """

    key: str
    name: str
    action: Action
    count: int
    condition: Filter | None
    late: bool = False
    target: EventFile | None = None
    paused: bool = False
    switches_hists: bool = False
    needs_stamp: bool = False

    @property
    def needs_record(self) -> bool:
        """Does it look at the record? Filters and late triggers do."""
        return self.late or self.condition is not None

    def matches(self, event: Any, task: Task) -> bool:
        """Return whether its filter lets it fire."""
        return self.condition is None or self.condition.test(event, task)

    def fire(self, event: Any, task: Task, stamp: int) -> After:
        """Act, unless the count is used up; what changes nothing is not counted."""
        if self.count != 0 and self.action(task) and self.count != UNLIMITED:
            self.count -= 1
        return None

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
    body = text.strip(BLANKS)
    name, _, rest = cut(body, ": \t")
    return TriggerLine(name.removeprefix("!"), rest.lstrip(BLANKS) or None, body.startswith("!"))


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
    argument, _, condition = cut(rest, " \t")
    return argument, condition.lstrip(BLANKS) or None


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


def truncate_triggers(file: EventFile) -> None:
    """Remove histograms and what switches those of other events, but no other trigger.

    Opening `trigger` with O_TRUNC does this.
    """
    clear_hists(file)
    for trigger in file.triggers:
        if isinstance(trigger, SwitchTrigger) and trigger.switches_hists:
            file.remove_trigger(trigger)


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
    obey_hist(instance, file, line.rest, remove=line.remove)


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
        condition = compile_condition(instance, file, condition_text)
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
        condition = compile_condition(instance, file, condition_text)
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
        condition = compile_condition(instance, file, condition_text)
        made = SwitchTrigger(key, name, switch, count, condition, switches_hists=True)
        _add(file, made)

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
    if instance.watch is not None:
        return False
    instance.swap_snapshot()
    return True

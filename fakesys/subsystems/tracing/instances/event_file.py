"""One event in one instance: is it on, softly off, filtered, and which triggers sit on it.

Like kernel/trace/trace_events.c:__ftrace_event_enable_disable and
trace_events_trigger.c:event_triggers_call (v6.1).
"""

from __future__ import annotations

from errno import EINVAL
from typing import TYPE_CHECKING, Any

from fakesys.core.event_format import EventFormat
from fakesys.core.events import Task
from fakesys.subsystems.tracing.filter.filters import Filter, FilterError, compile_filter

if TYPE_CHECKING:
    from fakesys.subsystems.tracing.instances.instance import Instance
    from fakesys.subsystems.tracing.instances.triggers import Trigger

NO_FILTER = "none"
BAD_SYSTEM_FILTER = "Couldn't find or set field in one of a subsystem's events"
NO_EXPRESSION = "Error"


class EventFile:
    """The state behind one directory `events/SYS/EV` of one instance."""

    __slots__ = (
        "enabled",
        "filter",
        "filter_text",
        "form",
        "instance",
        "plain",
        "soft_disabled",
        "soft_users",
        "triggers",
    )

    def __init__(self, instance: Instance, form: EventFormat) -> None:
        self.instance = instance
        self.form = form
        self.enabled = False
        self.soft_disabled = False
        # How many triggers hold the soft switch.
        self.soft_users = 0
        self.filter: Filter | None = None
        self.filter_text = NO_FILTER
        self.triggers: tuple[Trigger, ...] = ()
        self.plain = False

    @property
    def status(self) -> str:
        """What `enable` shows: a digit, and a star while a trigger holds a soft switch."""
        on = self.enabled and not self.soft_disabled
        star = "*" if self.soft_disabled or self.soft_users else ""
        return f"{int(on)}{star}"

    def enable(self) -> None:
        """Switch it on for good."""
        self.soft_disabled = False
        self._attach()
        self.refresh()

    def disable(self) -> None:
        """Switch it off; it stays armed while triggers need it."""
        if not self.soft_users:
            self._detach()
        self.soft_disabled = bool(self.soft_users)
        self.refresh()

    def arm(self) -> None:
        """A trigger needs the event to be heard, without recording it if it is off."""
        self.soft_users += 1
        if not self.enabled:
            self.soft_disabled = True
            self._attach()
        self.refresh()

    def disarm(self) -> None:
        """A trigger does not need it any more."""
        self.soft_users -= 1
        if self.soft_users == 0:
            if self.soft_disabled:
                self._detach()
            self.soft_disabled = False
        self.refresh()

    def soft_switch(self, on: bool) -> None:
        """What the triggers enable_event and disable_event do."""
        self.soft_disabled = not on
        self.refresh()

    def refresh(self) -> None:
        """After any change: is there nothing to do but to record?"""
        self.plain = not (
            self.soft_disabled or self.filter or self.triggers or self.instance.has_pid_lists
        )

    def handle(self, event: Any, task: Task) -> None:
        """The event happened."""
        if self.plain:
            self.instance.record(self.form, event, task)
            return
        instance = self.instance
        on = instance.recording
        # A trigger that looks at the event runs after its place in the buffer is reserved.
        conditional = any(trigger.needs_record for trigger in self.triggers)
        buffers = instance.buffers
        late = self.run_triggers(event, task)
        if (on or not conditional) and self._passes(event, task):
            instance.record(self.form, event, task, buffers if conditional else None)
        for trigger in late:
            trigger.fire(self, event, task)

    def run_triggers(self, event: Any, task: Task) -> list[Trigger]:
        """Fire what fires before the event is recorded; the result fires after it."""
        late = []
        for trigger in self.triggers:
            if trigger.paused or not trigger.matches(event, task):
                continue
            if trigger.late:
                late.append(trigger)
            else:
                trigger.fire(self, event, task)
        return late

    def set_filter(self, text: str) -> None:
        """What is written to `filter`. Raises FilterError; the old filter is gone then too."""
        body = text.rstrip()
        if body.strip() == "0":
            self.clear_filter()
            return
        self.filter = None
        self.filter_text = body
        try:
            self.filter = compile_filter(body, self.form, self.instance.tracing.dialect)
        except FilterError as error:
            self.filter_text = filter_error_text(body, error)
            self.instance.log_filter_error(body, error)
            raise
        finally:
            self.refresh()

    def set_system_filter(self, text: str) -> None:
        """The filter of the whole system; what does not fit this event leaves it unfiltered.

        Each event that it does not fit is one more mistake of the log, whatever was wrong. Like
        kernel/trace/trace_events_filter.c:process_system_preds (v6.1).
        """
        try:
            self.filter = compile_filter(text, self.form, self.instance.tracing.dialect)
            self.filter_text = text
        except FilterError as error:
            failure = FilterError(error.errno or EINVAL, BAD_SYSTEM_FILTER)
            self.filter = None
            self.filter_text = filter_error_text(text, failure)
            self.instance.log_filter_error(text, failure)
        self.refresh()

    def clear_filter(self) -> None:
        """Record all again."""
        self.filter = None
        self.filter_text = NO_FILTER
        self.refresh()

    def add_trigger(self, trigger: Trigger) -> None:
        """Newest first; the event is armed from now on."""
        self.triggers = (trigger, *self.triggers)
        self.arm()

    def remove_trigger(self, trigger: Trigger) -> None:
        """The pair of `add_trigger`."""
        self.triggers = tuple(other for other in self.triggers if other is not trigger)
        self.disarm()

    def close(self) -> None:
        """The instance goes away."""
        for trigger in self.triggers:
            trigger.removed(self)
        self.triggers = ()
        self._detach()

    def _passes(self, event: Any, task: Task) -> bool:
        if self.soft_disabled:
            return False
        instance = self.instance
        if instance.has_pid_lists and not any(map(instance.traces_pid, event.pids(task.pid))):
            return False
        return self.filter is None or self.filter.test(event, task)

    def _attach(self) -> None:
        if not self.enabled:
            self.enabled = True
            self.instance.tracing.attach(self)

    def _detach(self) -> None:
        if self.enabled:
            self.enabled = False
            self.instance.tracing.detach(self)


def filter_error_text(text: str, error: FilterError) -> str:
    """The wrong text, a caret and the message, as the filter file shows it."""
    if error.message is None:
        return f"{text}\nError: (0)\n"
    blanks = " " * min(error.position, len(text))
    return f"{text}\n{blanks}^\nparse_error: {error.message}\n"

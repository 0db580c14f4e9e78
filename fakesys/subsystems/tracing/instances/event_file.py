"""One event in one instance: is it enabled, soft disabled, filtered, and which triggers has it.

Like kernel/trace/trace_events.c:__ftrace_event_enable_disable and
trace_events_trigger.c:event_triggers_call (v6.1).
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL
from functools import partial
from typing import Any, Protocol

from fakesys.core.event_format import EventFormat
from fakesys.core.events import Task
from fakesys.subsystems.tracing.filter.dialect import Dialect, FilterError
from fakesys.subsystems.tracing.filter.filters import Filter, compile_filter
from fakesys.subsystems.tracing.ring_buffer.buffer_set import BufferSet
from fakesys.subsystems.tracing.ring_buffer.cpu_buffer import CpuBuffer

NO_FILTER = "none"
BAD_SYSTEM_FILTER = "Couldn't find or set field in one of a subsystem's events"

After = Callable[[], None] | None
"""What a trigger still has to do when the event is recorded, if anything."""


class Recorder(Protocol):
    """What an event file needs of the instance that it belongs to."""

    @property
    def recording(self) -> bool:
        """Are events recorded now?"""

    @property
    def buffers(self) -> BufferSet:
        """The buffers of the instance."""

    @property
    def has_pid_lists(self) -> bool:
        """Is recording restricted to some tasks?"""

    @property
    def dialect(self) -> Dialect:
        """What filters can express."""

    def record(
        self,
        form: EventFormat,
        event: Any,
        task: Task,
        reserved: list[CpuBuffer] | None = None,
        stamp: int | None = None,
    ) -> bool:
        """Put an event into the buffer of its CPU, with the time of now if none is given."""

    @property
    def now(self) -> Callable[[], int]:
        """Reads the clock."""

    def traces_pid(self, pid: int) -> bool:
        """Return whether events of this task are recorded."""

    def log_filter_error(self, text: str, error: FilterError) -> None:
        """Append a wrong filter to `error_log`."""

    def attach(self, file: EventFile) -> None:
        """Call the `handle` of this file for every event from now on."""

    def detach(self, file: EventFile) -> None:
        """Stop calling the `handle` of this file."""


class Trigger(Protocol):
    """What an event file needs of a trigger."""

    paused: bool

    @property
    def key(self) -> str:
        """What identifies it: an event has one trigger of a key at most."""

    @property
    def late(self) -> bool:
        """Does it fire after the event is recorded?"""

    @property
    def needs_record(self) -> bool:
        """Must the event have its place in the buffer before the trigger looks at it?"""

    @property
    def needs_stamp(self) -> bool:
        """Must it have the time of the event?"""

    def matches(self, event: Any, task: Task) -> bool:
        """Return whether its filter lets it fire."""

    def fire(self, event: Any, task: Task, stamp: int) -> After:
        """Act. Precondition: it is not paused and `matches` is true.

        `stamp`: the time of the event, if `needs_stamp` is true.
        """

    def text(self) -> str:
        """Return its line in the trigger file, without newline."""

    def removed(self) -> None:
        """Give back what it holds; called after it was taken off the event."""


class EventFile:
    """The state behind one directory `events/SYS/EV` of one instance.

    `enabled` means that it is attached to the event, by the user or because a trigger needs it;
    `soft_disabled` that it must not record nevertheless. Like `struct trace_event_file`.
    """

    __slots__ = (
        "enabled",
        "filter",
        "filter_text",
        "form",
        "recorder",
        "records_only",
        "soft_disabled",
        "soft_users",
        "triggers",
    )

    def __init__(self, recorder: Recorder, form: EventFormat) -> None:
        self.recorder = recorder
        self.form = form
        self.enabled = False
        self.soft_disabled = False
        # How many triggers need the event to stay attached (sm_ref).
        self.soft_users = 0
        self.filter: Filter | None = None
        self.filter_text = NO_FILTER
        self.triggers: tuple[Trigger, ...] = ()
        # Kept by `refresh`: recording is all that there is to do.
        self.records_only = False

    @property
    def status(self) -> str:
        """The text of `enable`: a digit, and a star while a trigger holds the soft mode."""
        on = self.enabled and not self.soft_disabled
        star = "*" if self.soft_disabled or self.soft_users else ""
        return f"{int(on)}{star}"

    def enable(self) -> None:
        """Record the event, whatever triggers have switched before."""
        self.soft_disabled = False
        self._attach()
        self.refresh()

    def disable(self) -> None:
        """Stop recording; the file stays attached while triggers need it."""
        if not self.soft_users:
            self._detach()
        self.soft_disabled = bool(self.soft_users)
        self.refresh()

    def arm(self) -> None:
        """Attach the file for a trigger; an event that is off is not recorded nevertheless."""
        self.soft_users += 1
        if not self.enabled:
            self.soft_disabled = True
            self._attach()
        self.refresh()

    def disarm(self) -> None:
        """Undo one `arm`."""
        self.soft_users -= 1
        if self.soft_users == 0:
            if self.soft_disabled:
                self._detach()
            self.soft_disabled = False
        self.refresh()

    def soft_switch(self, on: bool) -> None:
        """Do what the triggers enable_event and disable_event do."""
        self.soft_disabled = not on
        self.refresh()

    def refresh(self) -> None:
        """Compute `records_only`; to be called after any change, also of the pid lists."""
        self.records_only = not (
            self.soft_disabled or self.filter or self.triggers or self.recorder.has_pid_lists
        )

    def handle(self, event: Any, task: Task) -> None:
        """Record an event that has happened, if it passes, and fire the triggers.

        If `records_only`, `Recorder.record` is all of that.
        """
        if self.triggers:
            self._handle_with_triggers(event, task)
        elif self._passes(event, task):
            self.recorder.record(self.form, event, task)

    def run_triggers(self, event: Any, task: Task, stamp: int = 0) -> list[Callable[[], object]]:
        """Fire triggers; return what is to be done when the event is recorded."""
        late: list[Callable[[], object]] = []
        for trigger in self.triggers:
            if trigger.paused or not trigger.matches(event, task):
                continue
            if trigger.late:
                late.append(partial(trigger.fire, event, task, stamp))
                continue
            rest = trigger.fire(event, task, stamp)
            if rest is not None:
                late.append(rest)
        return late

    def stamp_of_triggers(self) -> int | None:
        """Return the time of an event that happens now; None if no trigger needs it."""
        timed = any(trigger.needs_stamp for trigger in self.triggers)
        return self.recorder.now() if timed else None

    def set_filter(self, text: str) -> None:
        """Compile what is written to `filter`; "0" removes the filter.

        Raises FilterError, which is logged; the old filter is gone then too.
        """
        body = text.rstrip()
        if body.strip() == "0":
            self.clear_filter()
            return
        self.filter = None
        self.filter_text = body
        try:
            self.filter = compile_filter(body, self.form, self.recorder.dialect)
        except FilterError as error:
            self.filter_text = filter_error_text(body, error)
            self.recorder.log_filter_error(body, error)
            raise
        finally:
            self.refresh()

    def set_system_filter(self, text: str) -> None:
        """Set the filter of the whole system; an event that it does not fit has no filter then.

        Each event that it does not fit adds the same entry to the log, whatever was wrong. Like
        kernel/trace/trace_events_filter.c:process_system_preds (v6.1).
        """
        try:
            self.filter = compile_filter(text, self.form, self.recorder.dialect)
            self.filter_text = text
        except FilterError as error:
            failure = FilterError(error.errno or EINVAL, BAD_SYSTEM_FILTER)
            self.filter = None
            self.filter_text = filter_error_text(text, failure)
            self.recorder.log_filter_error(text, failure)
        self.refresh()

    def clear_filter(self) -> None:
        """Remove the filter."""
        self.filter = None
        self.filter_text = NO_FILTER
        self.refresh()

    def add_trigger(self, trigger: Trigger, *, last: bool = False) -> None:
        """Put a trigger before the others, or behind them, and attach the file for it."""
        self.triggers = (*self.triggers, trigger) if last else (trigger, *self.triggers)
        self.arm()

    def remove_trigger(self, trigger: Trigger) -> None:
        """Undo `add_trigger`."""
        self.triggers = tuple(other for other in self.triggers if other is not trigger)
        self.disarm()

    def close(self) -> None:
        """Drop all triggers and detach: the instance is removed."""
        for trigger in self.triggers:
            trigger.removed()
        self.triggers = ()
        self._detach()

    def _handle_with_triggers(self, event: Any, task: Task) -> None:
        recorder = self.recorder
        on = recorder.recording
        # A trigger that looks at the event runs after its place in the buffer is reserved.
        conditional = any(trigger.needs_record for trigger in self.triggers)
        live = recorder.buffers.live
        stamp = self.stamp_of_triggers()
        late = self.run_triggers(event, task, stamp or 0)
        if (on or not conditional) and self._passes(event, task):
            recorder.record(self.form, event, task, live if conditional else None, stamp)
        for act in late:
            act()

    def _passes(self, event: Any, task: Task) -> bool:
        if self.soft_disabled:
            return False
        recorder = self.recorder
        if recorder.has_pid_lists and not any(map(recorder.traces_pid, event.pids(task.pid))):
            return False
        return self.filter is None or self.filter.test(event, task)

    def _attach(self) -> None:
        if not self.enabled:
            self.enabled = True
            self.recorder.attach(self)

    def _detach(self) -> None:
        if self.enabled:
            self.enabled = False
            self.recorder.detach(self)


def filter_error_text(text: str, error: FilterError) -> str:
    """Return the wrong filter, a caret and the message, as the filter file shows it."""
    if error.message is None:
        return f"{text}\nError: (0)\n"
    blanks = " " * min(error.position, len(text))
    return f"{text}\n{blanks}^\nparse_error: {error.message}\n"

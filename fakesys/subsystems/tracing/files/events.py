"""The directory `events/` of an instance: systems, events, and their files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from errno import EBUSY, EDOM, EEXIST, EINVAL, ENOENT, EPERM, ERANGE, ESRCH

from msgspec import Struct

from fakesys.core.errors import KernelError
from fakesys.core.event_format import EventFormat
from fakesys.subsystems.tracing.base.policy import TraceFeature
from fakesys.subsystems.tracing.events.ftrace import FTRACE
from fakesys.subsystems.tracing.files.hist import hist_text
from fakesys.subsystems.tracing.files.settings import zero_or_one
from fakesys.subsystems.tracing.instances import set_event
from fakesys.subsystems.tracing.instances.event_file import EventFile
from fakesys.subsystems.tracing.instances.instance import Instance
from fakesys.subsystems.tracing.instances.triggers import (
    show_triggers,
    truncate_triggers,
    write_trigger,
)
from fakesys.subsystems.tracing.ring_buffer.raw_page import HEADER_EVENT, HEADER_PAGE
from fakesys.tree.attr import Attr, Children, Dir, Layout
from fakesys.tree.kinds import EVENTFS, PAGE, TRACEFS_ONCE, TRACEFS_SEQ, TRACEFS_WORDS, Kind

FILTER = {
    EINVAL: "the filter is wrong: the file says where and why, so does error_log",
    EPERM: "the same, for a closing parenthesis or a term too many",
    ENOENT: "the same, for an opening parenthesis too many",
    ESRCH: "the same, for an open quote",
}
TRIGGER = FILTER | {
    EINVAL: "no such trigger, event or count, or a wrong filter",
    EEXIST: "there is a trigger of this kind",
    ERANGE: "the count does not fit into 64 bits",
    EBUSY: "another histogram refers to its variables or takes the snapshots",
    EDOM: "an expression divides by 0",
}
SYSTEM_FILTER = (
    "### global filter ###\n"
    "# Use this to set filters for multiple events.\n"
    "# Only events with the given fields will be affected.\n"
    "# If no events are modified, an error message will be displayed here\n"
)


class SystemDirectory(Struct, frozen=True):
    """The events of one system in one instance."""

    instance: Instance
    name: str

    @property
    def forms(self) -> Iterable[EventFormat]:
        """The events below this directory."""
        return self._system.values()

    @property
    def _system(self) -> Mapping[str, EventFormat]:
        return self.instance.shared.catalog.systems[self.name]

    def event_names(self) -> Iterable[str]:
        """Return the names of its directories."""
        return self._system

    def event(self, name: str) -> EventDirectory | None:
        """Return the directory of this name."""
        form = self._system.get(name)
        return None if form is None else EventDirectory(self.instance, self.instance.file(form))

    def write_filter(self, text: str) -> None:
        """Set a filter for all events whose fields fit; "0" removes all filters.

        Raises EINVAL for a text of a page or more.
        """
        body = _short(text).rstrip()
        for form in self.forms:
            file = self.instance.file(form)
            if body.strip() == "0":
                file.clear_filter()
            else:
                file.set_system_filter(body)


class EventDirectory(Struct, frozen=True):
    """One event in one instance: the instance and its state of the event."""

    instance: Instance
    file: EventFile

    @property
    def is_listed(self) -> bool:
        """Is it in `available_events`, so that it can be enabled?"""
        return self.file.form.system != FTRACE

    @property
    def has_triggers(self) -> bool:
        """Can it have triggers? Of the unlisted events only markers can."""
        return self.is_listed or self.file.form is self.instance.shared.catalog.print

    @property
    def has_hist(self) -> bool:
        """Can it have histograms?"""
        return self.instance.shared.build.hist and self.has_triggers

    def format_text(self) -> str:
        """Return the text of `format`."""
        return self.file.form.format_text(char_signed=self.instance.shared.build.char_signed)

    def write_enable(self, text: str) -> None:
        """Enable or disable the event. Raises EINVAL for any number but 0 and 1."""
        if zero_or_one(text):
            self.file.enable()
        else:
            self.file.disable()

    def write_filter(self, text: str) -> None:
        """Set or remove the filter. Raises FilterError, EINVAL for a page or more."""
        self.file.set_filter(_short(text))

    def write_trigger(self, text: str) -> None:
        """Add or remove a trigger. Raises EINVAL for a page or more, and as `triggers.py`."""
        write_trigger(self.instance, self.file, _short(text))


def _systems(instance: Instance) -> Iterable[str]:
    return instance.shared.catalog.systems


def _system(instance: Instance, name: str) -> SystemDirectory | None:
    return SystemDirectory(instance, name) if name in _systems(instance) else None


def _ftrace_events(instance: Instance) -> Iterable[str]:
    return (form.event for form in instance.shared.catalog.ftrace)


def _ftrace_event(instance: Instance, name: str) -> EventDirectory | None:
    for form in instance.shared.catalog.ftrace:
        if form.event == name:
            return EventDirectory(instance, instance.file(form))
    return None


def _write_system_enable(system: SystemDirectory, text: str) -> None:
    set_event.switch_all(system.instance, system.forms, zero_or_one(text))


def _write_all_enable(instance: Instance, text: str) -> None:
    set_event.switch_all(instance, instance.shared.catalog.events, zero_or_one(text))


def _header_page_text(instance: Instance) -> str:
    signed = int(instance.shared.build.char_signed)
    return HEADER_PAGE.format(room=instance.buffers.room, char_signed=signed)


def _short(text: str) -> str:
    """Return the text up to a NUL. Raises EINVAL for a page or more, NUL and all."""
    if len(text) >= PAGE:
        raise KernelError(EINVAL, f"{len(text)} bytes are a page or more")
    return text.partition("\0")[0]


EVENT: tuple[Attr[EventDirectory], ...] = (
    Attr(
        name="enable",
        mode=0o640,
        show=lambda event: f"{event.file.status}\n",
        store=EventDirectory.write_enable,
        present=lambda event: event.is_listed,
        doc="0 or 1; a star says that a trigger holds a soft switch.",
        errors={EINVAL: "neither 0 nor 1"},
    ),
    Attr(
        name="filter",
        mode=0o640,
        kind=TRACEFS_ONCE,
        show=lambda event: f"{event.file.filter_text}\n",
        store=EventDirectory.write_filter,
        present=lambda event: event.is_listed,
        doc="Only events that fit are recorded; 0 takes the filter away.",
        errors=FILTER,
    ),
    Attr(
        name="format",
        mode=0o440,
        kind=TRACEFS_SEQ,
        show=EventDirectory.format_text,
        doc="Fields of the binary record and the format of its text.",
    ),
    Attr(
        name="id",
        mode=0o440,
        show=lambda event: f"{event.file.form.id}\n",
        doc="common_type of its records.",
    ),
    Attr(
        name="trigger",
        mode=0o640,
        kind=TRACEFS_WORDS,
        show=lambda event: show_triggers(event.instance.shared.build, event.file),
        store=EventDirectory.write_trigger,
        truncate=lambda event: truncate_triggers(event.file),
        present=lambda event: event.has_triggers,
        doc="What else happens with the event: NAME[:ARGUMENT][:COUNT] [if FILTER].",
        errors=TRIGGER,
    ),
    Attr(
        name="hist",
        mode=0o440,
        kind=TRACEFS_SEQ,
        show=lambda event: hist_text(event.file),
        present=lambda event: event.has_hist,
        doc="The tables of its hist triggers.",
    ),
)

SYSTEM: tuple[Attr[SystemDirectory], ...] = (
    Attr(
        name="enable",
        mode=0o640,
        show=lambda system: set_event.enabled_text(system.instance, system.forms),
        store=_write_system_enable,
        doc="0: none of the system's events is on, 1: all, X: some.",
        errors={EINVAL: "neither 0 nor 1"},
    ),
    Attr(
        name="filter",
        mode=0o640,
        kind=TRACEFS_ONCE,
        show=lambda system: SYSTEM_FILTER,
        store=SystemDirectory.write_filter,
        doc="A filter for all events of the system that have its fields.",
        errors={EINVAL: "a page or more"},
    ),
)

ALL: tuple[Attr[Instance], ...] = (
    Attr(
        name="enable",
        mode=0o640,
        show=lambda instance: set_event.enabled_text(instance, instance.shared.catalog.events),
        store=_write_all_enable,
        doc="0: no event is on, 1: all, X: some.",
        errors={EINVAL: "neither 0 nor 1"},
    ),
    Attr(
        name="header_page",
        mode=0o440,
        kind=TRACEFS_ONCE,
        show=_header_page_text,
        doc="Layout of a page of trace_pipe_raw.",
    ),
    Attr(
        name="header_event",
        mode=0o440,
        kind=TRACEFS_ONCE,
        show=lambda instance: HEADER_EVENT,
        doc="Layout of the word before each record.",
    ),
)


def _events(mode: int, kind: Kind | None) -> Layout[Instance]:
    """Return the layout of `events`: its files, and a directory for each system and event."""
    event: Layout[EventDirectory] = Layout(EVENT, mode, kind)
    listed = Children(names=SystemDirectory.event_names, get=SystemDirectory.event, layout=event)
    system: Layout[SystemDirectory] = Layout((*SYSTEM, listed), mode, kind)
    hidden = Children(names=_ftrace_events, get=_ftrace_event, layout=event)
    ftrace: Layout[Instance] = Layout((hidden,), mode, kind)
    systems = Children(names=_systems, get=_system, layout=system)
    return Layout((*ALL, Dir(name="ftrace", layout=ftrace), systems), mode, kind)


EVENTS: tuple[Dir[Instance], ...] = (
    Dir(name="events", layout=_events(0o750, None), unless=TraceFeature.EVENTFS),
    Dir(name="events", layout=_events(0o755, EVENTFS), needs=TraceFeature.EVENTFS),
)

"""The directory `events/` of an instance: systems, events, and their files."""

from __future__ import annotations

from collections.abc import Iterable
from errno import EEXIST, EINVAL, ENOENT, EPERM, ERANGE, ESRCH

from msgspec import Struct

from fakesys.core.errors import KernelError
from fakesys.core.event_format import EventFormat
from fakesys.subsystems.tracing.base.policy import TraceFeature
from fakesys.subsystems.tracing.files.hist import hist_text
from fakesys.subsystems.tracing.files.settings import zero_or_one
from fakesys.subsystems.tracing.instances import set_event as grammar
from fakesys.subsystems.tracing.instances.event_file import EventFile
from fakesys.subsystems.tracing.instances.hist_trigger import clear_hists
from fakesys.subsystems.tracing.instances.instance import Instance
from fakesys.subsystems.tracing.instances.triggers import show_triggers, write_trigger
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
}
SYSTEM_FILTER = (
    "### global filter ###\n"
    "# Use this to set filters for multiple events.\n"
    "# Only events with the given fields will be affected.\n"
    "# If no events are modified, an error message will be displayed here\n"
)


class System(Struct, frozen=True):
    """The events of one system in one instance."""

    instance: Instance
    name: str

    @property
    def forms(self) -> list[EventFormat]:
        """The events below this directory."""
        return list(self.instance.tracing.systems[self.name].values())

    def events(self) -> Iterable[str]:
        """Their names."""
        return self.instance.tracing.systems[self.name]

    def event(self, name: str) -> EventFile | None:
        """The event of this name."""
        form = self.instance.tracing.systems[self.name].get(name)
        return None if form is None else self.instance.file(form)

    def write_filter(self, text: str) -> None:
        """A filter for all events whose fields fit; `0` takes all filters away.

        Raises EINVAL for a text of a page or more.
        """
        body = _short(text).rstrip()
        for form in self.forms:
            file = self.instance.file(form)
            if body.strip() == "0":
                file.clear_filter()
            else:
                file.set_system_filter(body)


def _systems(instance: Instance) -> Iterable[str]:
    return instance.tracing.systems


def _system(instance: Instance, name: str) -> System | None:
    return System(instance, name) if name in instance.tracing.systems else None


def _ftrace_events(instance: Instance) -> Iterable[str]:
    return (form.event for form in instance.tracing.ftrace)


def _ftrace_event(instance: Instance, name: str) -> EventFile | None:
    for form in instance.tracing.ftrace:
        if form.event == name:
            return instance.file(form)
    return None


def _format_text(file: EventFile) -> str:
    return file.form.format_text(char_signed=file.instance.tracing.build.char_signed)


def _write_enable(file: EventFile, text: str) -> None:
    if zero_or_one(text):
        file.enable()
    else:
        file.disable()


def _write_system_enable(system: System, text: str) -> None:
    grammar.switch_all(system.instance, system.forms, zero_or_one(text))


def _write_all_enable(instance: Instance, text: str) -> None:
    grammar.switch_all(instance, list(instance.tracing.events), zero_or_one(text))


def _short(text: str) -> str:
    """The text up to a NUL. Raises EINVAL for a page or more, NUL and all."""
    if len(text) >= PAGE:
        raise KernelError(EINVAL, f"{len(text)} bytes are a page or more")
    return text.partition("\0")[0]


def _write_filter(file: EventFile, text: str) -> None:
    file.set_filter(_short(text))


def _write_trigger(file: EventFile, text: str) -> None:
    write_trigger(file, _short(text))


def _has_triggers(file: EventFile) -> bool:
    return file.form.system != "ftrace" or file.form is file.instance.tracing.print


def _has_hist(file: EventFile) -> bool:
    return file.instance.tracing.build.hist and _has_triggers(file)


def _is_recorded(file: EventFile) -> bool:
    return file.form.system != "ftrace"


EVENT: tuple[Attr[EventFile], ...] = (
    Attr(
        name="enable",
        mode=0o640,
        show=lambda file: f"{file.status}\n",
        store=_write_enable,
        present=_is_recorded,
        doc="0 or 1; a star says that a trigger holds a soft switch.",
        errors={EINVAL: "neither 0 nor 1"},
    ),
    Attr(
        name="filter",
        mode=0o640,
        kind=TRACEFS_ONCE,
        show=lambda file: f"{file.filter_text}\n",
        store=_write_filter,
        present=_is_recorded,
        doc="Only events that fit are recorded; 0 takes the filter away.",
        errors=FILTER,
    ),
    Attr(
        name="format",
        mode=0o440,
        kind=TRACEFS_SEQ,
        show=_format_text,
        doc="Fields of the binary record and the format of its text.",
    ),
    Attr(
        name="id",
        mode=0o440,
        show=lambda file: f"{file.form.id}\n",
        doc="common_type of its records.",
    ),
    Attr(
        name="trigger",
        mode=0o640,
        kind=TRACEFS_WORDS,
        show=show_triggers,
        store=_write_trigger,
        truncate=clear_hists,
        present=_has_triggers,
        doc="What else happens with the event: NAME[:ARGUMENT][:COUNT] [if FILTER].",
        errors=TRIGGER,
    ),
    Attr(
        name="hist",
        mode=0o440,
        kind=TRACEFS_SEQ,
        show=hist_text,
        present=_has_hist,
        doc="The tables of its hist triggers.",
    ),
)

SYSTEM: tuple[Attr[System], ...] = (
    Attr(
        name="enable",
        mode=0o640,
        show=lambda system: grammar.summary(system.instance, system.forms) + "\n",
        store=_write_system_enable,
        doc="0: none of the system's events is on, 1: all, X: some.",
        errors={EINVAL: "neither 0 nor 1"},
    ),
    Attr(
        name="filter",
        mode=0o640,
        kind=TRACEFS_ONCE,
        show=lambda system: SYSTEM_FILTER,
        store=System.write_filter,
        doc="A filter for all events of the system that have its fields.",
        errors={EINVAL: "a page or more"},
    ),
)

ALL: tuple[Attr[Instance], ...] = (
    Attr(
        name="enable",
        mode=0o640,
        show=lambda m: grammar.summary(m, list(m.tracing.events)) + "\n",
        store=_write_all_enable,
        doc="0: no event is on, 1: all, X: some.",
        errors={EINVAL: "neither 0 nor 1"},
    ),
    Attr(
        name="header_page",
        mode=0o440,
        kind=TRACEFS_ONCE,
        show=lambda m: HEADER_PAGE.format(char_signed=int(m.tracing.build.char_signed)),
        doc="Layout of a page of trace_pipe_raw.",
    ),
    Attr(
        name="header_event",
        mode=0o440,
        kind=TRACEFS_ONCE,
        show=lambda m: HEADER_EVENT,
        doc="Layout of the word before each record.",
    ),
)


def _events(mode: int, kind: Kind | None) -> Layout[Instance]:
    """`events`: its files, and a directory for each system and event."""
    event: Layout[EventFile] = Layout(EVENT, mode, kind)
    listed = Children(names=System.events, get=System.event, layout=event)
    system: Layout[System] = Layout((*SYSTEM, listed), mode, kind)
    hidden = Children(names=_ftrace_events, get=_ftrace_event, layout=event)
    ftrace: Layout[Instance] = Layout((hidden,), mode, kind)
    systems = Children(names=_systems, get=_system, layout=system)
    return Layout((*ALL, Dir(name="ftrace", layout=ftrace), systems), mode, kind)


EVENTS: tuple[Dir[Instance], ...] = (
    Dir(name="events", layout=_events(0o750, None), unless=TraceFeature.EVENTFS),
    Dir(name="events", layout=_events(0o755, EVENTFS), needs=TraceFeature.EVENTFS),
)

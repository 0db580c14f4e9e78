"""All synthetic events of a kernel: defined and removed by clients, made by histograms.

Like kernel/trace/trace_events_synth.c:create_or_delete_synth_event, destroy_synth_event and
kernel/trace/trace_events.c:probe_remove_event_call (v6.1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from errno import EBUSY, EEXIST, EINVAL, ENOENT
from typing import Protocol

from fakesys.core.errors import KernelError
from fakesys.core.event_format import EventFormat
from fakesys.core.events import Bus
from fakesys.subsystems.tracing.events.catalog import EventCatalog
from fakesys.subsystems.tracing.events.synthetic import (
    SYNTHETIC,
    WRONG_COMMAND,
    WRONG_DYNAMIC_COMMAND,
    Definition,
    Log,
    SyntheticField,
    SyntheticFormat,
    parse_definition,
    refusal,
)
from fakesys.subsystems.tracing.hist.fields import number_of
from fakesys.subsystems.tracing.hist.histogram import Value


class Users(Protocol):
    """What the events need of all instances."""

    def is_enabled(self, form: EventFormat) -> bool:
        """Return whether any instance records an event or counts it."""

    def appeared(self) -> None:
        """Follow a new event."""

    def vanished(self, form: EventFormat) -> None:
        """Forget an event, with what is recorded of it."""


class SyntheticEvents:
    """The events by name, oldest first.

    `users`: how many actions make each event, and how many histograms count it.
    """

    def __init__(self, bus: Bus, catalog: EventCatalog, everyone: Users) -> None:
        self.formats: dict[str, SyntheticFormat] = {}
        self.users: Counter[str] = Counter()
        self._bus = bus
        self._catalog = catalog
        self._everyone = everyone

    def find(self, name: str) -> Definition | None:
        """Return the definition of an event."""
        found = self.formats.get(name)
        return None if found is None else found.definition

    def text(self) -> str:
        """Return the text of `synthetic_events`."""
        return "".join(form.definition.line for form in self.formats.values())

    def dynamic_text(self) -> str:
        """Return the text of `dynamic_events`, of which all are synthetic."""
        lines = (form.definition.line for form in self.formats.values())
        return "".join(f"s:{SYNTHETIC}/{line}" for line in lines)

    def emit(self, name: str, values: Iterable[Value]) -> None:
        """Make an event, with the task of the event that caused it."""
        form = self.formats[name]
        if form.cls in self._bus.wanted:
            fields = form.definition.fields
            self._bus.emit(form.cls(*map(_fitting, fields, values)))

    def obey(self, line: str, log: Log) -> None:
        """Define an event by `NAME TYPE FIELD[; ...]`, or remove one by `!NAME`.

        Raises EINVAL, EEXIST, ENOENT, EBUSY, ENODEV; mistakes in a definition are logged.
        """
        command = line.lstrip()
        if not command:
            return
        if not command.startswith("!") and len(command.partition(";")[0].split()) < 3:
            raise refusal(log, WRONG_COMMAND, None)
        name, *rest = command.split(maxsplit=1)
        if name.startswith("!"):
            self.remove(name[1:])
            return
        self._define(name, rest[0] if rest else "", log)

    def obey_dynamic(self, line: str, log: Log) -> None:
        """Define an event by `s:[synthetic/]NAME TYPE FIELD[; ...]`, or remove one.

        It is removed by `-:[synthetic/]NAME`. Raises as `obey`, and EINVAL for other kinds. Like
        kernel/trace/trace_dynevent.c:create_dyn_event, dyn_event_release (v6.1).
        Differs: removing an event does not clear the buffers that have recorded it.
        """
        command = line.lstrip()
        if command.startswith(("-", "!")):
            self._remove_dynamic(command.split()[0])
        elif command.startswith("s:"):
            self._define_dynamic(command, log)
        elif command:
            raise KernelError(EINVAL, "only synthetic events can be defined")

    def _remove_dynamic(self, word: str) -> None:
        kind, colon, place = word.partition(":")
        system, slash, event = place.rpartition("/")
        if not colon or not place or (kind[0] == "-" and kind != "-"):
            raise KernelError(EINVAL, f"{word!r} names no event")
        if slash and system != SYNTHETIC:
            raise KernelError(ENOENT, f"there is no event {place!r}")
        self.remove(event)

    def _define_dynamic(self, command: str, log: Log) -> None:
        words = command.split(maxsplit=1)
        if len(words) < 2:
            raise refusal(log, WRONG_COMMAND, None)
        name = words[0].removeprefix("s:")
        if "/" in command:
            system, slash, name = name.partition("/")
            if not slash or system != SYNTHETIC:
                raise refusal(log, WRONG_DYNAMIC_COMMAND, None)
        if len(f"{name} {words[1]}".partition(";")[0].split()) < 3:
            raise refusal(log, WRONG_COMMAND, None)
        self._define(name, words[1], log)

    def add(self, definition: Definition, number: int) -> None:
        """Make an event of this number."""
        form = SyntheticFormat(definition, number)
        self.formats[definition.name] = form
        self._catalog.add(form)
        self._everyone.appeared()

    def remove(self, name: str) -> None:
        """Remove an event. Raises ENOENT, and EBUSY while anything uses it."""
        form = self.formats.get(name)
        if form is None:
            raise KernelError(ENOENT, f"there is no synthetic event {name!r}")
        self._refuse_used(name)
        if self._everyone.is_enabled(form):
            raise KernelError(EBUSY, f"{form.name} is enabled")
        self._drop(form)

    def clear(self) -> None:
        """Remove all events, oldest first.

        Raises EBUSY, before it removes any, while a histogram uses one; and when it comes to one
        that is enabled.
        """
        for name in self.formats:
            self._refuse_used(name)
        for name in list(self.formats):
            self.remove(name)

    def _define(self, name: str, fields: str, log: Log) -> None:
        if name in self.formats:
            log("Event already exists", name)
            raise KernelError(EEXIST, f"{SYNTHETIC}:{name} exists")
        self.add(parse_definition(name, fields, log), self._catalog.take_id())

    def _refuse_used(self, name: str) -> None:
        users = self.users[name]
        if users:
            raise KernelError(EBUSY, f"{users} histograms use {SYNTHETIC}:{name}")

    def _drop(self, form: SyntheticFormat) -> None:
        del self.formats[form.event]
        self._catalog.remove(form)
        self._everyone.vanished(form)


def _fitting(field: SyntheticField, value: Value) -> Value:
    """Return a value that a field can have: a number is no address of a text."""
    if field.is_text:
        return value if isinstance(value, str) else "(fault)"
    return number_of(value)


def run_commands(text: str, obey: Callable[[str], None], longest: int) -> None:
    """Obey each line of a text, without comments.

    Raises EINVAL for a line that is too long, and what a line raises; the lines before it stay
    obeyed. Like kernel/trace/trace.c:trace_parse_run_command (v6.1).
    """
    for line in text.split("\n"):
        if len(line) > longest:
            raise KernelError(EINVAL, f"a line has {longest} bytes at most")
        obey(line.partition("#")[0])

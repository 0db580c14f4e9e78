"""Which events a kernel has, with their numbers, in the order of `available_events`."""

from __future__ import annotations

from collections.abc import Iterable
from errno import EINVAL, ENODEV

from fakesys.core.errors import KernelError
from fakesys.core.event_format import EventFormat, event_format
from fakesys.core.features import FeatureSet
from fakesys.core.tracepoint import Tracepoint
from fakesys.subsystems.tracing.base.policy import Build
from fakesys.subsystems.tracing.events import host
from fakesys.subsystems.tracing.events.declared import declared_formats
from fakesys.subsystems.tracing.events.ftrace import (
    FTRACE,
    PRINT_ID,
    STACK_ID,
    KernelStack,
    Print,
    RawData,
)
from fakesys.subsystems.tracing.events.printing import Printers, decoded_printer

LAST_ID = 0xFFFF
"""Records have 16 bits for the number of their event."""


class EventCatalog:
    """The formats of all events of one kernel, by number, by name and by system.

    `classes`: the events in the order of `available_events`; those that `features` lacks are left
    out. Behind them come the events of the systems around KVM. All are numbered in this order. The
    events of system `ftrace` are `print`, `stack` and
    `raw_data`; they are in `by_id` and `by_name` but in neither `events` nor `systems`.
    """

    def __init__(
        self,
        classes: Iterable[type[Tracepoint]],
        features: FeatureSet,
        build: Build,
    ) -> None:
        bound = _bind_all(classes, build.first_id, features)
        following = build.first_id + len(bound)
        self.events = (*bound, *declared_formats(build.host_formats, host.EVENTS, following))
        self.print = _bind_one(Print, PRINT_ID)
        self.raw_data = _bind_one(RawData, build.raw_data_id)
        self.stack = _bind_one(KernelStack, STACK_ID)
        self.ftrace = (self.print, self.stack, self.raw_data)
        everything = (*self.events, *self.ftrace)
        self.by_id = {form.id: form for form in everything}
        self.by_name = {form.name: form for form in everything}
        self._rank = _ranks(everything)
        # The number of the next event that a client defines, and of the first.
        self.next_id = self._first = following + len(self.events) - len(bound)
        self.printers = Printers()
        self.systems: dict[str, dict[str, EventFormat]] = {}
        for form in self.events:
            self.systems.setdefault(form.system, {})[form.event] = form

    def take_id(self) -> int:
        """Return a number for a further event: one that none had, as long as there is one.

        Raises ENODEV if all are taken. Like kernel/trace/trace_output.c:register_trace_event.
        """
        number = self.next_id
        if number > LAST_ID:
            free = (each for each in range(self._first, LAST_ID + 1) if each not in self.by_id)
            number = next(free, 0)
        if not number:
            raise KernelError(ENODEV, "all numbers of events are taken")
        self.next_id = max(self.next_id, number + 1)
        return number

    @property
    def defined_ids(self) -> range:
        """The numbers of the events that clients have defined, also of those that are gone."""
        return range(self._first, self.next_id)

    def add(self, form: EventFormat) -> None:
        """Add an event that a client has defined, before all others."""
        self.events = (form, *self.events)
        self.by_id[form.id] = self.by_name[form.name] = form
        self.systems.setdefault(form.system, {})[form.event] = form
        self.printers[form] = decoded_printer(form)
        self._rank = _ranks((*self.events, *self.ftrace))

    def remove(self, form: EventFormat) -> None:
        """Undo `add`."""
        self.events = tuple(other for other in self.events if other is not form)
        del self.by_id[form.id], self.by_name[form.name], self.printers[form]
        del self.systems[form.system][form.event]
        if not self.systems[form.system]:
            del self.systems[form.system]
        self._rank = _ranks((*self.events, *self.ftrace))

    def rank(self, form: EventFormat) -> int:
        """Return the place of an event in `available_events`; system `ftrace` comes last."""
        return self._rank[form.name]

    def find(self, system: str, event: str) -> EventFormat:
        """Return the event that a trigger is to switch. Raises EINVAL if there is none."""
        form = self.by_name.get(f"{system}:{event}")
        if form is None or system == FTRACE:
            raise KernelError(EINVAL, f"there is no event {system}:{event}")
        return form


def _ranks(forms: Iterable[EventFormat]) -> dict[str, int]:
    return {form.name: index for index, form in enumerate(forms)}


def _bind_all(
    classes: Iterable[type[Tracepoint]], first_id: int, features: FeatureSet
) -> tuple[EventFormat, ...]:
    found: list[EventFormat] = []
    for cls in classes:
        form = event_format(cls, first_id + len(found), features)
        if form is not None:
            found.append(form)
    return tuple(found)


def _bind_one(cls: type[Tracepoint], number: int) -> EventFormat:
    form = event_format(cls, number, frozenset())
    assert form is not None
    return form

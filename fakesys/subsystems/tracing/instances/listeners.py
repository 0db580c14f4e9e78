"""The way from the bus to the event files: which of them record or need an event."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fakesys.core.events import Bus
from fakesys.core.tracepoint import Tracepoint
from fakesys.subsystems.tracing.events.ftrace import FTRACE
from fakesys.subsystems.tracing.instances.event_file import EventFile


class Listeners:
    """The attached event files of all instances, by event.

    An event is on the bus's wanted list only while a file is attached to it, so an event that is
    off costs its call site one set lookup. Events of system `ftrace` never come from the bus.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._files: dict[type[Tracepoint], tuple[EventFile, ...]] = {}
        self._unsubscribe: dict[type[Tracepoint], Callable[[], None]] = {}

    def __bool__(self) -> bool:
        """Is a file attached to any event of the bus?"""
        return bool(self._unsubscribe)

    def add(self, file: EventFile) -> None:
        """Send the event to this file from now on, after the files that were added before."""
        cls = file.form.cls
        files = self._files.get(cls, ())
        self._files[cls] = (*files, file)
        if not files and file.form.system != FTRACE:
            self._unsubscribe[cls] = self._bus.subscribe(cls, self._deliver)

    def remove(self, file: EventFile) -> None:
        """Stop sending the event to this file. Precondition: it was added."""
        cls = file.form.cls
        left = tuple(other for other in self._files[cls] if other is not file)
        self._files[cls] = left
        if not left and cls in self._unsubscribe:
            self._unsubscribe.pop(cls)()

    def attached(self) -> Iterator[tuple[EventFile, ...]]:
        """Return for each event with files those files, in the order in which they hear of it."""
        return (files for files in self._files.values() if files)

    def _deliver(self, event: Tracepoint) -> None:
        task = self._bus.task
        for file in self._files[type(event)]:
            if file.records_only:
                file.recorder.record(file.form, event, task)
            else:
                file.handle(event, task)

"""Enabling and disabling events by name, as `set_event` and the files `enable` do.

Like kernel/trace/trace_events.c:ftrace_set_clr_event (v6.1). A word is `SYSTEM:EVENT`, `SYSTEM:*`,
`*:EVENT`, `SYSTEM` or `EVENT`, with `!` before it to disable.
"""

from __future__ import annotations

from collections.abc import Iterable
from errno import EINVAL

from fakesys.core.errors import KernelError
from fakesys.core.event_format import EventFormat
from fakesys.subsystems.tracing.base.trace_parser import first_word
from fakesys.subsystems.tracing.events.catalog import EventCatalog
from fakesys.subsystems.tracing.instances.instance import Instance


def write_set_event(instance: Instance, text: str) -> int:
    """Obey the first word of a text; return the number of characters taken. Raises EINVAL."""
    word, taken = first_word(text)
    if not word:
        return taken
    forms = match(instance.shared.catalog, word.removeprefix("!"))
    switch_all(instance, forms, not word.startswith("!"))
    return taken


def match(catalog: EventCatalog, word: str) -> list[EventFormat]:
    """Return the events that a word names. Raises EINVAL if there is none."""
    system, colon, event = word.partition(":")
    if colon:
        found = [
            form
            for form in catalog.events
            if (system in ("", "*") or form.system == system)
            and (event in ("", "*") or form.event == event)
        ]
    else:
        found = [form for form in catalog.events if word in (form.system, form.event)]
    if not found or not word:
        raise KernelError(EINVAL, f"no event is called {word!r}")
    return found


def clear_events(instance: Instance) -> None:
    """Disable all events, as opening `set_event` with O_TRUNC does."""
    for file in instance.known_files():
        file.disable()


def set_event_text(instance: Instance) -> str:
    """Return the enabled events, one a line."""
    return "".join(f"{file.form.name}\n" for file in instance.enabled_files())


def switch_all(instance: Instance, forms: Iterable[EventFormat], on: bool) -> None:
    """Enable or disable events, as the file `enable` of a directory does."""
    for form in forms:
        file = instance.file(form)
        if on:
            file.enable()
        else:
            file.disable()


def enabled_text(instance: Instance, forms: Iterable[EventFormat]) -> str:
    """Return what `enable` of a directory shows.

    0: none of the events is enabled, 1: all, X: some, ?: the directory has no events.
    Like trace_events.c:system_enable_read (v6.1).
    """
    states = {instance.file(form).enabled for form in forms}
    if not states:
        return "?\n"
    if len(states) == 2:
        return "X\n"
    return "1\n" if states == {True} else "0\n"

"""The words of `set_event`. Like kernel/trace/trace_events.c:ftrace_set_clr_event (v6.1)."""

from __future__ import annotations

from errno import EINVAL

from fakesys.core.errors import KernelError
from fakesys.core.event_format import EventFormat
from fakesys.subsystems.tracing.base.trace_parser import first_word
from fakesys.subsystems.tracing.instances.instance import Instance
from fakesys.subsystems.tracing.instances.tracing import Tracing


def write_set_event(instance: Instance, text: str) -> int:
    """Obey the first word of a text; the number of characters consumed. Raises EINVAL."""
    word, taken = first_word(text)
    if not word:
        return taken
    on = not word.startswith("!")
    forms = match(instance.tracing, word.removeprefix("!"))
    for form in forms:
        file = instance.file(form)
        if on:
            file.enable()
        else:
            file.disable()
    return taken


def match(tracing: Tracing, word: str) -> list[EventFormat]:
    """The events that a word names. Raises EINVAL when there is none."""
    system, colon, event = word.partition(":")
    if colon:
        found = [
            form
            for form in tracing.events
            if (system in ("", "*") or form.system == system)
            and (event in ("", "*") or form.event == event)
        ]
    else:
        found = [form for form in tracing.events if word in (form.system, form.event)]
    if not found or not word:
        raise KernelError(EINVAL, f"no event is called {word!r}")
    return found


def clear_events(instance: Instance) -> None:
    """Opening `set_event` with O_TRUNC: disable all."""
    for file in instance.known_files():
        file.disable()


def set_event_text(instance: Instance) -> str:
    """The enabled events, one a line."""
    return "".join(f"{file.form.name}\n" for file in instance.enabled_files())


def switch_all(instance: Instance, forms: list[EventFormat], on: bool) -> None:
    """What `enable` of a directory does with the events below it."""
    for form in forms:
        file = instance.file(form)
        if on:
            file.enable()
        else:
            file.disable()


def summary(instance: Instance, forms: list[EventFormat]) -> str:
    """What `enable` of a directory shows: 0 none, 1 all, X some, ? no event there."""
    if not forms:
        return "?"
    states = {instance.file(form).enabled for form in forms}
    if len(states) == 2:
        return "X"
    return "1" if states == {True} else "0"

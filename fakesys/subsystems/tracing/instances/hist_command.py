"""A line `hist:...` of a trigger file: what it makes, changes or removes.

Like kernel/trace/trace_events_hist.c:event_hist_trigger_parse, unregister_field_var_hists,
hist_unreg_all (v6.1).
"""

from __future__ import annotations

from errno import EBUSY, EINVAL

from fakesys.core.errors import KernelError
from fakesys.core.event_format import EventFormat
from fakesys.subsystems.tracing.filter.dialect import FilterError
from fakesys.subsystems.tracing.filter.filters import Filter, compile_filter
from fakesys.subsystems.tracing.hist.histogram import Histogram
from fakesys.subsystems.tracing.hist.parse import parse_histogram
from fakesys.subsystems.tracing.instances.event_file import EventFile
from fakesys.subsystems.tracing.instances.hist_trigger import (
    HistPlace,
    HistTrigger,
    find_equal,
    hists,
    is_referred,
    make_actions,
    register,
    release,
    update_only,
)
from fakesys.subsystems.tracing.instances.instance import Instance

BLANKS = " \t\n\v\f\r"


def obey_hist(instance: Instance, file: EventFile, text: str | None, *, remove: bool) -> None:
    """Obey what follows `hist:` in a line, or `!hist:`.

    Raises EINVAL, EEXIST, ENOENT, EBUSY, EDOM, and FilterError; most mistakes are logged.
    """
    if not text:
        raise KernelError(EINVAL, "a histogram needs keys")
    _Command(instance, file, text, remove).obey(file, text)


def clear_hists(file: EventFile) -> None:
    """Remove the histograms of an event, unless others use a variable of one.

    Opening `trigger` with O_TRUNC does this.
    """
    found = hists(file)
    if any(map(is_referred, found)):
        return
    for trigger in found:
        if trigger in file.triggers:
            remove_hist(trigger)


def remove_hist(trigger: HistTrigger) -> None:
    """Remove a histogram, and what was made for its sake on other events.

    What others refer to by now stays.
    """
    trigger.file.remove_trigger(trigger)
    trigger.removed()
    for other in _made_by(trigger):
        other.maker = None
        if not is_referred(other):
            remove_hist(other)


def _made_by(trigger: HistTrigger) -> list[HistTrigger]:
    return [
        other
        for file in trigger.instance.known_files()
        for other in hists(file)
        if other.maker is trigger
    ]


class _Command:
    """One line, and the histograms that it makes: one, and others for the sake of this one."""

    def __init__(self, instance: Instance, file: EventFile, text: str, remove: bool) -> None:
        self._instance = instance
        self._remove = remove
        self._place = HistPlace(instance, file, text, self._count_too, removing=remove)
        self._made: list[HistTrigger] = []

    def obey(self, file: EventFile, text: str) -> None:
        """Obey the line; what it has made is removed again if it fails."""
        parsed, condition = self._parse(file, text)
        if self._remove:
            self._remove_equal(file, parsed, condition)
            return
        if update_only(file, parsed, condition):
            return
        try:
            trigger = self._add(file, parsed, condition)
        except KernelError:
            for made in self._made:
                remove_hist(made)
            raise
        for made in self._made:
            made.maker = trigger

    def _parse(self, file: EventFile, text: str) -> tuple[Histogram, Filter | None]:
        body, condition = _divided(text)
        parsed = parse_histogram(body, file.form, self._place)
        return parsed, compile_condition(self._instance, file, condition)

    def _add(self, file: EventFile, parsed: Histogram, condition: Filter | None) -> HistTrigger:
        make_actions(self._instance, parsed, self._place)
        try:
            return register(self._instance, file, parsed, condition, self._place)
        except KernelError:
            release(self._instance, parsed)
            raise

    def _count_too(self, form: EventFormat, text: str) -> None:
        file = self._instance.file(form)
        parsed, condition = self._parse(file, text)
        self._made.append(self._add(file, parsed, condition))

    def _remove_equal(self, file: EventFile, parsed: Histogram, condition: Filter | None) -> None:
        old = find_equal(file, parsed, condition)
        if old is None:
            return
        if is_referred(old):
            raise KernelError(EBUSY, "another histogram refers to its variables")
        remove_hist(old)


def _divided(text: str) -> tuple[str, str | None]:
    """Return the histogram and `if FILTER`; the word `if` divides them, so blanks may precede it.

    Raises EINVAL.
    """
    if text.startswith("if"):
        raise KernelError(EINVAL, "there is no histogram before if")
    place = text.find("if", 1)
    while place >= 0:
        behind = text[place + 2 : place + 3]
        if text[place - 1] in " \t":
            if len(text) - place <= len("if "):
                raise KernelError(EINVAL, "there is no filter after if")
            if behind in " \t":
                return text[: place - 1].strip(BLANKS), text[place:].strip(BLANKS)
        place = text.find("if", place + 1)
    return text, None


def cut(text: str, separators: str) -> tuple[str, bool, str]:
    """Return what is before the first separator, whether there is one, and the rest: strsep()."""
    place = min((at for at in map(text.find, separators) if at >= 0), default=-1)
    return (text, False, "") if place < 0 else (text[:place], True, text[place + 1 :])


def compile_condition(instance: Instance, file: EventFile, text: str | None) -> Filter | None:
    """Compile the filter after `if`. Raises EINVAL, and FilterError, which is logged."""
    if text is None:
        return None
    word, more, body = cut(text, " \t")
    if word != "if" or not more:
        raise KernelError(EINVAL, f"{text!r} is not `if FILTER`")
    try:
        return compile_filter(body, file.form, instance.dialect)
    except FilterError as error:
        instance.log_filter_error(body, error)
        raise

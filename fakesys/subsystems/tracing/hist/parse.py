"""The text of a hist trigger: keys, values, sort order, size, name, variables, commands.

Like kernel/trace/trace_events_hist.c:parse_hist_trigger_attrs, create_sort_keys (v6.1).
"""

from __future__ import annotations

from errno import EINVAL
from typing import Literal

from msgspec import Struct, field

from fakesys.core.errors import KernelError
from fakesys.core.event_format import EventFormat
from fakesys.core.text import kstrtoull
from fakesys.subsystems.tracing.hist.expressions import Expression, Number
from fakesys.subsystems.tracing.hist.fields import Context, HistError, HistField, parse_field

MOST_KEYS = 3
MOST_VALUES = 3
MOST_SORT_KEYS = 2
MOST_VARIABLES = 16
DEFAULT_SIZE = 2048
SMALLEST_BITS, LARGEST_BITS = 7, 17
HITCOUNT = "hitcount"

Command = Literal["", "pause", "continue", "clear"]
_COMMANDS: dict[str, Command] = {
    "pause": "pause",
    "cont": "continue",
    "continue": "continue",
    "clear": "clear",
}
_ASSIGNED = {
    "key": "keys",
    "keys": "keys",
    "val": "values",
    "vals": "values",
    "values": "values",
    "sort": "sort",
    "name": "name",
    "clock": "clock",
    "size": "size",
}


class Parts(Struct):
    """The parts of the text, not yet parsed."""

    assigned: dict[str, str] = field(default_factory=dict)
    variables: list[str] = field(default_factory=list)
    command: Command = ""


class SortKey(Struct, frozen=True):
    """A column to sort by: the index of a key, -1 for the hit count, -2 - index for a value."""

    column: int
    spelling: str
    descending: bool


class Spec(Struct, frozen=True):
    """A histogram as a trigger line describes it; `text` is what follows `hist:` in the line."""

    text: str
    keys: tuple[HistField, ...]
    values: tuple[HistField, ...]
    sort: tuple[SortKey, ...]
    size: int
    name: str
    variables: tuple[tuple[str, Expression], ...]
    command: Command

    @property
    def spelling(self) -> str:
        """The text in the trigger file, without filter and state."""
        name = f"name={self.name}:" if self.name else ""
        keys = ",".join(key.spelling for key in self.keys)
        values = ",".join((HITCOUNT, *(value.spelling for value in self.values)))
        variables = ",".join(f"{name}={value.spelling}" for name, value in self.variables)
        sort = ",".join(
            key.spelling + (".descending" if key.descending else "") for key in self.sort
        )
        return (
            f"hist:{name}keys={keys}:vals={values}{f':{variables}' if variables else ''}"
            f":sort={sort}:size={self.size}"
        )


def parse_hist(text: str, form: EventFormat, context: Context) -> Spec:
    """Parse what follows `hist:`. Raises HistError, and EINVAL without keys."""
    parts = _split(text)
    if "keys" not in parts.assigned:
        raise KernelError(EINVAL, "a histogram needs keys")
    keys = _fields(parts.assigned["keys"], form, context, MOST_KEYS)
    values = _values(parts.assigned.get("values", ""), form, context)
    return Spec(
        text=text,
        keys=keys,
        values=values,
        sort=_sort_keys(parts.assigned.get("sort"), keys, values),
        size=_size(parts.assigned.get("size")),
        name=parts.assigned.get("name", ""),
        variables=_variables(parts.variables, form, context),
        command=parts.command,
    )


def _split(text: str) -> Parts:
    parts = Parts()
    for piece in text.split(":"):
        name, assigned, value = piece.partition("=")
        if not assigned:
            if piece not in _COMMANDS:
                raise KernelError(EINVAL, f"{piece!r} is no part of a histogram")
            parts.command = _COMMANDS[piece]
        elif not value:
            raise HistError("Empty assignment", piece)
        elif name in _ASSIGNED:
            parts.assigned[_ASSIGNED[name]] = value
        else:
            parts.variables.append(piece)
    if len(parts.variables) > MOST_VARIABLES:
        raise HistError("Too many variables defined", parts.variables[MOST_VARIABLES])
    return parts


def _fields(text: str, form: EventFormat, context: Context, most: int) -> tuple[HistField, ...]:
    words = text.split(",")
    if len(words) > most:
        raise KernelError(EINVAL, f"more than {most} fields")
    return tuple(parse_field(word, form, context) for word in words)


def _values(text: str, form: EventFormat, context: Context) -> tuple[HistField, ...]:
    words = [word for word in text.split(",") if word and word != HITCOUNT]
    if len(words) > MOST_VALUES:
        raise KernelError(EINVAL, f"more than {MOST_VALUES} values")
    found = tuple(parse_field(word, form, context) for word in words)
    for value in found:
        if value.is_text or value.modifier not in ("", "hex"):
            raise HistError("Invalid field modifier", value.modifier or value.name)
    return found


def _sort_keys(
    text: str | None, keys: tuple[HistField, ...], values: tuple[HistField, ...]
) -> tuple[SortKey, ...]:
    if text is None:
        return (SortKey(-1, HITCOUNT, False),)
    words = text.split(",")
    if len(words) > MOST_SORT_KEYS:
        raise HistError("Too many sort fields (Max = 2)", f"sort={text}")
    if "" in words:
        raise HistError("Empty sort field", f"sort={text}")
    return tuple(_sort_key(word, keys, values) for word in words)


def _sort_key(word: str, keys: tuple[HistField, ...], values: tuple[HistField, ...]) -> SortKey:
    name, dot, modifier = word.partition(".")
    if dot and modifier not in ("ascending", "descending"):
        raise HistError("Invalid sort modifier", modifier)
    descending = modifier == "descending"
    if name == HITCOUNT:
        return SortKey(-1, HITCOUNT, descending)
    for column, key in enumerate(keys):
        if key.name == name:
            return SortKey(column, key.spelling, descending)
    for column, value in enumerate(values):
        if value.name == name:
            return SortKey(-2 - column, value.spelling, descending)
    raise HistError("Sort field must be a key or a val", word)


def _size(text: str | None) -> int:
    if text is None:
        return DEFAULT_SIZE
    bits = max(0, kstrtoull(text) - 1).bit_length()
    if not SMALLEST_BITS <= bits <= LARGEST_BITS:
        raise KernelError(EINVAL, f"{text} entries are too few or too many")
    return 1 << bits


def _variables(
    texts: list[str], form: EventFormat, context: Context
) -> tuple[tuple[str, Expression], ...]:
    found: dict[str, Expression] = {}

    def field_of(text: str) -> Number:
        if text.startswith("$"):
            if text[1:] not in found:
                raise HistError("Couldn't find variable", text)
            return found[text[1:]].value
        number = parse_field(text, form, context)
        if number.is_text:
            raise HistError("String type can not be an operand in expression", text)
        return lambda event, task: int(number.get(event, task))

    for text in texts:
        for assignment in text.split(","):
            name, _, expression = assignment.partition("=")
            if name in found:
                raise HistError("Variable already defined", name)
            found[name] = Expression(expression, field_of)
    return tuple(found.items())

"""The text of a hist trigger: keys, values, sort order, size, name, variables, commands.

Like kernel/trace/trace_events_hist.c:parse_hist_trigger_attrs, create_sort_keys (v6.1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from errno import EINVAL
from typing import Literal

from msgspec import Struct, field

from fakesys.core.errors import KernelError
from fakesys.core.event_format import EventFormat
from fakesys.core.text import kstrtoull
from fakesys.subsystems.tracing.hist.expressions import Expression, Number, root_operator
from fakesys.subsystems.tracing.hist.fields import (
    RELATIVE,
    Context,
    HistError,
    HistField,
    parse_field,
)

MOST_KEYS = 3
MOST_VALUES = 3
MOST_SORT_KEYS = 2
MOST_VARIABLES = 16
DEFAULT_SIZE = 2048
SMALLEST_BITS, LARGEST_BITS = 7, 17
HITCOUNT = "hitcount"
_REFERENCE = re.compile(r"\$(\w+)")

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
    clock: str = ""

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
            f":sort={sort}:size={self.size}{f':clock={self.clock}' if self.clock else ''}"
        )


def parse_hist(text: str, form: EventFormat, context: Context) -> Spec:
    """Parse what follows `hist:`. Raises HistError, and EINVAL without keys."""
    parts = _split(text)
    if "keys" not in parts.assigned:
        raise KernelError(EINVAL, "a histogram needs keys")
    texts = _plain_variables(parts.variables)
    values = _values(parts.assigned.get("values", ""), form, context, texts)
    variables = _variables(parts.variables, form, context)
    keys = _keys(parts.assigned["keys"], form, context)
    uses_time = any("common_timestamp" in piece for piece in text.split(":"))
    return Spec(
        text=text,
        keys=keys,
        values=values,
        sort=_sort_keys(parts.assigned.get("sort"), keys, values),
        size=_size(parts.assigned.get("size")),
        name=parts.assigned.get("name", ""),
        variables=variables,
        command=parts.command,
        clock=parts.assigned.get("clock", "global") if uses_time else "",
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


def _plain_variables(texts: list[str]) -> dict[str, str]:
    """Return the variables that are a field; a reference to one means that field."""
    pairs = (word.partition("=") for text in texts for word in text.split(","))
    return {name: text for name, _, text in pairs if root_operator(text) is None}


def _keys(text: str, form: EventFormat, context: Context) -> tuple[HistField, ...]:
    words = text.split(",")
    if len(words) > MOST_KEYS:
        raise KernelError(EINVAL, f"more than {MOST_KEYS} keys")
    found = tuple(_field(word, form, context, {}) for word in words)
    for key in found:
        if key.modifier in RELATIVE:
            raise HistError("Invalid field modifier", key.modifier)
    return found


def _values(
    text: str, form: EventFormat, context: Context, variables: Mapping[str, str]
) -> tuple[HistField, ...]:
    words = [word for word in text.split(",") if word and word != HITCOUNT]
    if len(words) > MOST_VALUES:
        raise KernelError(EINVAL, f"more than {MOST_VALUES} values")
    found = []
    for word in words:
        value = _field(word, form, context, variables)
        if value.modifier not in ("", "hex", *RELATIVE):
            raise HistError("Invalid field modifier", word)
        found.append(value)
    return tuple(found)


def _field(
    word: str, form: EventFormat, context: Context, variables: Mapping[str, str]
) -> HistField:
    """Parse a key or value: a field, an expression, or a reference to a variable."""
    if word.startswith("$"):
        if word[1:] not in variables:
            raise _unknown_variable(word)
        word = variables[word[1:]]
    if word.startswith("-") or root_operator(word) is None:
        return parse_field(word, form, context)

    def number_of(text: str) -> Number:
        return _number(parse_field(text, form, context), text)

    made = Expression(word, number_of)
    return HistField(
        made.spelling, "", False, made.value, lambda value: f"{value:>10}", is_expression=True
    )


def _unknown_variable(word: str) -> HistError:
    first = HistError("Couldn't find variable", word[1:])
    return HistError("Couldn't find field", word, before=first)


def _number(field: HistField, text: str) -> Number:
    if field.is_text:
        raise HistError("String type can not be an operand in expression", text)
    return lambda event, task: int(field.get(event, task))


def _sort_keys(
    text: str | None, keys: tuple[HistField, ...], values: tuple[HistField, ...]
) -> tuple[SortKey, ...]:
    if text is None:
        return (SortKey(-1, HITCOUNT, False),)
    words = text.split(",")
    if "" in words[:MOST_SORT_KEYS]:
        raise HistError("Empty sort field", f"sort={text}")
    if len(words) > MOST_SORT_KEYS:
        raise HistError("Too many sort fields (Max = 2)", f"sort={text}")
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
    plain: dict[str, str] = {}

    def field_of(text: str) -> Number:
        if text.startswith("$"):
            if text[1:] not in found:
                raise _unknown_variable(text)
            return found[text[1:]].value
        number = parse_field(text, form, context)
        if number.modifier in RELATIVE:
            raise HistError("Invalid field modifier", number.modifier)
        return _number(number, text)

    for text in texts:
        for assignment in text.split(","):
            name, _, expression = assignment.partition("=")
            if name in found:
                raise HistError("Variable already defined", name)
            # A reference to a variable that is a field means that field.
            expression = _REFERENCE.sub(
                lambda match: plain[match[1]] if match[1] in plain else match[0], expression
            )
            if root_operator(expression) is None and not expression.startswith("$"):
                plain[name] = expression
            found[name] = Expression(expression, field_of)
    return tuple(found.items())

"""A histogram from its text: values, variables, keys, order.

Like kernel/trace/trace_events_hist.c:create_hist_data, create_val_fields, create_var_fields,
create_key_fields, create_sort_keys, create_tracing_map_fields (v6.1).
"""

from __future__ import annotations

from errno import EINVAL

from fakesys.core.c_types import align_up
from fakesys.core.errors import KernelError
from fakesys.core.event_format import EventFormat
from fakesys.subsystems.tracing.hist.actions import parse_action
from fakesys.subsystems.tracing.hist.attributes import (
    Attributes,
    definitions,
    parse_attributes,
    refusal,
)
from fakesys.subsystems.tracing.hist.expressions import ExpressionParser, first_operand
from fakesys.subsystems.tracing.hist.fields import SYM_OFFSET, TEXT_ROOM, stack_field
from fakesys.subsystems.tracing.hist.histogram import (
    HITCOUNT,
    Flag,
    HistField,
    Histogram,
    SortKey,
)
from fakesys.subsystems.tracing.hist.variables import Place, is_taken

COMMON_STACK = "common_stacktrace"
MOST_KEYS = 3
# The hit count is one of them.
MOST_VALUES = 3
MOST_SORT_KEYS = 2
# Bytes of all keys (HIST_KEY_SIZE_MAX).
KEY_ROOM = TEXT_ROOM + 16 * 8
_NOT_IN_VARIABLES = Flag.GRAPH | Flag.PERCENT | Flag.BUCKET | Flag.LOG2
_NOT_IN_VALUES = (
    Flag.BUCKET | Flag.LOG2 | Flag.SYM | Flag.SYM_OFFSET | Flag.SYSCALL | Flag.STACKTRACE
)


def parse_histogram(text: str, form: EventFormat, place: Place) -> Histogram:
    """Parse what follows `hist:`, without making its actions.

    Raises EINVAL, EDOM, ENOMEM and ERANGE; most mistakes are logged.
    """
    body = text.replace(".sym-offset", f".{SYM_OFFSET}")
    attributes = parse_attributes(body, place.log)
    attributes.text = text
    histogram = Histogram(form, attributes)
    for action in attributes.actions:
        parsed = parse_action(action, lambda *name: place.find(*name) is not None, place.log)
        histogram.actions.append(parsed)
    _add_fields(histogram, attributes, place)
    histogram.sort = _sort_keys(histogram, attributes.parts.get("sort"), place)
    _number_variables(histogram)
    return histogram


def _add_fields(histogram: Histogram, attributes: Attributes, place: Place) -> None:
    parser = ExpressionParser(histogram, place)
    parser.definitions = definitions(attributes.assignments, place.log)
    hits = HistField(lambda hit: 1, Flag.HITCOUNT, "u64", 8)
    histogram.values.append(hits)
    _add_values(histogram, parser, attributes.parts.get("values"), place)
    for number, (name, text) in enumerate(parser.definitions):
        _add_variable(histogram, parser, name, text, place)
        # The kernel cuts the text at its operators: to later ones it is its first operand.
        parser.definitions[number] = name, first_operand(text)
    _add_keys(histogram, parser, attributes.parts["keys"], place)


def _add_values(
    histogram: Histogram, parser: ExpressionParser, text: str | None, place: Place
) -> None:
    words = [] if text is None else text.split(",")
    taken = 0
    for word in words[:MOST_VALUES]:
        if len(histogram.values) == MOST_VALUES:
            break
        taken += 1
        if word == HITCOUNT:
            continue
        value = parser.parse(word, Flag(0))
        if value.flags & _NOT_IN_VALUES:
            raise refusal(place.log, "Invalid field modifier", word)
        histogram.values.append(value)
    if words[taken:] not in ([], [HITCOUNT]):
        raise KernelError(EINVAL, f"more than {MOST_VALUES} values")


def _add_variable(
    histogram: Histogram, parser: ExpressionParser, name: str, text: str, place: Place
) -> None:
    if is_taken(histogram, place, name):
        raise refusal(place.log, "Variable already defined", name)
    made = parser.parse(text, Flag.VARIABLE, name)
    if made.flags & _NOT_IN_VARIABLES:
        raise refusal(place.log, "Invalid field modifier", text)
    if made.flags & Flag.EXECNAME:
        made.flags = Flag.TEXT | Flag.VARIABLE | Flag.EXECNAME
        made.size, made.signed, made.type = TEXT_ROOM, False, "char[]"
        made.get = lambda hit: hit.comm
    histogram.values.append(made)


def _add_keys(histogram: Histogram, parser: ExpressionParser, text: str, place: Place) -> None:
    words = text.split(",")
    room = 0
    for word in words[:MOST_KEYS]:
        if word == "stacktrace" or (place.has_stack_field and word == COMMON_STACK):
            name = COMMON_STACK if place.has_stack_field else word
            key = stack_field(histogram.form, name)
        else:
            key = parser.parse(word, Flag.KEY)
            if key.has_variable:
                message = "Using variable references in keys not supported"
                raise refusal(place.log, message, word)
        key.offset, key.size = room, align_up(key.size, 8)
        room += key.size
        histogram.keys.append(key)
        if room > KEY_ROOM:
            raise KernelError(EINVAL, f"keys of more than {KEY_ROOM} bytes")
    if words[MOST_KEYS:]:
        raise KernelError(EINVAL, f"more than {MOST_KEYS} keys")


def _number_variables(histogram: Histogram) -> None:
    for each in histogram.fields:
        if not each.flags & Flag.VARIABLE:
            continue
        number = histogram.next_variable()
        if number is None:
            raise KernelError(EINVAL, "too many variables")
        each.index, each.owner = number, histogram


def _sort_keys(histogram: Histogram, text: str | None, place: Place) -> tuple[SortKey, ...]:
    if text is None:
        return (SortKey(-1, HITCOUNT, False),)
    words = text.split(",")
    found: list[SortKey] = []
    for number, word in enumerate(words[:MOST_SORT_KEYS]):
        if not word:
            raise refusal(place.log, "Empty sort field", "sort=")
        if number == MOST_SORT_KEYS - 1 and words[MOST_SORT_KEYS:]:
            raise refusal(place.log, "Too many sort fields (Max = 2)", "sort=")
        found.append(_sort_key(histogram, word, place))
    return tuple(found)


def _sort_key(histogram: Histogram, word: str, place: Place) -> SortKey:
    name, dot, modifier = word.partition(".")
    if not name:
        raise refusal(place.log, "Empty sort field", "sort=")
    column = _column(histogram, name)
    if column is None:
        raise refusal(place.log, "Sort field must be a key or a val", name)
    if dot and modifier not in ("ascending", "descending"):
        raise refusal(place.log, "Invalid sort modifier", modifier)
    number, spelling = column
    return SortKey(number, spelling, modifier == "descending")


def _column(histogram: Histogram, name: str) -> tuple[int, str] | None:
    """Return the column of a name and its text in the trigger file. Values come before keys."""
    if name == HITCOUNT:
        return -1, HITCOUNT
    for number, value in enumerate(histogram.sums[1:], start=1):
        if value.label == name:
            return -1 - number, value.spelling
    for number, key in enumerate(histogram.keys):
        if key.label == name:
            return number, key.spelling
    return None

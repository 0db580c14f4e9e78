"""Variables of a histogram: expressions of numbers, fields and earlier variables.

Like kernel/trace/trace_events_hist.c:parse_expr, contains_operator, parse_unary (v6.1): the
rightmost operator of the lowest rank is the root, and three operators are the most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from errno import EINVAL
from types import MappingProxyType
from typing import Any

from fakesys.core.errors import KernelError
from fakesys.core.events import Task
from fakesys.core.text import kstrtoull
from fakesys.subsystems.tracing.hist.fields import ALL_BITS, HistError

MOST_OPERATORS = 3

Number = Callable[[Any, Task], int]
FieldOf = Callable[[str], Number]

_OPERATIONS: Mapping[str, Callable[[int, int], int]] = MappingProxyType(
    {
        "+": lambda a, b: a + b,
        "-": lambda a, b: a - b,
        "*": lambda a, b: a * b,
        "/": lambda a, b: a // b if b else ALL_BITS,
    }
)


class Expression:
    """A parsed expression; `constant` is its value if it depends on no event."""

    def __init__(self, text: str, field_of: FieldOf) -> None:
        self._operators = 0
        self._field_of = field_of
        self.text = text
        self.value, self.constant = self._parse(text)

    @property
    def spelling(self) -> str:
        """The text in the trigger file, where a constant is shown as its value."""
        return self.text if self.constant is None else str(self.constant)

    def _parse(self, text: str) -> tuple[Number, int | None]:
        if self._operators > MOST_OPERATORS:
            raise HistError("Too many subexpressions (3 max)", text)
        place = root_operator(text)
        if place is None:
            return self._atom(text)
        self._operators += 1
        if place == 0:
            return self._negated(text)
        left, operation, right = text[:place], text[place], text[place + 1 :]
        if not left or not right:
            raise HistError("Expecting an operand", text)
        first, first_constant = self._parse(left)
        second, second_constant = self._parse(right)
        if operation == "/" and second_constant == 0:
            raise HistError("Division by zero", right)
        combine = _OPERATIONS[operation]
        if first_constant is not None and second_constant is not None:
            return _constant(combine(first_constant, second_constant) & ALL_BITS)
        return (
            lambda event, task: combine(first(event, task), second(event, task)) & ALL_BITS
        ), None

    def _negated(self, text: str) -> tuple[Number, int | None]:
        inside = text[1:]
        if not inside.startswith("(") or ")" not in inside:
            raise KernelError(EINVAL, "a minus sign needs parentheses")
        inside = inside[1:]
        body, _, rest = inside.rpartition(")")
        if rest:
            raise HistError("Unary minus not supported in sub-expressions", inside)
        value, constant = self._parse(body)
        if constant is not None:
            return _constant(-constant & ALL_BITS)
        return (lambda event, task: -value(event, task) & ALL_BITS), None

    def _atom(self, text: str) -> tuple[Number, int | None]:
        if text[:1].isdigit():
            try:
                return _constant(kstrtoull(text))
            except KernelError:
                raise HistError("Expecting numeric literal", text) from None
        return self._field_of(text), None


def root_operator(text: str) -> int | None:
    """Return the index of the operator that is computed last, 0 for a leading minus sign.

    >>> root_operator("a*b-c")
    3
    """
    hidden = text.replace(".sym-offset", ".sym_offset")
    minus = hidden.rfind("-")
    if minus == 0:
        return 0
    for pair in ("+-", "*/"):
        place = max(hidden.rfind(character) for character in pair)
        if place >= 0:
            return place
    return None


def _constant(value: int) -> tuple[Number, int]:
    return (lambda event, task: value), value

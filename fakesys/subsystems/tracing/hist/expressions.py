"""Expressions of fields, numbers and variables.

Like kernel/trace/trace_events_hist.c:parse_expr, parse_unary, parse_atom, contains_operator,
check_expr_operands (v6.1): the rightmost operator of the lowest rank is computed last, and three
operators are the most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from errno import EDOM, EINVAL
from types import MappingProxyType

from fakesys.core.errors import KernelError
from fakesys.core.text import kstrtoull
from fakesys.subsystems.tracing.hist.attributes import refusal
from fakesys.subsystems.tracing.hist.fields import number_of, parse_field
from fakesys.subsystems.tracing.hist.histogram import ALL_BITS, Flag, HistField, Histogram, Hit
from fakesys.subsystems.tracing.hist.variables import Place, event_variable, refer

MOST_OPERATORS = 3
_TIME = Flag.TIMESTAMP | Flag.USECS
_NONE = Flag(0)

_OPERATIONS: Mapping[str, Callable[[int, int], int]] = MappingProxyType(
    {
        "+": lambda a, b: a + b,
        "-": lambda a, b: a - b,
        "*": lambda a, b: a * b,
        "/": lambda a, b: a // b if b else ALL_BITS,
    }
)


def root_operator(text: str) -> int | None:
    """Return the index of the operator that is computed last, 0 for a leading minus sign.

    >>> root_operator("a*b-c")
    3
    """
    if text.rfind("-") == 0:
        return 0
    for pair in ("+-", "*/"):
        place = max(text.rfind(character) for character in pair)
        if place >= 0:
            return place
    return None


def first_operand(text: str) -> str:
    """Return what is before all operators, but for a leading minus sign.

    >>> first_operand("a*b-c")
    'a'
    """
    while place := root_operator(text):
        text = text[:place]
    return text


class ExpressionParser:
    """Parses the expressions of one histogram.

    `definitions`: its own variables and their texts, while its fields are made.
    """

    def __init__(self, histogram: Histogram, place: Place) -> None:
        self.definitions: list[tuple[str, str]] = []
        self._histogram = histogram
        self._place = place
        self._operators = 0

    def parse(self, text: str, flags: Flag, variable: str = "") -> HistField:
        """Return the field of an expression; `variable`: the one that it is the value of.

        Raises EINVAL, EDOM and ENOMEM; most mistakes are logged.
        """
        self._operators = 0
        return self._expression(text, flags, variable)

    def atom(self, text: str, flags: Flag, variable: str = "") -> HistField:
        """Parse a number, a reference to a variable, or a field. Raises as `parse`."""
        if text[:1].isdigit():
            return self._constant(text, flags, variable)
        system, event, name = _qualified(text)
        local = self._local(system, event, name)
        if local is None:
            found = self._reference(system, event, name)
            if found is not None:
                return _alias(found, variable) if variable else found
        made = parse_field(
            self._histogram, name if local is None else local, flags, self._place.log
        )
        made.variable, made.owner = variable, self._histogram
        return made

    def _refuse(self, message: str, at: str | None, errno: int = EINVAL) -> KernelError:
        return refusal(self._place.log, message, at, errno)

    def _expression(self, text: str, flags: Flag, variable: str) -> HistField:
        if self._operators > MOST_OPERATORS:
            raise self._refuse("Too many subexpressions (3 max)", text)
        place = root_operator(text)
        if place is None:
            return self.atom(text, flags, variable)
        self._operators += 1
        if place == 0:
            return self._negated(text, flags, variable)
        left, right = text[:place], text[place + 1 :]
        if not left or not right:
            raise KernelError(EINVAL, f"{text!r} has no two operands")
        first = self._operand(left)
        second = self._operand(right)
        made = self._combined(text[place], first, second, flags, right)
        made.variable = variable
        return made

    def _operand(self, text: str) -> HistField:
        found = self._expression(text, _NONE, "")
        if found.flags & Flag.TEXT:
            raise self._refuse("String type can not be an operand in expression", text)
        return found

    def _negated(self, text: str, flags: Flag, variable: str) -> HistField:
        if self._operators > MOST_OPERATORS:
            raise self._refuse("Too many subexpressions (3 max)", text)
        inside = text[1:]
        if "(" not in inside:
            raise KernelError(EINVAL, "a minus sign needs parentheses")
        inside = inside[1:]
        body, closed, rest = inside.rpartition(")")
        if not closed:
            raise KernelError(EINVAL, "a parenthesis is not closed")
        if rest:
            raise self._refuse("Unary minus not supported in sub-expressions", inside)
        found = self._operand(body)
        made = _like(found, flags | Flag.EXPRESSION | (found.flags & _TIME))
        made.get = lambda hit: -number_of(found.get(hit)) & ALL_BITS
        made.operands, made.operator, made.variable = (found,), "-(", variable
        made.name = f"-({_inner_name(found)})"
        made.owner = self._histogram
        return made

    def _combined(
        self, operation: str, first: HistField, second: HistField, flags: Flag, right: str
    ) -> HistField:
        one, two = self._meaning(first), self._meaning(second)
        if (one.flags ^ two.flags) & Flag.USECS:
            raise self._refuse("Timestamp units in expression don't match", None)
        constant = one.flags & two.flags & Flag.CONSTANT
        first.once = second.once = True
        if operation == "/" and two.flags & Flag.CONSTANT and two.constant == 0:
            raise self._refuse("Division by zero", right, EDOM)
        combine = _OPERATIONS[operation]
        if constant:
            value = combine(one.constant, two.constant) & ALL_BITS
            made = constant_field(value, flags | Flag.CONSTANT | (first.flags & _TIME))
        else:
            made = _like(first, flags | Flag.EXPRESSION | (first.flags & _TIME))
            made.get = _binary(combine, first, second)
            made.operands, made.operator = (first, second), operation
            made.name = f"{first.in_expression}{operation}{second.in_expression}"
        made.owner = self._histogram
        return made

    def _meaning(self, found: HistField) -> HistField:
        """Return the variable that an operand refers to, or the operand."""
        if not found.flags & (Flag.REFERENCE | Flag.ALIAS):
            return found
        assert found.owner is not None
        variable = found.owner.variable(found.name)
        if variable is None:
            raise KernelError(EINVAL, f"${found.name} is no variable of an expression")
        return variable

    def _constant(self, text: str, flags: Flag, variable: str) -> HistField:
        try:
            value = kstrtoull(text)
        except KernelError:
            raise self._refuse("Expecting numeric literal", text) from None
        made = constant_field(value, flags | Flag.CONSTANT)
        made.variable, made.owner = variable, self._histogram
        return made

    def _local(self, system: str, event: str, name: str) -> str | None:
        """Return the field that a variable of this histogram is.

        Like trace_events_hist.c:local_field_var_ref, field_name_from_var.
        """
        form = self._histogram.form
        if system and (system, event) != (form.system, form.event):
            return None
        if not _is_reference(name):
            return None
        for defined, text in self.definitions:
            if defined == name[1:] and root_operator(text) is None and not _is_reference(text):
                return text
        return None

    def _reference(self, system: str, event: str, name: str) -> HistField | None:
        """Return a reference to a variable of a histogram that is there; None if it is no name."""
        if not _is_reference(name):
            return None
        found = event_variable(self._histogram, self._place, system, event, name[1:])
        made = None if found is None else refer(self._histogram, found, system, event)
        if made is None:
            self._place.log("Couldn't find variable", name[1:])
        return made


def _qualified(text: str) -> tuple[str, str, str]:
    """Divide SYSTEM.EVENT.NAME; the first two are empty if they are not there."""
    if text.count(".") < 2:
        return "", "", text
    system, event, name = text.split(".", 2)
    return system, event, name


def _is_reference(name: str) -> bool:
    return len(name) > 1 and name[0] == "$"


def constant_field(value: int, flags: Flag) -> HistField:
    """Return the field of a number."""
    return HistField(lambda hit: value, flags, "u64", 8, constant=value)


def _like(operand: HistField, flags: Flag) -> HistField:
    """Return a field of the type of an operand."""
    return HistField(operand.get, flags, operand.type, operand.size, operand.signed)


def _binary(
    combine: Callable[[int, int], int], first: HistField, second: HistField
) -> Callable[[Hit], int]:
    return lambda hit: combine(number_of(first.get(hit)), number_of(second.get(hit))) & ALL_BITS


def _inner_name(found: HistField) -> str:
    """Like trace_events_hist.c:expr_str, of what is in the parentheses of a minus sign."""
    if not found.operands:
        return found.in_expression
    if found.operator == "-(":
        return "-()"
    first, second = found.operands
    return f"{first.in_expression}{found.operator}{second.in_expression}"


def _alias(reference: HistField, variable: str) -> HistField:
    """Return a variable that is another one. Like trace_events_hist.c:create_alias."""
    time = reference.flags & (_TIME | Flag.STACKTRACE)
    return HistField(
        reference.get,
        Flag.ALIAS | Flag.VARIABLE | time,
        reference.type,
        reference.size,
        reference.signed,
        operands=(reference,),
        variable=variable,
        index=reference.index,
        owner=reference.owner,
        system=reference.system,
        event=reference.event,
        name=reference.name,
        reference=reference.reference,
    )

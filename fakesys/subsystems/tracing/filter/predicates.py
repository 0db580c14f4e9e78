"""One comparison of a filter: FIELD OP VALUE becomes a test, or the kernel's error with its place.

Like kernel/trace/trace_events_filter.c:parse_pred (v6.1, v6.18).
"""

from __future__ import annotations

from errno import EINVAL, EPERM

from fakesys.core.errors import KernelError
from fakesys.core.event_format import EventFormat
from fakesys.core.text import kstrtoll, kstrtoull
from fakesys.subsystems.tracing.filter.comparisons import (
    Test,
    compare_cpus,
    compare_number,
    compare_text,
)
from fakesys.subsystems.tracing.filter.cpulist import parse_cpulist
from fakesys.subsystems.tracing.filter.dialect import Dialect, FilterError
from fakesys.subsystems.tracing.filter.operands import STACK_OPERAND, Operand, operand
from fakesys.subsystems.tracing.filter.scan import BLANKS, after_blanks, end_of

CPU_LIST = "CPUS"
USER_STRING, FUNCTION = ".ustring", ".function"
# Names of the stack at the event: histograms use it, in a filter no comparison holds.
STACKS = frozenset(("stacktrace", "STACKTRACE"))
# Longer operators before their beginnings.
OPERATORS = ("~", "!=", "==", "<=", "<", ">=", ">", "&")
LONGEST_NUMBER = 23
# MAX_FILTER_STR_VAL without its NUL.
LONGEST_STRING = 255


class PredicateParser:
    """One pass over `FIELD OP VALUE`, which begins at index `start` of the text."""

    def __init__(self, text: str, start: int, form: EventFormat, dialect: Dialect) -> None:
        self._text = text
        self._form = form
        self._cpus = dialect.cpus
        self._functions = dialect.functions
        self._at = start

    def parse(self) -> tuple[Test, int]:
        """Return the comparison and the index at which it ends. Raises FilterError."""
        field = self._field()
        # It says in whose memory the text of a pointer is: no event here has such a field.
        self._take(USER_STRING)
        of_function = self._functions and self._take(FUNCTION)
        operation = self._operator()
        self._at = after_blanks(self._text, self._at)
        if of_function:
            raise self._no_function(field, operation)
        first = self._text[self._at : self._at + 1]
        if first in ("'", '"'):
            return self._string(field, operation, first), self._at
        if first.isdigit() or first == "-":
            return self._number(field, operation), self._at
        if self._cpus and self._text.startswith(CPU_LIST, self._at):
            return self._cpu_list(field, operation), self._at
        raise self._wrong("Invalid value (did you forget quotes)?")

    def _wrong(self, message: str, at: int | None = None) -> FilterError:
        # The kernel counts from the character before.
        return FilterError(EINVAL, message, 1 + (self._at if at is None else at))

    def _take(self, suffix: str) -> bool:
        found = self._text.startswith(suffix, self._at)
        self._at += len(suffix) if found else 0
        return found

    def _no_function(self, field: Operand, operation: str) -> FilterError:
        """Return the refusal of a function's name.

        Differs: the kernel has no table of symbols, so no function is ever found.
        """
        if not field.is_long:
            return self._wrong("Illegal operation for field type")
        if operation not in ("==", "!="):
            return self._wrong("Invalid operator")
        start, text = self._at, self._text
        if text[start : start + 1].isdigit():
            end = end_of(text, start, str.isalnum)
            if end - start > LONGEST_NUMBER:
                return self._wrong("Operand too long", end)
            try:
                kstrtoull(text[start:end])
            except KernelError:
                return self._wrong("Illegal integer value", end)
        else:
            end = end_of(text, start, lambda character: character not in BLANKS)
        return self._wrong("Function not found", end)

    def _field(self) -> Operand:
        end = end_of(self._text, self._at, _is_word)
        name, self._at = self._text[self._at : end], end
        if not name:
            raise FilterError(EPERM, None)
        found = operand(self._form, name)
        if found is None and self._functions and name in STACKS:
            found = STACK_OPERAND
        if found is None:
            raise self._wrong("Field not found")
        return found

    def _operator(self) -> str:
        self._at = after_blanks(self._text, self._at)
        for candidate in OPERATORS:
            if self._text.startswith(candidate, self._at):
                self._at += len(candidate)
                return candidate
        raise self._wrong("Invalid operator")

    def _string(self, field: Operand, operation: str, quote: str) -> Test:
        if operation not in ("~", "==", "!="):
            raise self._wrong("Illegal operation for field type")
        if not field.is_text:
            raise self._wrong("Expecting numeric field")
        # Quotes are paired too.
        end = self._text.index(quote, self._at + 1)
        value, self._at = self._text[self._at + 1 : end], end
        if len(value) > LONGEST_STRING:
            raise self._wrong("Operand too long")
        self._at = end + 1
        return compare_text(field, operation, value)

    def _number(self, field: Operand, operation: str) -> Test:
        if field.is_text:
            raise self._wrong("Expecting string field")
        if operation == "~":
            raise self._wrong("Illegal operation for field type")
        start = self._at
        self._at += self._text[start] == "-"
        self._at = end_of(self._text, self._at, str.isalnum)
        digits = self._text[start : self._at]
        if len(digits) > LONGEST_NUMBER:
            raise self._wrong("Operand too long")
        try:
            value = kstrtoll(digits) if field.signed else kstrtoull(digits)
        except KernelError:
            raise self._wrong("Illegal integer value", start) from None
        return compare_number(field, operation, value)

    def _cpu_list(self, field: Operand, operation: str) -> Test:
        if field.is_text or not field.takes_cpus or operation not in ("==", "!=", "&"):
            raise self._wrong("Illegal operation for field type")
        start = self._at + len(CPU_LIST)
        if self._text[start : start + 1] != "{":
            raise self._wrong("Missing '{'", start + 1)
        end = self._text.find("}", start)
        if end < 0:
            raise self._wrong("Missing '}'", len(self._text))
        inside = self._text[start + 1 : end]
        cpus = parse_cpulist(inside, self._cpus) if inside else None
        if cpus is None:
            raise self._wrong("Invalid cpulist", end)
        self._at = end + 1
        return compare_cpus(field, operation, cpus, self._cpus)


def _is_word(character: str) -> bool:
    return character == "_" or (character.isascii() and character.isalnum())

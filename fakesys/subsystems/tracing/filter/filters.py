"""The filter language: a text becomes one Python function, or the kernel's error with its place.

Like kernel/trace/trace_events_filter.c:predicate_parse, parse_pred, calc_stack (v6.1, v6.18).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from errno import EINVAL, ENOENT, EPERM, ESRCH
from typing import Any

from msgspec import Struct

from fakesys.core.c_types import CType, Holds
from fakesys.core.errors import KernelError
from fakesys.core.event_format import EventFormat, Field
from fakesys.core.events import Task
from fakesys.core.text import kstrtoll, kstrtoull
from fakesys.subsystems.tracing.filter import patterns
from fakesys.subsystems.tracing.filter.cpulist import parse_cpulist

Test = Callable[[Any, Task], bool]

CPU_LIST = "CPUS"
USER_STRING, FUNCTION = ".ustring", ".function"
# The stack at the event: histograms use it, a comparison never holds.
STACKS = frozenset(("stacktrace", "STACKTRACE"))
_BLANKS = " \t\n\v\f\r"
LONGEST_NUMBER = 23
LONGEST_STRING = 255
COMM_ROOM = 16

_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "&": operator.and_,
}
# Longer ones before their beginnings.
_OPERATORS = ("~", "!=", "==", "<=", "<", ">=", ">", "&")


class FilterError(KernelError):
    """A text that is no filter. `message` is None where the kernel only says `Error: (0)`."""

    def __init__(self, errno: int, message: str | None, position: int = 0) -> None:
        super().__init__(errno, message or "there is no expression")
        self.message = message
        self.position = position


class Dialect(Struct, frozen=True):
    """What a kernel's filters can say. `cpus`: how many CPUs a list of CPUs may name; 0: kernels
    that have no such lists (before 6.6). `open_ended`: may a text end with `&&` or `||`?
    `functions`: are there `FIELD.function` (6.5) and a field for the stack (6.3)?
    """

    cpus: int = 0
    open_ended: bool = False
    functions: bool = False


class Filter(Struct, frozen=True):
    """A compiled filter and the text that it came from."""

    text: str
    test: Test


def compile_filter(text: str, form: EventFormat, dialect: Dialect) -> Filter:
    """The filter that a text says for an event. Raises FilterError."""
    return Filter(text, _Parser(text, form, dialect).parse())


def _refuse(message: str, position: int) -> FilterError:
    return FilterError(EINVAL, message, position)


class _Parser:
    """One pass over the text; positions are counted as the kernel counts them."""

    def __init__(self, text: str, form: EventFormat, dialect: Dialect) -> None:
        self._text = text
        self._form = form
        self._dialect = dialect
        self._at = 0

    def parse(self) -> Test:
        """The function, or FilterError."""
        if not _check_pairs(self._text):
            raise FilterError(EINVAL, None)
        self._skip_blanks()
        # Parentheses are paired, so the expression ends where the text does.
        return self._any_of(depth=0)

    def _any_of(self, depth: int) -> Test:
        terms = [self._all_of(depth, alone=True)]
        while self._take("||"):
            if self._ends_here():
                break
            terms.append(self._all_of(depth, alone=False))
        return terms[0] if len(terms) == 1 else _or(terms)

    def _all_of(self, depth: int, *, alone: bool) -> Test:
        terms = [self._factor(depth)]
        while self._take("&&"):
            # After `a || b &&` the kernel would jump out of its program.
            if alone and self._ends_here():
                break
            terms.append(self._factor(depth))
        return terms[0] if len(terms) == 1 else _and(terms)

    def _factor(self, depth: int) -> Test:
        inverted = False
        self._skip_blanks()
        while self._peek() == "!" and self._text[self._at + 1 : self._at + 2] not in ("=", "~"):
            inverted = not inverted
            self._at += 1
            self._skip_blanks()
        if self._peek() == "(":
            self._at += 1
            test = self._any_of(depth + 1)
            # Precondition: parentheses are paired, so what stands here is their end.
            self._at += 1
            self._expect_joint()
        else:
            test = self._term()
        return _not(test) if inverted else test

    def _term(self) -> Test:
        if self._at >= len(self._text):
            raise self._nothing_there()
        start = self._at
        test, end = _Term(self._text, start, self._form, self._dialect).parse()
        self._at = end
        self._expect_joint()
        return test

    def _ends_here(self) -> bool:
        """Is this the end of a text that may end with a joint, and with `!` behind it?"""
        return self._dialect.open_ended and not self._text[self._at :].strip(f"!{_BLANKS}")

    def _nothing_there(self) -> FilterError:
        joined = self._text.rstrip().endswith(("&&", "||"))
        message = "Meaningless filter expression" if joined else "No filter found"
        return _refuse(message, self._at)

    def _expect_joint(self) -> None:
        self._skip_blanks()
        rest = self._text[self._at : self._at + 2]
        if rest and rest not in ("&&", "||") and rest[0] != ")":
            raise FilterError(EPERM, "Too many terms in predicate expression", self._at)

    def _take(self, joint: str) -> bool:
        self._skip_blanks()
        if not self._text.startswith(joint, self._at):
            return False
        self._at += 2
        return True

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip_blanks(self) -> None:
        self._at = _after_blanks(self._text, self._at)


class _Term:
    """FIELD OP VALUE, beginning at a place in the text."""

    def __init__(self, text: str, start: int, form: EventFormat, dialect: Dialect) -> None:
        self._text = text
        self._form = form
        self._cpus = dialect.cpus
        self._functions = dialect.functions
        self._at = start
        # The kernel counts from one behind the first character of the term.
        self._shift = 1

    def parse(self) -> tuple[Test, int]:
        """The comparison and where it ends."""
        field = self._field()
        # Whose memory the text of a pointer is in: no event here has such a field.
        self._take(USER_STRING)
        of_function = self._functions and self._take(FUNCTION)
        operation = self._operator()
        self._at = _after_blanks(self._text, self._at)
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
        return _refuse(message, (self._at if at is None else at) + self._shift)

    def _take(self, suffix: str) -> bool:
        found = self._text.startswith(suffix, self._at)
        self._at += len(suffix) if found else 0
        return found

    def _no_function(self, field: _Operand, operation: str) -> FilterError:
        """Differs: a kernel without a table of symbols, so no function is ever found."""
        if not field.is_long:
            return self._wrong("Illegal operation for field type")
        if operation not in ("==", "!="):
            return self._wrong("Invalid operator")
        start, text = self._at, self._text
        if text[start : start + 1].isdigit():
            end = _end_of(text, start, str.isalnum)
            if end - start > LONGEST_NUMBER:
                return self._wrong("Operand too long", end)
            try:
                kstrtoull(text[start:end])
            except KernelError:
                return self._wrong("Illegal integer value", end)
        else:
            end = _end_of(text, start, lambda character: character not in _BLANKS)
        return self._wrong("Function not found", end)

    def _field(self) -> _Operand:
        end = self._at
        while end < len(self._text) and _is_word(self._text[end]):
            end += 1
        name, self._at = self._text[self._at : end], end
        if not name:
            raise FilterError(EPERM, None)
        found = operand(self._form, name)
        if found is None and self._functions and name in STACKS:
            found = _STACK
        if found is None:
            raise self._wrong("Field not found")
        return found

    def _operator(self) -> str:
        self._at = _after_blanks(self._text, self._at)
        for candidate in _OPERATORS:
            if self._text.startswith(candidate, self._at):
                self._at += len(candidate)
                return candidate
        raise self._wrong("Invalid operator")

    def _string(self, field: _Operand, operation: str, quote: str) -> Test:
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
        return _compare_text(field, operation, value)

    def _number(self, field: _Operand, operation: str) -> Test:
        if field.is_text:
            raise self._wrong("Expecting string field")
        if operation == "~":
            raise self._wrong("Illegal operation for field type")
        start = self._at
        self._at += self._text[start] == "-"
        while self._at < len(self._text) and self._text[self._at].isalnum():
            self._at += 1
        digits = self._text[start : self._at]
        if len(digits) > LONGEST_NUMBER:
            raise self._wrong("Operand too long")
        try:
            value = kstrtoll(digits) if field.signed else kstrtoull(digits)
        except KernelError:
            raise self._wrong("Illegal integer value", start) from None
        return _compare_number(field, operation, value)

    def _cpu_list(self, field: _Operand, operation: str) -> Test:
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
        return _compare_cpus(field, operation, cpus, self._cpus)


class _Operand(Struct, frozen=True):
    """The left side: how to get its value. `room` of a text: see patterns.py."""

    get: Callable[[Any, Task], Any]
    signed: bool = False
    is_text: bool = False
    room: int | None = 0
    # As wide as an address of the kernel.
    is_long: bool = False
    # The kernel has no comparison for such a size and lets none match, != neither.
    comparable: bool = True
    takes_cpus: bool = True


_INCOMPARABLE = _Operand(lambda event, task: 0, comparable=False)
_STACK = _Operand(lambda event, task: 0, comparable=False, takes_cpus=False)


def operand(form: EventFormat, name: str) -> _Operand | None:
    """What a name in a filter stands for: a field, a common field, CPU or COMM."""
    own = next((field for field in form.fields if field.name == name), None)
    if own is not None:
        return _of_field(own)
    if name in ("CPU", "cpu", "common_cpu"):
        return _Operand(lambda event, task: task.cpu, signed=True)
    if name in ("COMM", "comm"):
        return _Operand(lambda event, task: task.comm[:15], is_text=True, room=COMM_ROOM)
    common: dict[str, int] = {
        "common_type": form.id,
        "common_flags": form.cls.common_flags,
        "common_preempt_count": form.cls.common_preempt_count,
    }
    if name in common:
        value = common[name]
        return _Operand(lambda event, task: value)
    if name == "common_pid":
        return _Operand(lambda event, task: task.pid, signed=True)
    return None


def _of_field(field: Field) -> _Operand:
    kind, get = field.ctype, operator.attrgetter(field.name)
    if kind.holds is Holds.CHARS:
        last = kind.size - 1
        return _Operand(lambda event, task: get(event)[:last], is_text=True, room=kind.size)
    if kind.holds is Holds.DYNAMIC:
        return _Operand(lambda event, task: get(event), is_text=True, room=None)
    if kind.holds is Holds.TAIL and kind.text == "char":
        return _Operand(
            lambda event, task: get(event).split(b"\0", 1)[0].decode("latin-1"), is_text=True
        )
    if kind.holds in (Holds.BYTES, Holds.TAIL):
        return _INCOMPARABLE
    return _Operand(_number_getter(kind, get), signed=kind.signed, is_long=kind.size == 8)


def _number_getter(kind: CType, get: Callable[[Any], Any]) -> Callable[[Any, Task], Any]:
    bits = kind.size * 8
    mask, half = (1 << bits) - 1, 1 << (bits - 1)
    if kind.signed:
        return lambda event, task: ((get(event) + half) & mask) - half
    return lambda event, task: get(event) & mask


def _compare_text(field: _Operand, operation: str, value: str) -> Test:
    get, room = field.get, field.room
    match = patterns.glob(value, room) if operation == "~" else patterns.exact(value, room)
    if operation == "!=":
        return lambda event, task: not match(get(event, task))
    return lambda event, task: match(get(event, task))


def _compare_number(field: _Operand, operation: str, value: int) -> Test:
    if not field.comparable:
        return lambda event, task: False
    get, compare = field.get, _COMPARE[operation]
    if operation == "&":
        return lambda event, task: bool(get(event, task) & value)
    return lambda event, task: bool(compare(get(event, task), value))


def _compare_cpus(field: _Operand, operation: str, cpus: frozenset[int], limit: int) -> Test:
    """A number against a list of CPUs. Like trace_events_filter.c:do_filter_scalar_cpumask."""
    if not field.comparable:
        return lambda event, task: False
    get = field.get
    if operation == "&":
        return lambda event, task: get(event, task) in cpus
    if len(cpus) == 1:
        # Compared as numbers, so that what is no CPU differs too.
        return _compare_number(field, operation, next(iter(cpus)))
    # No single CPU is a set of none or many.
    if operation == "==":
        return lambda event, task: False
    return lambda event, task: 0 <= get(event, task) < limit


def _and(tests: list[Test]) -> Test:
    return lambda event, task: all(test(event, task) for test in tests)


def _or(tests: list[Test]) -> Test:
    return lambda event, task: any(test(event, task) for test in tests)


def _not(test: Test) -> Test:
    return lambda event, task: not test(event, task)


def _check_pairs(text: str) -> bool:
    """Is there anything but parentheses? Raises for unpaired parentheses and quotes."""
    quote, quoted_at = "", 0
    opened = 0
    anything = False
    for index, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in ("'", '"'):
            quote, quoted_at, anything = character, index, True
        elif character == "(":
            opened += 1
        elif character == ")":
            if not opened:
                raise FilterError(EPERM, "Too few '('", index)
            opened -= 1
        elif not character.isspace():
            anything = anything or character not in "&|" or text[index + 1 : index + 2] != character
    if quote:
        raise FilterError(ESRCH, "Missing matching quote", quoted_at)
    if opened:
        raise FilterError(ENOENT, "Too many '('", _unpaired(text))
    return anything


def _unpaired(text: str) -> int:
    """Where the last parenthesis is opened that nothing closes, found from the end."""
    quote, closed = "", 0
    for index in range(len(text) - 1, 0, -1):
        character = text[index]
        if quote:
            quote = "" if character == quote else quote
        elif character in ("'", '"'):
            quote = character
        elif character == ")":
            closed += 1
        elif character == "(":
            if not closed:
                return index
            closed -= 1
    return 0


def _is_word(character: str) -> bool:
    return character == "_" or (character.isascii() and character.isalnum())


def _after_blanks(text: str, at: int) -> int:
    return _end_of(text, at, lambda character: character in _BLANKS)


def _end_of(text: str, at: int, belongs: Callable[[str], bool]) -> int:
    while at < len(text) and belongs(text[at]):
        at += 1
    return at

"""The filter language: a text becomes one Python function, or the kernel's error with its place.

Like kernel/trace/trace_events_filter.c:predicate_parse, calc_stack (v6.1, v6.18). Single
comparisons are parsed by `predicates.py`; positions are counted as the kernel counts them.
"""

from __future__ import annotations

from errno import EINVAL, ENOENT, EPERM, ESRCH

from msgspec import Struct

from fakesys.core.event_format import EventFormat
from fakesys.subsystems.tracing.filter.comparisons import Test
from fakesys.subsystems.tracing.filter.dialect import Dialect, FilterError
from fakesys.subsystems.tracing.filter.predicates import PredicateParser
from fakesys.subsystems.tracing.filter.program import Group, ProgramBuilder
from fakesys.subsystems.tracing.filter.scan import BLANKS, after_blanks


class Filter(Struct, frozen=True):
    """A compiled filter, the text that it came from, and `Dialect.cpus` of that moment."""

    text: str
    test: Test
    cpus: int


def compile_filter(text: str, form: EventFormat, dialect: Dialect) -> Filter:
    """Compile a filter for an event. Raises FilterError."""
    return Filter(text, _ExpressionParser(text, form, dialect).parse(), dialect.cpus)


class _ExpressionParser:
    """One pass over the text: terms joined by `&&` and `||`, parentheses and `!`.

    It calls itself for no parenthesis: a text may have as many as it has room for.
    """

    def __init__(self, text: str, form: EventFormat, dialect: Dialect) -> None:
        self._text = text
        self._form = form
        self._dialect = dialect
        self._at = 0
        self._program = ProgramBuilder()
        # The whole text, and the parentheses that are open here, from outside inwards.
        self._groups = [Group(inverted=False)]

    def parse(self) -> Test:
        """Return the test of the whole text. Raises FilterError."""
        if not _check_pairs(self._text):
            raise FilterError(EINVAL, None)
        while True:
            self._parse_factor()
            if not self._parse_joint():
                return self._program.test(self._groups[0].exits(self._program))

    def _parse_factor(self) -> None:
        """Read up to the end of the next comparison, into parentheses that open before it."""
        inverted = self._take_inversions()
        while self._peek() == "(":
            self._at += 1
            self._groups.append(Group(inverted=inverted))
            inverted = self._take_inversions()
        exits = self._program.add(self._parse_term())
        self._groups[-1].add(exits.inverted() if inverted else exits, self._program)

    def _parse_joint(self) -> bool:
        """Read closing parentheses and the joint behind them. Return whether a factor follows."""
        while self._take(")"):
            # Precondition: parentheses are paired, so this one closes the last that was opened.
            exits = self._groups.pop().exits(self._program)
            self._groups[-1].add(exits, self._program)
            self._expect_joint()
        group = self._groups[-1]
        if self._take("&&"):
            # After `a || b &&` the kernel would jump out of its program.
            if group.is_first_term and self._ends_here():
                return False
            group.expects_and = True
            return True
        return self._take("||") and not self._ends_here()

    def _take_inversions(self) -> bool:
        inverted = False
        self._skip_blanks()
        while self._peek() == "!" and self._text[self._at + 1 : self._at + 2] not in ("=", "~"):
            inverted = not inverted
            self._at += 1
            self._skip_blanks()
        return inverted

    def _parse_term(self) -> Test:
        if self._at >= len(self._text):
            raise self._nothing_there()
        start = self._at
        test, end = PredicateParser(self._text, start, self._form, self._dialect).parse()
        self._at = end
        self._expect_joint()
        return test

    def _ends_here(self) -> bool:
        """Is this the end of a text that can end with a joint, also with `!` after it?"""
        return self._dialect.open_ended and not self._text[self._at :].strip(f"!{BLANKS}")

    def _nothing_there(self) -> FilterError:
        joined = self._text.rstrip().endswith(("&&", "||"))
        message = "Meaningless filter expression" if joined else "No filter found"
        return FilterError(EINVAL, message, self._at)

    def _expect_joint(self) -> None:
        self._skip_blanks()
        rest = self._text[self._at : self._at + 2]
        if rest and rest not in ("&&", "||") and rest[0] != ")":
            raise FilterError(EPERM, "Too many terms in predicate expression", self._at)

    def _take(self, joint: str) -> bool:
        self._skip_blanks()
        if not self._text.startswith(joint, self._at):
            return False
        self._at += len(joint)
        return True

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip_blanks(self) -> None:
        self._at = after_blanks(self._text, self._at)


def _check_pairs(text: str) -> bool:
    """Return whether there is anything but parentheses.

    Raises FilterError for unpaired parentheses and quotes. Like
    kernel/trace/trace_events_filter.c:calc_stack.
    """
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
    """Return the index of the last parenthesis that is never closed, found from the end."""
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

"""The program of a filter: comparisons, and for each result where to go on.

Like kernel/trace/trace_events_filter.c:struct prog_entry, filter_match_preds (v6.1, v6.18): a loop
over a flat list, so the depth of parentheses costs nothing when an event comes.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from fakesys.core.events import Task
from fakesys.subsystems.tracing.filter.comparisons import Test

ACCEPT, REJECT = -1, -2


class Exits(Struct, frozen=True):
    """The ways out of a part of the program, which have no target yet.

    Each is the index of a comparison and the result with which it leaves the part. `start` is the
    part's first comparison.
    """

    start: int
    when_true: list[tuple[int, bool]]
    when_false: list[tuple[int, bool]]

    def inverted(self) -> Exits:
        """Return the ways out of the part behind a `!`."""
        return Exits(self.start, self.when_false, self.when_true)


class ProgramBuilder:
    """A program that grows by one comparison at a time."""

    def __init__(self) -> None:
        self._tests: list[Test] = []
        # Of each comparison, the next one when it is false, and when it is true.
        self._targets: list[list[int]] = []

    def add(self, test: Test) -> Exits:
        """Append a comparison."""
        at = len(self._tests)
        self._tests.append(test)
        self._targets.append([REJECT, ACCEPT])
        return Exits(at, [(at, True)], [(at, False)])

    def both(self, first: Exits, second: Exits) -> Exits:
        """Join two parts by `&&`; neither may be used afterwards."""
        self._lead(first.when_true, second.start)
        when_false = _merged(first.when_false, second.when_false)
        return Exits(first.start, second.when_true, when_false)

    def either(self, first: Exits, second: Exits) -> Exits:
        """Join two parts by `||`; neither may be used afterwards."""
        self._lead(first.when_false, second.start)
        when_true = _merged(first.when_true, second.when_true)
        return Exits(first.start, when_true, second.when_false)

    def test(self, exits: Exits) -> Test:
        """Return the function that runs the program, the whole of which has these ways out."""
        self._lead(exits.when_true, ACCEPT)
        self._lead(exits.when_false, REJECT)
        if len(self._tests) == 1 and self._targets[0] == [REJECT, ACCEPT]:
            return self._tests[0]
        program = [
            (test, false, true)
            for test, (false, true) in zip(self._tests, self._targets, strict=True)
        ]

        def run(event: Any, task: Task) -> bool:
            at = 0
            while at >= 0:
                test, false, true = program[at]
                at = true if test(event, task) else false
            return at == ACCEPT

        return run

    def _lead(self, exits: list[tuple[int, bool]], target: int) -> None:
        for at, result in exits:
            self._targets[at][result] = target


def _merged(
    first: list[tuple[int, bool]], second: list[tuple[int, bool]]
) -> list[tuple[int, bool]]:
    """Return one list of all, made of the longer one: deep parentheses would copy it each time."""
    shorter, longer = sorted((first, second), key=len)
    longer += shorter
    return longer


class Group:
    """What is between two parentheses, as far as it was read: `a && b || c && d`."""

    __slots__ = ("_all", "_any", "_inverted", "expects_and")

    def __init__(self, *, inverted: bool) -> None:
        self._inverted = inverted
        # The terms of `||` that are complete, and the factors of `&&` of the one that is not.
        self._any: Exits | None = None
        self._all: Exits | None = None
        # Whether the next factor belongs to the same term.
        self.expects_and = False

    @property
    def is_first_term(self) -> bool:
        """Return whether no `||` was read."""
        return self._any is None

    def add(self, exits: Exits, program: ProgramBuilder) -> None:
        """Append a factor, which follows `&&` if `expects_and`, else `||` or nothing."""
        if self.expects_and and self._all is not None:
            self._all = program.both(self._all, exits)
        else:
            self._any, self._all = self._joined(program), exits
        self.expects_and = False

    def exits(self, program: ProgramBuilder) -> Exits:
        """Return the ways out of the whole group. Precondition: a factor was added."""
        joined = self._joined(program)
        assert joined is not None
        return joined.inverted() if self._inverted else joined

    def _joined(self, program: ProgramBuilder) -> Exits | None:
        if self._any is None or self._all is None:
            return self._all
        return program.either(self._any, self._all)

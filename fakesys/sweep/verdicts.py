"""What is said of a cell: a comparison of its end with that of runs that nothing disturbed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from fakesys.sweep.operations import Operation
from fakesys.sweep.plan import Cell
from fakesys.sweep.state import changed, difference

OK, SKIPPED = "ok", "skipped"
# From the worst on.
FINDINGS = ("violated", "unrecoverable", "crashed", "hung", "silent", "left behind")
VERDICTS = (*FINDINGS, OK, SKIPPED)
# What interpreters write when a program dies of an error that it did not expect.
_TRACEBACK = re.compile(
    r"^Traceback \(most recent call last\)|^panic: |panicked at |^Exception in thread "
    r"|^fatal error: |Segmentation fault",
    re.MULTILINE,
)
# Shells have the status 128 + n where signal n ended a command.
_FATAL = {128 + number for number in (4, 5, 6, 7, 8, 11)}

State = dict[str, str]


class End(Struct, frozen=True):
    """How a program ended, and in what state of the machine."""

    status: int
    state: State

    @classmethod
    def of(cls, result: dict[str, Any]) -> End:
        """Return the end that the result of a cell has; a cell without a program ends well."""
        return cls(result.get("status", 0), result["state"])


class Expected(Struct, frozen=True):
    """What a run may end with: any of the ends `done`, or failed in one of the states `before`.

    `unsteady`: files that differ between two runs that nothing disturbed. `wrong`: invariants that
    do not hold there either.
    """

    done: tuple[End, ...]
    before: tuple[State, ...]
    unsteady: frozenset[str] = frozenset()
    wrong: frozenset[str] = frozenset()

    def is_done(self, end: End) -> bool:
        """Whether it ended as a run that nothing disturbed."""
        return any(
            end.status == one.status and self.same(end.state, one.state) for one in self.done
        )

    def is_before(self, state: State) -> bool:
        """Whether the machine is as before the program."""
        return any(self.same(state, one) for one in self.before)

    def same(self, one: State, other: State) -> bool:
        """Whether two states do not differ in any steady file."""
        return one == other or not changed(one, other, self.unsteady)

    def nearest(self, state: State, wanted: Iterable[State]) -> list[str]:
        """Return the lines that differ from the state that differs least."""
        paths = [(changed(one, state, self.unsteady), one) for one in wanted]
        if not paths:
            return []
        fewest, one = min(paths, key=lambda found: len(found[0]))
        return difference(one, state, fewest)


class Judged(Struct, frozen=True, omit_defaults=True):
    """A cell with its verdict.

    `why`: in one line; `lines`: the files that differ; `log`: what the program did.
    """

    cell: Cell
    verdict: str
    why: str = ""
    status: int = 0
    output: str = ""
    lines: tuple[str, ...] = ()
    log: tuple[Operation, ...] = ()

    @property
    def is_finding(self) -> bool:
        """Whether the program is to be mended."""
        return self.verdict in FINDINGS


def judge(cell: Cell, result: dict[str, Any], expected: Expected) -> Judged:
    """Return the verdict of a cell."""
    verdict, why, lines = _verdict(cell, result, expected)
    output = result.get("output", "")
    if "again" in result:
        output += result["again"]["output"]
    log = msgspec.convert(result["operations"], tuple[Operation, ...])
    return Judged(cell, verdict, why, result.get("status", 0), output, tuple(lines), log)


_Found = tuple[str, str, Sequence[str]]


def _verdict(cell: Cell, result: dict[str, Any], expected: Expected) -> _Found:
    if not result["reached"]:
        return SKIPPED, "the program did not do this operation again", ()
    if wrong := _violations(result, expected):
        return "violated", wrong[0], wrong
    if result["hung"]:
        return "hung", "it did not end in time", ()
    if cell.disturbance.kind == "kill":
        return _after_kill(result["again"], expected)
    end = End.of(result)
    if crash := _crash(end.status, result["output"]):
        return "crashed", crash, ()
    if expected.is_done(end):
        return OK, "ended as undisturbed", ()
    if end.status == 0:
        done = [one.state for one in expected.done]
        if any(expected.same(end.state, one) for one in done):
            return OK, "the machine is as after an undisturbed run", ()
        lines = expected.nearest(end.state, done)
        return "silent", "exit 0, but the machine is not as after an undisturbed run", lines
    if expected.is_before(end.state):
        return OK, "reported, and the machine is as before", ()
    lines = expected.nearest(end.state, expected.before)
    return "left behind", f"exit {end.status}, but the machine is not as before", lines


def _violations(result: dict[str, Any], expected: Expected) -> list[str]:
    runs = [result, *([result["again"]] if "again" in result else [])]
    wrong = [line for run in runs for line in run["violated"] if line not in expected.wrong]
    wrong += [f"internal error of fakesys: {bug}" for run in runs for bug in run["bugs"]]
    check = result.get("check")
    if check and check["status"] != 0:
        output = " ".join(check["output"].split())
        wrong.append(f"the check ended with {check['status']}: {output}")
    return wrong


def _after_kill(again: dict[str, Any], expected: Expected) -> _Found:
    done = [one.state for one in expected.done]
    if again["hung"]:
        return "unrecoverable", "a second run does not end in time", ()
    if any(expected.same(again["state"], one) for one in done):
        return OK, "a second run has the undisturbed result", ()
    why = f"a second run ends with {again['status']}, and without the undisturbed result"
    return "unrecoverable", why, expected.nearest(again["state"], done)


def _crash(status: int, output: str) -> str:
    if status < 0:
        return f"died by signal {-status}"
    found = _TRACEBACK.search(output)
    if found or status in _FATAL:
        return f"exit {status} with {found[0].strip()!r}" if found else f"exit {status}"
    return ""

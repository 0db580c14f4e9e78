"""The tests that a filter consists of: an operand against a text, a number or a list of CPUs."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from fakesys.core.events import Task
from fakesys.subsystems.tracing.filter import patterns
from fakesys.subsystems.tracing.filter.operands import Operand

Test = Callable[[Any, Task], bool]

_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "&": operator.and_,
}


def compare_text(field: Operand, operation: str, value: str) -> Test:
    """Return the test of a text: `==`, `!=`, or `~` with a glob pattern."""
    get, room = field.get, field.room
    match = patterns.glob(value, room) if operation == "~" else patterns.exact(value, room)
    if operation == "!=":
        return lambda event, task: not match(get(event, task))
    return lambda event, task: match(get(event, task))


def compare_number(field: Operand, operation: str, value: int) -> Test:
    """Return the test of a number; `&` holds if any bit is common."""
    if not field.comparable:
        return lambda event, task: False
    get, compare = field.get, _COMPARE[operation]
    if operation == "&":
        return lambda event, task: bool(get(event, task) & value)
    return lambda event, task: bool(compare(get(event, task), value))


def compare_cpus(field: Operand, operation: str, cpus: frozenset[int], limit: int) -> Test:
    """Return the test of a number against a list of CPUs, out of `limit`.

    Like kernel/trace/trace_events_filter.c:do_filter_scalar_cpumask (v6.18).
    """
    if not field.comparable:
        return lambda event, task: False
    get = field.get
    if operation == "&":
        return lambda event, task: get(event, task) in cpus
    if len(cpus) == 1:
        # Compared as numbers, so that a number that is no CPU differs too.
        return compare_number(field, operation, next(iter(cpus)))
    # A single CPU never equals a set of none or many.
    if operation == "==":
        return lambda event, task: False
    return lambda event, task: 0 <= get(event, task) < limit

"""Counting an event: keys, sums, variables, actions.

Like kernel/trace/trace_events_hist.c:event_hist_trigger, hist_trigger_elt_update,
ontrack_action (v6.1).
"""

from __future__ import annotations

from typing import Protocol

from fakesys.core.events import Task
from fakesys.core.tracepoint import Tracepoint
from fakesys.subsystems.tracing.hist.actions import Action
from fakesys.subsystems.tracing.hist.fields import number_of
from fakesys.subsystems.tracing.hist.histogram import (
    ALL_BITS,
    FieldVariable,
    Flag,
    Histogram,
    Hit,
    Key,
    Row,
    Value,
)
from fakesys.subsystems.tracing.hist.variables import resolve

COMM_LENGTH = 15


class Outcome(Protocol):
    """What the actions of a histogram do beyond it."""

    def trace(self, name: str, values: list[Value]) -> None:
        """Make a synthetic event."""

    def snapshot(self, histogram: Histogram, action: Action, key: Key, row: Row) -> None:
        """Take a snapshot if this is news for the instance, too."""


def count(
    histogram: Histogram, event: Tracepoint, task: Task, stamp: int, outcome: Outcome
) -> None:
    """Count an event; one whose key has no room counts as dropped.

    It is not counted while a variable of another histogram that it needs is not set.
    """
    references: list[Value] = [0] * len(histogram.references)
    hit = Hit(event, task, stamp, references)
    key = tuple([each.get(hit) for each in histogram.keys])
    if references and not resolve(histogram, key, references, own=False):
        return
    row = histogram.rows.get(key)
    if row is None:
        if len(histogram.rows) >= histogram.size:
            histogram.dropped += 1
            return
        comm = task.comm[:COMM_LENGTH] if task.pid else "<idle>"
        row = histogram.rows[key] = Row([0] * len(histogram.sums), comm)
    histogram.hits += 1
    hit.comm = row.comm
    _update(histogram, row, hit)
    if histogram.actions and resolve(histogram, key, references, own=True):
        for action in histogram.actions:
            _act(histogram, action, key, row, hit, outcome)


def _update(histogram: Histogram, row: Row, hit: Hit) -> None:
    sums = row.sums
    column = 0
    for value in histogram.values:
        found = value.get(hit)
        if value.flags & Flag.VARIABLE:
            row.variables[value.index] = found
        else:
            # A text adds nothing.
            if isinstance(found, int):
                sums[column] = (sums[column] + found) & ALL_BITS
            column += 1
    _set(histogram.field_variables, row, hit)


def _set(variables: list[FieldVariable], row: Row, hit: Hit) -> None:
    for each in variables:
        row.variables[each.variable.index] = each.value.get(hit)


def _act(
    histogram: Histogram, action: Action, key: Key, row: Row, hit: Hit, outcome: Outcome
) -> None:
    if action.handler != "onmatch":
        value = number_of(hit.references[action.watched])
        if not action.is_news(value, number_of(row.variables.get(action.kept, 0))):
            return
        row.variables[action.kept] = value
    if action.kind == "save":
        _set(histogram.saved_variables, row, hit)
    elif action.kind == "snapshot":
        outcome.snapshot(histogram, action, key, row)
    else:
        outcome.trace(action.synthetic, [hit.references[column] for column in action.columns])

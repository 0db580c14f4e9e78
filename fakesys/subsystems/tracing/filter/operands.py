"""The left sides of comparisons in filters: fields of the event, of its task, and CPU and COMM."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from fakesys.core.c_types import CType, Holds
from fakesys.core.event_format import EventFormat, Field
from fakesys.core.events import Task

# TASK_COMM_LEN.
COMM_ROOM = 16


class Operand(Struct, frozen=True):
    """The left side of a comparison; `get` returns its value.

    `room` of a text: see `patterns.py`. `is_long`: is it as wide as an address of the kernel?
    `comparable`: false for a size that the kernel cannot compare: no comparison ever holds, not
    even `!=`. `takes_cpus`: can it be compared with a list of CPUs?
    """

    get: Callable[[Any, Task], Any]
    signed: bool = False
    is_text: bool = False
    room: int | None = 0
    is_long: bool = False
    comparable: bool = True
    takes_cpus: bool = True


INCOMPARABLE = Operand(lambda event, task: 0, comparable=False)
STACK_OPERAND = Operand(lambda event, task: 0, comparable=False, takes_cpus=False)


# What `Tracepoint.context` returns.
_CONTEXT = ("common_flags", "common_preempt_count")


def operand(form: EventFormat, name: str) -> Operand | None:
    """Return what a name means: a field, a common field, CPU or COMM; None if nothing.

    Like kernel/trace/trace_events.c:trace_find_event_field (v6.1).
    """
    own = next((field for field in form.fields if field.name == name), None)
    if own is not None:
        return _of_field(own)
    if name in ("CPU", "cpu", "common_cpu"):
        return Operand(lambda event, task: task.cpu, signed=True)
    if name in ("COMM", "comm"):
        return Operand(lambda event, task: task.comm[:15], is_text=True, room=COMM_ROOM)
    if name == "common_type":
        return Operand(lambda event, task: form.id)
    if name in _CONTEXT:
        index = _CONTEXT.index(name)
        return Operand(lambda event, task: event.context()[index])
    if name == "common_pid":
        return Operand(lambda event, task: task.pid, signed=True)
    return None


def _of_field(field: Field) -> Operand:
    kind, get = field.ctype, operator.attrgetter(field.of_class)
    if kind.holds is Holds.CHARS:
        last = kind.size - 1
        return Operand(lambda event, task: get(event)[:last], is_text=True, room=kind.size)
    if kind.holds is Holds.DYNAMIC:
        return Operand(lambda event, task: get(event), is_text=True, room=None)
    if kind.holds is Holds.TAIL and kind.text == "char":
        return Operand(
            lambda event, task: get(event).split(b"\0", 1)[0].decode("latin-1"), is_text=True
        )
    if kind.holds in (Holds.BYTES, Holds.TAIL):
        return INCOMPARABLE
    return Operand(_number_getter(kind, get), signed=kind.signed, is_long=kind.size == 8)


def _number_getter(kind: CType, get: Callable[[Any], Any]) -> Callable[[Any, Task], Any]:
    bits = kind.size * 8
    mask, half = (1 << bits) - 1, 1 << (bits - 1)
    if kind.signed:
        return lambda event, task: ((get(event) + half) & mask) - half
    return lambda event, task: get(event) & mask

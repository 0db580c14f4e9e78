"""State of histograms: fields, variables and rows.

Like `struct hist_field`, `struct hist_trigger_data` of kernel/trace/trace_events_hist.c and
`struct tracing_map_elt` of kernel/trace/tracing_map.h (v6.1).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntFlag

from msgspec import Struct, field

from fakesys.core.event_format import EventFormat
from fakesys.core.events import Task
from fakesys.core.tracepoint import Tracepoint
from fakesys.subsystems.tracing.hist.actions import Action
from fakesys.subsystems.tracing.hist.attributes import Attributes

ALL_BITS = (1 << 64) - 1
HITCOUNT = "hitcount"
MOST_VARIABLES = 16

Value = int | str


class Flag(IntFlag):
    """What a field is, as `enum hist_field_flags` has it."""

    HITCOUNT = 1 << 0
    KEY = 1 << 1
    TEXT = 1 << 2
    HEX = 1 << 3
    SYM = 1 << 4
    SYM_OFFSET = 1 << 5
    EXECNAME = 1 << 6
    SYSCALL = 1 << 7
    STACKTRACE = 1 << 8
    LOG2 = 1 << 9
    TIMESTAMP = 1 << 10
    USECS = 1 << 11
    VARIABLE = 1 << 12
    EXPRESSION = 1 << 13
    REFERENCE = 1 << 14
    CPU = 1 << 15
    ALIAS = 1 << 16
    BUCKET = 1 << 17
    CONSTANT = 1 << 18
    PERCENT = 1 << 19
    GRAPH = 1 << 20


_NONE = Flag(0)
_MODIFIERS = (
    (Flag.HEX, "hex"),
    (Flag.SYM, "sym"),
    (Flag.SYM_OFFSET, "sym-offset"),
    (Flag.EXECNAME, "execname"),
    (Flag.SYSCALL, "syscall"),
    (Flag.LOG2, "log2"),
    (Flag.BUCKET, "buckets"),
    (Flag.USECS, "usecs"),
    (Flag.PERCENT, "percent"),
    (Flag.GRAPH, "graph"),
)


class Hit(Struct):
    """One event as a histogram sees it. `references`: the values of its references, by index.

    `comm`: the task for which the row was made. `stamp`: the time, in the units of the histogram.
    """

    event: Tracepoint
    task: Task
    stamp: int
    references: list[Value]
    comm: str = ""


Getter = Callable[[Hit], Value]


class Row(Struct):
    """What is known of one key: the hits, the sum of each value, the variables that are set."""

    sums: list[int]
    comm: str
    variables: dict[int, Value] = field(default_factory=dict)


Key = tuple[Value, ...]


def modifier_of(flags: Flag) -> str:
    """Return the modifier that a trigger file shows, with its dot, or nothing."""
    return next((f".{name}" for flag, name in _MODIFIERS if flags & flag), "")


class HistField(Struct, eq=False):
    """A key, value, variable, reference or part of an expression.

    `field`: the name of the event's field. `variable`, `index`: name and number of the variable
    that it sets or refers to; `owner`: the histogram of that variable. `name`: of expressions and
    references, with `system` and `event` if they were given. `reference`: its number among the
    references of the histogram that uses it. `once`: reading it unsets the variable.
    """

    get: Getter
    flags: Flag = _NONE
    type: str = ""
    size: int = 0
    signed: bool = False
    field: str = ""
    field_type: tuple[str, int, bool] = ("", 0, False)
    operands: tuple[HistField, ...] = ()
    operator: str = ""
    variable: str = ""
    index: int = 0
    owner: Histogram | None = None
    system: str = ""
    event: str = ""
    name: str = ""
    reference: int = 0
    once: bool = False
    buckets: int = 0
    constant: int = 0
    offset: int = 0

    @property
    def label(self) -> str:
        """How rows call it. Like trace_events_hist.c:hist_field_name."""
        if self.field:
            return self.field
        if self.flags & Flag.ALIAS:
            return self.operands[0].label
        if self.flags & Flag.CPU:
            return "common_cpu"
        if self.flags & (Flag.EXPRESSION | Flag.REFERENCE):
            return f"{self.system}.{self.event}.{self.name}" if self.system else self.name
        return "common_timestamp" if self.flags & Flag.TIMESTAMP else ""

    @property
    def in_expression(self) -> str:
        """Its text as an operand. Like trace_events_hist.c:expr_field_str."""
        if self.flags & Flag.REFERENCE:
            return f"${self.label}"
        constant = str(self.constant) if self.flags & Flag.CONSTANT else ""
        return f"{constant}{self.label}{modifier_of(self.flags)}"

    @property
    def spelling(self) -> str:
        """Its text in the trigger file. Like trace_events_hist.c:hist_field_print."""
        if self.flags & Flag.STACKTRACE:
            return self.name
        made = f"{self.variable}=" if self.variable else ""
        if self.flags & Flag.CPU:
            made += "common_cpu"
        elif self.flags & Flag.CONSTANT:
            made += str(self.constant)
        else:
            made += "$" if self.flags & (Flag.REFERENCE | Flag.ALIAS) else ""
            made += self.label
        if not self.flags & (Flag.REFERENCE | Flag.EXPRESSION):
            made += modifier_of(self.flags)
        return f"{made}={self.buckets}" if self.buckets else made

    @property
    def has_variable(self) -> bool:
        """Does it set or use one? Like trace_events_hist.c:field_has_hist_vars."""
        return bool(self.flags & (Flag.VARIABLE | Flag.REFERENCE)) or any(
            operand.has_variable for operand in self.operands
        )

    @property
    def shape(self) -> tuple[object, ...]:
        """What must be equal in equal histograms."""
        types = (self.field, self.field_type) if self.field else ("", None)
        return (*types, int(self.flags), self.offset, self.size, self.signed, self.variable)


class FieldVariable(Struct, eq=False):
    """A variable that an action made of a field: `struct field_var`."""

    variable: HistField
    value: HistField


class SortKey(Struct, frozen=True):
    """A column to sort by: the index of a key, or -1 minus the index of a value."""

    column: int
    spelling: str
    descending: bool


class Histogram:
    """One histogram: what it counts, and the counts.

    `values`: the hit count first, variables last. `references`: to variables, in the order of
    their numbers. `field_variables`, `saved_variables`: what its actions made of fields.
    `made`: the events that got a histogram for its sake, with the texts of those.
    """

    def __init__(self, form: EventFormat, attributes: Attributes) -> None:
        self.form = form
        self.attributes = attributes
        self.values: list[HistField] = []
        self.keys: list[HistField] = []
        self.references: list[HistField] = []
        self.actions: list[Action] = []
        self.field_variables: list[FieldVariable] = []
        self.saved_variables: list[FieldVariable] = []
        self.made: list[tuple[EventFormat, str]] = []
        self.sort: tuple[SortKey, ...] = ()
        self.size = 1 << attributes.bits
        self.timestamps = self.usecs = False
        self.rows: dict[Key, Row] = {}
        self.hits = self.dropped = 0
        self._variables = 0

    @property
    def fields(self) -> list[HistField]:
        """All of its fields, keys last."""
        return [*self.values, *self.keys]

    @property
    def sums(self) -> list[HistField]:
        """The values that are added up: all but variables."""
        return [value for value in self.values if not value.flags & Flag.VARIABLE]

    @property
    def uses_variables(self) -> bool:
        """Has it variables or references?"""
        return bool(self.references) or any(each.has_variable for each in self.fields)

    def variable(self, name: str) -> HistField | None:
        """Return its variable of this name."""
        for each in self.fields:
            if each.flags & Flag.VARIABLE and each.variable == name:
                return each
        return None

    def next_variable(self) -> int | None:
        """Return the number of a further variable; None when it has all that it can have."""
        if self._variables == MOST_VARIABLES:
            return None
        self._variables += 1
        return self._variables - 1

    def refers_to(self, other: Histogram) -> bool:
        """Return whether it uses a variable that is a field of another histogram.

        Like trace_events_hist.c:check_var_refs, find_any_var_ref.
        """
        numbers = {each.index for each in other.fields if each.flags & Flag.VARIABLE}
        return any(each.owner is other and each.index in numbers for each in self.references)

    def clear(self) -> None:
        """Drop all rows and counts."""
        self.rows.clear()
        self.hits = self.dropped = 0

    @property
    def shape(self) -> tuple[object, ...]:
        """What makes two histograms equal. Like trace_events_hist.c:hist_trigger_match."""
        return (
            len(self.values),
            tuple(each.shape for each in self.fields),
            tuple((key.column, key.descending) for key in self.sort),
            tuple(action.shape for action in self.actions),
        )

    @property
    def spelling(self) -> str:
        """The text in the trigger file, without name, filter and state."""
        keys = ",".join(key.spelling for key in self.keys)
        values = ",".join((HITCOUNT, *(value.spelling for value in self.sums[1:])))
        named = [each.spelling for each in self.values if each.flags & Flag.VARIABLE]
        variables = f":{','.join(named)}" if named else ""
        sort = ",".join(key.spelling + ".descending" * key.descending for key in self.sort)
        clock = f":clock={self.attributes.clock}" if self.timestamps else ""
        saved = [each.variable.variable for each in self.saved_variables]
        actions = "".join(action.spelling(saved) for action in self.actions)
        return f"keys={keys}:vals={values}{variables}:sort={sort}:size={self.size}{clock}{actions}"

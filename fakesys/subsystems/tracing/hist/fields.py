"""Fields of the event as fields of a histogram: modifiers, types, and where values come from.

Like kernel/trace/trace_events_hist.c:parse_field, create_hist_field (v6.1).
"""

from __future__ import annotations

from collections.abc import Callable
from errno import ENOMEM
from functools import partial
from types import MappingProxyType

from fakesys.core.c_types import Holds
from fakesys.core.errors import KernelError
from fakesys.core.event_format import EventFormat, Field
from fakesys.core.text import kstrtoull
from fakesys.subsystems.tracing.events.ftrace import FTRACE
from fakesys.subsystems.tracing.events.stacks import CALL, SYMBOL_REACH, chain_of
from fakesys.subsystems.tracing.filter.operands import operand
from fakesys.subsystems.tracing.hist.attributes import Log, refusal
from fakesys.subsystems.tracing.hist.histogram import (
    ALL_BITS,
    Flag,
    Getter,
    HistField,
    Histogram,
    Hit,
    Value,
)

# The longest text of a field (MAX_FILTER_STR_VAL), and a stack of 16 addresses.
TEXT_ROOM = 256
STACK_SIZE = 16 * 8
# Of the trigger text, so that a minus sign is an operator.
SYM_OFFSET = "symXoffset"
# Names of the CPU that filters have, too.
_CPU_NAMES = frozenset(("cpu", "CPU", "common_cpu"))
_NUMBERS = frozenset((1, 2, 4, 8))

_MODIFIERS = MappingProxyType(
    {
        "hex": Flag.HEX,
        "sym": Flag.SYM,
        SYM_OFFSET: Flag.SYM_OFFSET,
        "syscall": Flag.SYSCALL,
        "log2": Flag.LOG2,
        "usecs": Flag.USECS,
    }
)


def parse_field(histogram: Histogram, text: str, flags: Flag, log: Log) -> HistField:
    """Parse FIELD[.MODIFIER] of the histogram's event. Raises EINVAL, which is logged, ENOMEM."""
    name, dot, modifier = text.partition(".")
    buckets = 0
    if dot:
        added, buckets = _modifier(name, modifier, flags, log)
        flags |= added
    if name == "common_timestamp":
        histogram.timestamps = True
        histogram.usecs |= bool(flags & Flag.USECS)
        made = _made(Flag.TIMESTAMP | flags, "u64", 8, lambda hit: hit.stamp)
    elif name == "common_cpu":
        made = _made(Flag.CPU | flags, "unsigned int", 4, lambda hit: hit.task.cpu)
    else:
        made = _own_field(histogram.form, name, flags, log)
    if flags & (Flag.LOG2 | Flag.BUCKET):
        made.get = _log2(made.get) if flags & Flag.LOG2 else _bucket(made.get, buckets)
        made.flags &= ~Flag.TEXT
    made.buckets = buckets
    return made


def stack_field(form: EventFormat, name: str) -> HistField:
    """Return the key that is the call chain; `name`: how it is called."""
    made = _made(Flag.KEY | Flag.STACKTRACE, "", STACK_SIZE, partial(_stack, form))
    made.name = name
    return made


def _made(flags: Flag, kind: str, size: int, get: Getter) -> HistField:
    return HistField(get, flags, kind, size)


def _modifier(name: str, modifier: str, flags: Flag, log: Log) -> tuple[Flag, int]:
    if modifier in _MODIFIERS:
        return _MODIFIERS[modifier], 0
    if modifier == "execname" and name == "common_pid":
        return Flag.EXECNAME, 0
    if modifier.startswith("bucket"):
        return Flag.BUCKET, _bucket_size(modifier, log)
    for word, flag in (("percent", Flag.PERCENT), ("graph", Flag.GRAPH)):
        if modifier.startswith(word) and not flags & (Flag.VARIABLE | Flag.KEY):
            return flag, 0
    raise refusal(log, "Invalid field modifier", modifier)


def _bucket_size(modifier: str, log: Log) -> int:
    rest = modifier.removeprefix("bucket")
    rest = rest.removeprefix("s")
    if not rest.startswith("="):
        raise refusal(log, "Invalid field modifier", rest)
    try:
        size = kstrtoull(rest[1:])
    except KernelError:
        size = 0
    if not size:
        raise refusal(log, "Invalid field modifier", rest[1:])
    return size


def _own_field(form: EventFormat, name: str, flags: Flag, log: Log) -> HistField:
    """Return a field of the record. Like trace_events.c:trace_find_event_field."""
    found = next((field for field in form.fields if field.name == name), None)
    if found is None and name in _CPU_NAMES:
        made = _made(Flag.CPU | flags, "unsigned int", 4, lambda hit: hit.task.cpu)
        made.field, made.field_type = name, ("int", 0, True)
        return made
    found = found or form.field(name)
    source = operand(form, name)
    if found is None or source is None or not found.ctype.size:
        raise refusal(log, "Couldn't find field", name)
    return _of_record(found, source.get, flags)


def _of_record(field: Field, get: Callable[..., Value], flags: Flag) -> HistField:
    ctype = field.ctype
    kind = ctype.text + ctype.suffix
    if ctype.holds in (Holds.CHARS, Holds.DYNAMIC):
        size = TEXT_ROOM if ctype.holds is Holds.DYNAMIC else ctype.size
        made = _made(flags | Flag.TEXT, kind, size, lambda hit: get(hit.event, hit.task))
    elif ctype.size not in _NUMBERS or ctype.holds in (Holds.BYTES, Holds.TAIL):
        raise KernelError(ENOMEM, f"{field.name} is no number")
    else:
        made = _made(flags, kind, ctype.size, _number(get))
        made.signed = ctype.signed
    made.field, made.field_type = field.name, (kind, ctype.size, ctype.signed)
    return made


def _number(get: Callable[..., Value]) -> Getter:
    return lambda hit: number_of(get(hit.event, hit.task)) & ALL_BITS


def _stack(form: EventFormat, hit: Hit) -> str:
    # Five callers are left out: of a marker, those in its system call.
    chain = CALL if form.system == FTRACE else chain_of(form.system, form.event, hit.task)
    return "".join(f"         {name}+0x0/{SYMBOL_REACH:#x}\n" for name in chain)


def number_of(value: Value) -> int:
    """Return a value as a number; of a text, what its first eight bytes mean as one."""
    if isinstance(value, int):
        return value
    return int.from_bytes(value.encode("latin-1")[:8], "little")


def _log2(get: Getter) -> Getter:
    def value(hit: Hit) -> int:
        found = get(hit)
        # The kernel rounds up to a power of two; a text is an address, in the upper half.
        return max(0, (found - 1).bit_length()) if isinstance(found, int) else 64

    return value


def _bucket(get: Getter, size: int) -> Getter:
    return lambda hit: number_of(get(hit)) // size * size

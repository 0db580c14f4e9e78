"""What a histogram can count by: fields of the event and of its task, and how each is printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from errno import EINVAL
from functools import partial
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from fakesys.core.errors import KernelError
from fakesys.core.event_format import EventFormat
from fakesys.core.events import Task
from fakesys.core.text import kstrtoull
from fakesys.subsystems.tracing.events.ftrace import FTRACE
from fakesys.subsystems.tracing.events.stacks import (
    MARKER_STACK,
    PROBE,
    SYMBOL_REACH,
    chain_of,
    place_of,
    symbol,
)
from fakesys.subsystems.tracing.filter.operands import operand

ALL_BITS = (1 << 64) - 1
# Names that filters know and histograms do not.
_FILTERS_ONLY = frozenset(("COMM", "CPU"))
# Modifiers of values only.
RELATIVE = frozenset(("percent", "graph"))

# Numbers of x86's system calls that a client of this file system makes.
_SYSCALLS = {0: "sys_read", 1: "sys_write", 2: "sys_open", 3: "sys_close", 257: "sys_openat"}

Value = int | str
Getter = Callable[[Any, Task], Value]
Printer = Callable[[Value], str]


class HistError(KernelError):
    """The refusal of a wrong histogram; `at` is the wrong part of the command.

    `before`: an error that the kernel logs before this one.
    """

    def __init__(
        self, message: str, at: str, *, errno: int = EINVAL, before: HistError | None = None
    ) -> None:
        super().__init__(errno, f"{message}: {at!r}")
        self.message = message
        self.at = at
        self.before = before


class HistField(Struct, frozen=True):
    """A key or value: its name and modifier, `get` for its value, `show` for its text.

    `is_expression`: it is computed; as a value it is added up, but not shown.
    """

    name: str
    modifier: str
    is_text: bool
    get: Getter
    show: Printer
    is_expression: bool = False

    @property
    def spelling(self) -> str:
        """The text in the trigger file."""
        return f"{self.name}.{self.modifier}" if self.modifier else self.name


class Context(Struct, frozen=True):
    """What a histogram needs of the machine: names of tasks, and the clock of its instance."""

    comm_of: Callable[[int], str]
    now: Callable[[], int]


def parse_field(text: str, form: EventFormat, context: Context) -> HistField:
    """Parse FIELD[.MODIFIER]. Raises HistError, which points at the name or the modifier.

    Like trace_events_hist.c:parse_field, parse_atom (v6.1).
    """
    if text.count(".") > 1:
        # SYSTEM.EVENT.NAME, of which only the name is looked for here.
        raise HistError("Couldn't find field", text.split(".", 2)[2])
    name, _, modifier = text.partition(".")
    if modifier.startswith("bucket"):
        modifier = f"buckets={_bucket_size(modifier)}"
    if name in ("stacktrace", "common_stacktrace"):
        return HistField(name, "", True, partial(_stack, form), str)
    if name == "common_timestamp":
        return _timestamp(modifier, context)
    if name in ("cpu", "common_cpu"):
        found: tuple[Getter, bool] | None = (lambda event, task: task.cpu), False
        name = "common_cpu"
    else:
        found = None if name in _FILTERS_ONLY else _own_field(form, name)
    if found is None:
        raise HistError("Couldn't find field", name)
    get, is_text = found
    show = _printer(name, modifier, is_text, context)
    if show is None:
        raise HistError("Invalid field modifier", modifier)
    if modifier.startswith("buckets="):
        size = int(modifier.partition("=")[2])
        return HistField(name, modifier, False, _bucket(get, size), show)
    if modifier == "log2":
        return HistField(name, modifier, False, _log2(get), show)
    return HistField(name, modifier, is_text, get, show)


def _bucket_size(modifier: str) -> int:
    """Return the size of buckets. Raises HistError, without a place if there is no number."""
    _, assigned, number = modifier.partition("=")
    try:
        size = kstrtoull(number) if assigned else 0
    except KernelError:
        size = 0
    if not size:
        raise HistError("Invalid field modifier", number)
    return size


def _own_field(form: EventFormat, name: str) -> tuple[Getter, bool] | None:
    found = operand(form, name)
    if found is None or (name == "comm" and form.field(name) is None):
        return None
    get = found.get
    if found.is_text:
        return get, True
    return lambda event, task: int(get(event, task)) & ALL_BITS, False


def _timestamp(modifier: str, context: Context) -> HistField:
    if modifier not in ("", "usecs", "hex"):
        raise HistError("Invalid field modifier", modifier)
    divisor = 1000 if modifier == "usecs" else 1
    show = _SIMPLE["hex" if modifier == "hex" else ""]
    return HistField(
        "common_timestamp", modifier, False, lambda event, task: context.now() // divisor, show
    )


def _decimal(value: Value) -> str:
    return f"{value:>10}"


def _text(value: Value) -> str:
    return f"{value:<50}"


def _symbol(value: Value) -> str:
    return f"[{value:x}] {place_of(int(value))[0]:<45}"


def _symbol_offset(value: Value) -> str:
    return f"[{value:x}] {symbol(int(value), with_offset=True):<55}"


def _syscall(value: Value) -> str:
    return f"{_SYSCALLS.get(int(value), 'unknown_syscall'):<30}[{value:3}]"


def _stack(form: EventFormat, _event: Any, task: Task) -> str:
    chain = MARKER_STACK if form.system == FTRACE else chain_of(form.system, form.event, task)
    return "".join(f"\n         {name}+0x0/{SYMBOL_REACH:#x}" for name in (PROBE, *chain))


def _log2(get: Getter) -> Getter:
    # The kernel rounds up to a power of two.
    return lambda event, task: max(0, (int(get(event, task)) - 1).bit_length())


def _bucket(get: Getter, size: int) -> Getter:
    return lambda event, task: int(get(event, task)) // size * size


_SIMPLE: Mapping[str, Printer] = MappingProxyType(
    {
        "": _decimal,
        "hex": lambda value: f"{value:x}",
        "sym": _symbol,
        "sym-offset": _symbol_offset,
        "syscall": _syscall,
        "log2": lambda value: f"~ 2^{value:<2}",
    }
)


def _printer(name: str, modifier: str, is_text: bool, context: Context) -> Printer | None:
    if is_text:
        return _text if modifier in ("", "hex") else None
    if modifier == "execname":
        if name != "common_pid":
            return None
        return lambda value: f"{context.comm_of(int(value)):<16}[{value:10}]"
    if modifier.startswith("buckets="):
        size = modifier.partition("=")[2]
        return lambda value: f"~ {value}-{int(value) + int(size) - 1}"
    return _decimal if modifier in RELATIVE else _SIMPLE.get(modifier)

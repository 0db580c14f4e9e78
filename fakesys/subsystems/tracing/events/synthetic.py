"""Synthetic events: their definitions, and their formats.

Like kernel/trace/trace_events_synth.c:__create_synth_event, parse_synth_field,
synth_event_define_fields, print_synth_event, check_synth_field (v6.1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from errno import EINVAL
from functools import cached_property
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import Struct

from fakesys.core.c_types import CType, Holds
from fakesys.core.errors import KernelError
from fakesys.core.event_format import COMMON_SIZE, EventFormat, Field, Loaded
from fakesys.core.text import kstrtoull
from fakesys.core.tracepoint import Tracepoint

SYNTHETIC = "synthetic"
MOST_FIELDS = 64
# Bytes of a text of fixed length in a record (STR_VAR_LEN_MAX), and of any other field.
TEXT_ROOM, ROOM = 256, 8
WRONG_COMMAND = "Command must be of the form: <name> field[;field] ..."
WRONG_DYNAMIC_COMMAND = "Command must be of the form: s or -:[synthetic/]<name> field[;field] ..."
_GOOD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DYNAMIC = "__data_loc "

Log = Callable[[str, str | None], None]
"""Appends a message to `error_log`, with the part of the command that it is about, if any."""

# Size and print format by type.
_TYPES: Mapping[str, tuple[int, str]] = MappingProxyType(
    {
        "s64": (8, "%lld"),
        "u64": (8, "%llu"),
        "s32": (4, "%d"),
        "u32": (4, "%u"),
        "s16": (2, "%d"),
        "u16": (2, "%u"),
        "s8": (1, "%d"),
        "u8": (1, "%u"),
        "char": (1, "%d"),
        "unsigned char": (1, "%u"),
        "int": (4, "%d"),
        "unsigned int": (4, "%u"),
        "long": (8, "%ld"),
        "unsigned long": (8, "%lu"),
        "bool": (1, "%d"),
        "pid_t": (4, "%d"),
        "gfp_t": (4, "%x"),
    }
)
_CODES = MappingProxyType({1: "b", 2: "h", 4: "i", 8: "q"})


class SyntheticField(Struct, frozen=True):
    """A field as it was defined. `type`: with its array, and `__data_loc` for any length."""

    type: str
    name: str
    size: int

    @property
    def is_text(self) -> bool:
        """Is it a text?"""
        return "char[" in self.type

    @property
    def is_stack(self) -> bool:
        """Is it a call chain?"""
        return not self.is_text and "long[" in self.type

    @property
    def is_dynamic(self) -> bool:
        """Has it any length?"""
        return self.type.startswith(_DYNAMIC)

    @property
    def signed(self) -> bool:
        """Is it signed?"""
        return not self.type.startswith("u") and self.type != "gfp_t"

    @property
    def text(self) -> str:
        """What defines the same field."""
        kind, bracket, rest = self.type.removeprefix(_DYNAMIC).partition("[")
        return f"{kind} {self.name}{bracket}{rest}"

    @property
    def print_format(self) -> str:
        """How C prints it."""
        return "%s" if self.is_text or self.is_stack else _TYPES[self.type][1]

    @property
    def argument(self) -> str:
        """The argument of the print format."""
        if self.is_text and self.is_dynamic:
            return f"__get_str({self.name})"
        return f"__get_stacktrace({self.name})" if self.is_stack else f"REC->{self.name}"

    @property
    def room(self) -> int:
        """Bytes of the record that it takes, but for what is behind the fixed part."""
        return TEXT_ROOM if self.is_text and not self.is_dynamic else ROOM

    @property
    def ctype(self) -> CType:
        """Its type in the record."""
        if self.is_dynamic:
            return CType(self.type, ROOM, True, "Q", holds=Holds.DYNAMIC)
        if self.is_text:
            kind = self.type.partition("[")[0]
            return CType(kind, self.size, True, f"{self.size}s", "[]", 1, Holds.CHARS)
        code = _CODES[self.size]
        return CType(self.type, self.size, self.signed, code if self.signed else code.upper())

    def shown(self, value: Any) -> str:
        """Return its text in a line of `trace`."""
        if isinstance(value, str):
            return f"{self.name}={value}"
        if self.size < 4:
            value &= (1 << 8 * self.size) - 1
        return f"{self.name}={value:x}" if self.type == "gfp_t" else f"{self.name}={value}"


class Definition(Struct, frozen=True):
    """A synthetic event as it was defined."""

    name: str
    fields: tuple[SyntheticField, ...]

    @property
    def line(self) -> str:
        """Its line in `synthetic_events`."""
        fields = "; ".join(
            f"{field.type.removeprefix(_DYNAMIC)} {field.name}" for field in self.fields
        )
        return f"{self.name}\t{fields}\n"

    @property
    def text(self) -> str:
        """Fields that define the same event: arrays are behind the names."""
        return "; ".join(field.text for field in self.fields)

    @property
    def width(self) -> int:
        """The number of its fields."""
        return len(self.fields)

    def takes(self, number: int, kind: str, size: int, signed: bool, *, stack: bool) -> bool:
        """Return whether its field of this number takes values of a type."""
        if number >= len(self.fields):
            return False
        field = self.fields[number]
        if "char[" in kind and field.is_text and field.is_dynamic:
            return True
        if field.is_stack or stack:
            return field.is_stack and stack
        if field.type == kind:
            return True
        return field.size == size and (field.is_text or field.signed == signed)


def parse_definition(name: str, text: str, log: Log) -> Definition:
    """Parse the fields of an event. Raises EINVAL, which is logged."""
    if not name:
        raise refusal(log, WRONG_COMMAND, None)
    if not _GOOD_NAME.fullmatch(name):
        raise refusal(log, "Illegal name", name)
    fields: list[SyntheticField] = []
    for part in text.split(";"):
        words = part.split()
        while words:
            field, taken = _field(words, log)
            if len(fields) == MOST_FIELDS:
                raise refusal(log, "Too many fields", None)
            fields.append(field)
            words = words[taken:]
    if not fields:
        raise refusal(log, WRONG_COMMAND, None)
    return Definition(name, tuple(fields))


def refusal(log: Log, message: str, at: str | None, errno: int = EINVAL) -> KernelError:
    """Log a mistake; return the error to raise."""
    log(message, at)
    return KernelError(errno, message if at is None else f"{message}: {at!r}")


def _field(words: list[str], log: Log) -> tuple[SyntheticField, int]:
    """Parse TYPE NAME[ARRAY]; return the field and how many words it took."""
    prefix, taken = "", 2
    if words[0] == "unsigned":
        if len(words) < 3:
            raise refusal(log, "Incomplete type", words[0])
        prefix, taken = "unsigned ", 3
    word = words[taken - 2]
    if len(words) < taken:
        raise refusal(log, "Invalid field", word)
    name, bracket, rest = words[taken - 1].partition("[")
    array = bracket + rest
    if not _GOOD_NAME.fullmatch(name):
        raise refusal(log, "Illegal name", words[taken - 1])
    kind = prefix + word + array
    size = _size(kind)
    if size is None and array:
        raise refusal(log, "Invalid array specification", words[taken - 1])
    if size is None or (size == 0 and not ("char[" in kind or "long[" in kind)):
        raise refusal(log, "Invalid type", word)
    if size == 0:
        kind, size = _DYNAMIC + kind, ROOM
    return SyntheticField(kind, name, size), taken


def _size(kind: str) -> int | None:
    """Return the bytes of a type, 0 for any length and for no type, None for a wrong array."""
    if kind in _TYPES:
        return _TYPES[kind][0]
    if "char[" not in kind:
        return 0
    length, closed, rest = kind.partition("char[")[2].partition("]")
    if not closed or rest or len(length) > 3:
        return None
    try:
        size = kstrtoull(length, bits=32) if length else 0
    except KernelError:
        return None
    return size if size <= TEXT_ROOM else None


class SyntheticFormat(EventFormat):
    """The format of a synthetic event, whose fields are 8 bytes apart or more."""

    def __init__(self, definition: Definition, number: int) -> None:
        super().__init__(SYNTHETIC, definition.name, number, lambda: _load(definition))
        self.definition = definition

    @cached_property
    def _end(self) -> int:
        return COMMON_SIZE + sum(field.room for field in self.definition.fields)


def _load(definition: Definition) -> Loaded:
    placed = []
    offset = COMMON_SIZE
    for number, field in enumerate(definition.fields):
        placed.append(Field(field.name, field.ctype, offset, f"field{number}"))
        offset += field.room
    formats = ", ".join(f"{field.name}={field.print_format}" for field in definition.fields)
    arguments = "".join(f", {field.argument}" for field in definition.fields)
    return Loaded(
        cls=_class(definition, placed),
        fields=tuple(placed),
        print_fmt=f'"{formats}"{arguments}',
        text=lambda event: " ".join(
            field.shown(getattr(event, where.of_class))
            for field, where in zip(definition.fields, placed, strict=True)
        ),
        declared={field.of_class: field.ctype for field in placed},
    )


def _class(definition: Definition, fields: list[Field]) -> type[Tracepoint]:
    made = msgspec.defstruct(
        "Synthetic",
        [(field.of_class, Any) for field in fields],
        bases=(Tracepoint,),
        namespace={
            "system": SYNTHETIC,
            "event": definition.name,
            "__doc__": "An event that histograms make.",
        },
        module=__name__,
    )
    assert issubclass(made, Tracepoint)
    return made

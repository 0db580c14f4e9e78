"""A tracepoint declared once: its `format`, id, filter fields, text and binary record follow.

    class KvmPio(Tracepoint):
        system = "kvm"
        event = "kvm_pio"
        print_fmt = '"pio_%s at 0x%x", REC->rw ? "write" : "read", REC->port'

        rw: UnsignedInt
        port: UnsignedInt
        size: UnsignedInt

        def text(self) -> str:
            return f"pio_{'write' if self.rw else 'read'} at {self.port:#x}"

        # Kernels without this feature record less, and print it in another way.
        variants = (
            Variant(
                unless=KvmFeature.TRACE_PIO_SIZE,
                fields=("rw", "port"),
                print_fmt='"pio at 0x%x", REC->port',
                text=lambda self: f"pio at {self.port:#x}",
            ),
        )

A field's annotation carries its C type; offsets follow from C's alignment. The order of the
fields is the order in the record. A model emits the class with all fields; each kernel records
what the variant that its features choose has. Text is made from the record alone, so `text` of
a variant may use the variant's fields only (the others are zero or empty).
The call site asks first: `if KvmPio in bus.wanted: bus.emit(KvmPio(...))`.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from functools import cache
from operator import attrgetter
from types import MappingProxyType
from typing import (
    Annotated,
    Any,
    ClassVar,
    get_args,
)

from msgspec import Struct

from fakesys.core.features import Features, FeatureSet, has_features

COMMON_SIZE = 8
"""Bytes before the first field of an event: type, flags, preempt count, pid."""

IRQS_OFF = 0x01
"""Bit of `Tracepoint.common_flags`: interrupts are off where this event is recorded."""


class Holds(Enum):
    """How the bytes of a field are to be read."""

    NUMBER = "number"
    BOOL = "bool"
    # A Python str of at most size - 1 characters, filled up with NUL.
    CHARS = "chars"
    # A Python bytes of exactly `size`.
    BYTES = "bytes"
    # A Python str behind the fixed part; the field itself says where.
    DYNAMIC = "dynamic"
    # Python bytes that end the record, of any length.
    TAIL = "tail"


class CType(Struct, frozen=True):
    """A type as the `format` file spells it: `text NAME suffix`, its size, sign and struct code."""

    text: str
    size: int
    signed: bool = False
    code: str = ""
    suffix: str = ""
    align: int = 0
    holds: Holds = Holds.NUMBER

    @property
    def alignment(self) -> int:
        """At which multiples a field of this type begins."""
        return self.align or self.size or 1


def _number(text: str, code: str) -> CType:
    size = struct.calcsize(f"<{code}")
    return CType(text, size, signed=code.islower(), code=code)


def chars(size: int) -> CType:
    """`char NAME[size]`, a text of at most size - 1 characters."""
    return CType("char", size, False, f"{size}s", f"[{size}]", 1, Holds.CHARS)


def octets(text: str, size: int) -> CType:
    """`u8 NAME[size]` under the type name `text`."""
    return CType(text, size, False, f"{size}s", f"[{size}]", 1, Holds.BYTES)


# As include/uapi/asm-generic/int-ll64.h and include/linux/types.h (v6.18) name them.
U8 = Annotated[int, _number("__u8", "B")]
U16 = Annotated[int, _number("__u16", "H")]
U32 = Annotated[int, _number("__u32", "I")]
U64 = Annotated[int, _number("__u64", "Q")]
S8 = Annotated[int, _number("__s8", "b")]
S16 = Annotated[int, _number("__s16", "h")]
S32 = Annotated[int, _number("__s32", "i")]
S64 = Annotated[int, _number("__s64", "q")]
# The kernel's short names.
KU8 = Annotated[int, _number("u8", "B")]
KU16 = Annotated[int, _number("u16", "H")]
KU32 = Annotated[int, _number("u32", "I")]
KU64 = Annotated[int, _number("u64", "Q")]
KS8 = Annotated[int, _number("s8", "b")]
KS32 = Annotated[int, _number("s32", "i")]
KS64 = Annotated[int, _number("s64", "q")]
# C's own names.
SignedChar = Annotated[int, _number("signed char", "b")]
UnsignedChar = Annotated[int, _number("unsigned char", "B")]
Short = Annotated[int, _number("short", "h")]
UnsignedShort = Annotated[int, _number("unsigned short", "H")]
Int = Annotated[int, _number("int", "i")]
Unsigned = Annotated[int, _number("unsigned", "I")]
UnsignedInt = Annotated[int, _number("unsigned int", "I")]
Long = Annotated[int, _number("long", "q")]
SizeT = Annotated[int, _number("size_t", "Q")]
UnsignedLong = Annotated[int, _number("unsigned long", "Q")]
Bool = Annotated[bool, CType("bool", 1, False, "?", holds=Holds.BOOL)]
# Named types.
Pid = Annotated[int, _number("pid_t", "i")]
Gpa = Annotated[int, _number("gpa_t", "Q")]
Gfn = Annotated[int, _number("gfn_t", "Q")]
Gva = Annotated[int, _number("gva_t", "Q")]
Hpa = Annotated[int, _number("hpa_t", "Q")]
KvmPfn = Annotated[int, _number("kvm_pfn_t", "Q")]
# An address; `%p` in its text is printed by `hashed`.
VoidPointer = Annotated[int, _number("void *", "Q")]
U64Pointer = Annotated[int, _number("u64 *", "Q")]
# Texts and bytes; other sizes by `Annotated[str, chars(20)]`, `Annotated[bytes, octets(..)]`.
Comm = Annotated[str, chars(16)]
Insn = Annotated[bytes, octets("__u8", 15)]
DynamicString = Annotated[str, CType("__data_loc char[]", 4, False, "I", holds=Holds.DYNAMIC)]
TailBytes = Annotated[bytes, CType("char", 0, False, "", "[]", 1, Holds.TAIL)]
Callers = Annotated[
    bytes, CType("unsigned long", 64, False, "", suffix="[8]", align=8, holds=Holds.TAIL)
]


class Variant(Struct, frozen=True):
    """What other kernels record for an event; None keeps what the class says.

    `fields`: names in record order; a pair gives the field another C type.
    The first variant whose features fit is taken, else the class itself.
    """

    needs: Features = ()
    unless: Features = ()
    fields: tuple[str | tuple[str, CType], ...] | None = None
    print_fmt: str | None = None
    text: Callable[[Any], str] | None = None
    event: str | None = None
    # True: these kernels do not have the event at all.
    absent: bool = False


class Tracepoint(Struct):
    """Base of all tracepoints; one class is one event of the kernel.

    `common_flags` and `common_preempt_count` are what the common fields of its records say:
    IRQS_OFF, and the depth of preempt_disable() in the low four bits. A field of an event must
    not be called like a name of this class.
    `needs`, `unless`: features of the kernels that have the event.
    """

    system: ClassVar[str]
    event: ClassVar[str]
    print_fmt: ClassVar[str]
    common_flags: ClassVar[int] = 0
    common_preempt_count: ClassVar[int] = 0
    needs: ClassVar[Features] = ()
    unless: ClassVar[Features] = ()
    variants: ClassVar[tuple[Variant, ...]] = ()

    def text(self) -> str:
        """What `trace` prints after the event's name and `: `."""
        raise NotImplementedError

    def pids(self, pid: int) -> tuple[int, ...]:
        """Whose events these are, for lists of pids; `pid` is the task in whose context it is."""
        return (pid,)


class Field(Struct, frozen=True):
    """A field at its place in the record."""

    name: str
    ctype: CType
    offset: int

    def line(self, *, char_signed: bool = False) -> str:
        """As a line of the `format` file, without the leading TAB."""
        kind = self.ctype
        signed = kind.signed or (char_signed and kind.text in ("char", "__data_loc char[]"))
        return (
            f"field:{kind.text} {self.name}{kind.suffix};\toffset:{self.offset};"
            f"\tsize:{kind.size};\tsigned:{int(signed)};"
        )


def place(fields: list[tuple[str, CType]], start: int = COMMON_SIZE) -> tuple[Field, ...]:
    """The fields at the offsets that C gives them."""
    placed = []
    offset = start
    for name, ctype in fields:
        offset = align(offset, ctype.alignment)
        placed.append(Field(name, ctype, offset))
        offset += 0 if ctype.holds is Holds.TAIL else ctype.size
    return tuple(placed)


def align(offset: int, to: int) -> int:
    """The next multiple of `to`."""
    return (offset + to - 1) // to * to


def c_type(annotation: Any) -> CType:
    """The C type behind a field's annotation, for the `fields` of a variant."""
    found: CType = get_args(annotation)[1]
    return found


def _by_name(*pairs: tuple[str, Any]) -> list[tuple[str, CType]]:
    return [(name, c_type(annotation)) for name, annotation in pairs]


COMMON_FIELDS = place(
    _by_name(
        ("common_type", UnsignedShort),
        ("common_flags", UnsignedChar),
        ("common_preempt_count", UnsignedChar),
        ("common_pid", Int),
    ),
    start=0,
)


# A class never changes, and each change of the kernel asks for all of them again.
@cache
def declared_fields(cls: type[Tracepoint]) -> Mapping[str, CType]:
    """The fields of a tracepoint class with their C types, in the order of the class."""
    annotations = {
        name: (base.__module__, text)
        for base in reversed(cls.__mro__)
        for name, text in vars(base).get("__annotations__", {}).items()
    }
    return MappingProxyType(
        {name: _annotated(*annotations[name]) for name in cls.__struct_fields__}
    )


# Hundreds of fields have the same few types; typing.get_type_hints would compile each anew.
@cache
def _annotated(module: str, text: str) -> CType:
    """The C type of an annotation as a module spells it."""
    return c_type(eval(text, vars(sys.modules[module])))


class EventFormat:
    """One event as one kernel has it: format text, and records to and from tracepoints."""

    def __init__(self, cls: type[Tracepoint], number: int, variant: Variant) -> None:
        self.cls = cls
        self.id = number
        self.system = cls.system
        self.event = variant.event or cls.event
        self.print_fmt = cls.print_fmt if variant.print_fmt is None else variant.print_fmt
        self.fields = place(_chosen(cls, variant))
        self.text: Callable[[Any], str] = variant.text or cls.text
        self._head = (number, cls.common_flags, cls.common_preempt_count)
        self._fixed = tuple(f for f in self.fields if f.ctype.holds is not Holds.TAIL)
        self._tail = next((f for f in self.fields if f.ctype.holds is Holds.TAIL), None)
        self._dynamic = tuple(f for f in self._fixed if f.ctype.holds is Holds.DYNAMIC)
        self._end = max((f.offset + f.ctype.size for f in self._fixed), default=COMMON_SIZE)
        self.size = align(self._end, max((f.ctype.alignment for f in self._fixed), default=4))
        self._struct = struct.Struct("<HBBi" + "".join(self._codes()))
        self._plain = all(f.ctype.holds in (Holds.NUMBER, Holds.BOOL) for f in self.fields)
        self._get = _getter([f.name for f in self._fixed])
        self._body = struct.Struct(f"<{COMMON_SIZE}x" + "".join(self._codes()))
        self._empty, self._order = _arguments(cls, self._fixed)

    @property
    def name(self) -> str:
        """`system:event`."""
        return f"{self.system}:{self.event}"

    def field(self, name: str) -> Field | None:
        """The field of this name, common fields included; None when there is none."""
        return next((f for f in (*self.fields, *COMMON_FIELDS) if f.name == name), None)

    def format_text(self, *, char_signed: bool = False) -> str:
        """The text of the event's `format` file. `char_signed`: how the kernel was compiled."""
        common = "".join(f"\t{field.line()}\n" for field in COMMON_FIELDS)
        own = "".join(f"\t{field.line(char_signed=char_signed)}\n" for field in self.fields)
        return (
            f"name: {self.event}\nID: {self.id}\nformat:\n{common}\n{own}\n"
            f"print fmt: {self.print_fmt}\n"
        )

    def encode(self, event: Tracepoint, pid: int) -> bytes:
        """The record: common fields, the event's fields, filled up to a multiple of 4 bytes."""
        if not self._plain:
            return self._encode_slowly(event, pid)
        try:
            data = self._struct.pack(*self._head, pid, *self._get(event))
        except struct.error:
            return self._encode_slowly(event, pid)
        return data

    def decode(self, record: bytes) -> Any:
        """The tracepoint that a record holds; fields that this kernel does not record are zero."""
        values = self._body.unpack_from(record)
        if self._order is not None:
            known = values + self._empty
            values = tuple([known[place] for place in self._order])
        event = self.cls(*values)
        if not self._plain:
            self._fill(event, record)
        return event

    def _codes(self) -> Iterator[str]:
        position = COMMON_SIZE
        for field in self._fixed:
            yield f"{field.offset - position}x" if field.offset > position else ""
            yield field.ctype.code
            position = field.offset + field.ctype.size
        padded = align(self.size, 4)
        yield f"{padded - position}x" if padded > position else ""

    def _encode_slowly(self, event: Tracepoint, pid: int) -> bytes:
        values = list(self._get(event))
        # As in the kernel, strings begin where the last field ends, before C's tail padding.
        extra = b""
        for index, field in enumerate(self._fixed):
            values[index] = _packable(field.ctype, values[index])
            if field.ctype.holds is Holds.DYNAMIC:
                place_at = self._end + len(extra)
                extra += values[index] + b"\0"
                values[index] = (len(values[index]) + 1) << 16 | place_at
        data = self._struct.pack(*self._head, pid, *values)
        if self._dynamic:
            total = align(self.size + len(extra), 4)
            return (data[: self._end] + extra).ljust(total, b"\0")
        if self._tail is None:
            return data
        tail = getattr(event, self._tail.name)
        whole: bytes = data[: self._end].ljust(self._tail.offset, b"\0") + tail
        return whole.ljust(align(len(whole), 4), b"\0")

    def _fill(self, event: Any, record: bytes) -> None:
        for field in self._fixed:
            if field.ctype.holds is Holds.CHARS:
                raw = getattr(event, field.name)
                setattr(event, field.name, raw.split(b"\0", 1)[0].decode("latin-1"))
            elif field.ctype.holds is Holds.DYNAMIC:
                where = getattr(event, field.name)
                raw = record[where & 0xFFFF : (where & 0xFFFF) + (where >> 16)]
                setattr(event, field.name, raw.split(b"\0", 1)[0].decode("latin-1"))
        if self._tail is not None:
            setattr(event, self._tail.name, record[self._tail.offset :])


def bind(cls: type[Tracepoint], number: int, features: FeatureSet) -> EventFormat | None:
    """The event as a kernel with these features has it; None when it has no such event."""
    if not has_features(cls.needs, cls.unless, features):
        return None
    for variant in cls.variants:
        if has_features(variant.needs, variant.unless, features):
            return None if variant.absent else EventFormat(cls, number, variant)
    return EventFormat(cls, number, Variant())


def hashed(pointer: int) -> str:
    """How `%p` prints an address: a stable number that tells nothing about it.

    Like lib/vsprintf.c:ptr_to_id (v6.1): 16 digits, of which the upper 8 are zero.
    """
    if pointer == 0:
        return "0" * 16
    mixed = pointer * 0x9E3779B97F4A7C15 + 0x7F4A7C15
    return f"{(mixed >> 29) & 0xFFFFFFFF:016x}"


def _chosen(cls: type[Tracepoint], variant: Variant) -> list[tuple[str, CType]]:
    declared = declared_fields(cls)
    if variant.fields is None:
        return list(declared.items())
    return [
        (entry, declared[entry]) if isinstance(entry, str) else entry for entry in variant.fields
    ]


_EMPTY = {Holds.CHARS: "", Holds.DYNAMIC: "", Holds.BYTES: b"", Holds.TAIL: b""}


def _arguments(
    cls: type[Tracepoint], recorded: tuple[Field, ...]
) -> tuple[tuple[Any, ...], tuple[int, ...] | None]:
    """How the values of a record become the arguments of the class.

    What is not recorded, and where each argument is among the recorded and those; None: all are
    recorded and in their order.
    """
    places = {field.name: number for number, field in enumerate(recorded)}
    empty: list[Any] = []
    for name, ctype in declared_fields(cls).items():
        if name not in places:
            places[name] = len(recorded) + len(empty)
            empty.append(_EMPTY.get(ctype.holds, 0))
    order = tuple(places[name] for name in declared_fields(cls))
    return tuple(empty), None if order == tuple(range(len(recorded))) else order


def _getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    if not names:
        return lambda event: ()
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda event: (get(event),)


def _packable(ctype: CType, value: Any) -> Any:
    """A value as struct takes it: numbers cut to their size as C does, texts as bytes."""
    if ctype.holds is Holds.CHARS:
        return value.encode("latin-1")[: ctype.size - 1]
    if ctype.holds is Holds.DYNAMIC:
        return value.encode("latin-1")
    if ctype.holds is not Holds.NUMBER:
        return value
    bits = ctype.size * 8
    value &= (1 << bits) - 1
    return value - (1 << bits) if ctype.signed and value >> (bits - 1) else value

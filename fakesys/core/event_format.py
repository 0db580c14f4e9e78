"""One event as one kernel has it: the text of its `format` file, records to and from tracepoints.

A record is what the ring buffer holds: the common fields, then the event's fields at the offsets
that C's alignment gives them (include/trace/trace_events.h, v6.1).

    form = event_format(KvmPio, 812, features)      # None: this kernel has no such event
    record = form.encode(KvmPio(rw=1, port=0x3F8, size=1, count=1, val=65), pid=77)
    form.text(form.decode(record))
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from operator import attrgetter
from typing import Any, NamedTuple

from msgspec import Struct

from fakesys.core.c_types import CType, Holds, Int, UnsignedChar, UnsignedShort, align_up, c_type
from fakesys.core.features import FeatureSet, has_features
from fakesys.core.tracepoint import Tracepoint, Variant, declared_fields

COMMON_SIZE = 8
"""Bytes before the first field of an event: type, flags, preempt count, pid."""


class Field(Struct, frozen=True):
    """A field at its place in the record.

    `attribute`: how the class of the event calls it, where that is not its name.
    """

    name: str
    ctype: CType
    offset: int
    attribute: str = ""

    @property
    def of_class(self) -> str:
        """The attribute of the class of the event that has its value."""
        return self.attribute or self.name

    def line(self, *, char_signed: bool = False) -> str:
        """Return the line of the `format` file, without the leading TAB."""
        kind = self.ctype
        signed = kind.signed or (char_signed and kind.text in ("char", "__data_loc char[]"))
        return (
            f"field:{kind.text} {self.name}{kind.suffix};\toffset:{self.offset};"
            f"\tsize:{kind.size};\tsigned:{int(signed)};"
        )


def lay_out(fields: list[tuple[str, CType]], start: int = COMMON_SIZE) -> tuple[Field, ...]:
    """Return the fields at the offsets that C gives them."""
    placed = []
    offset = start
    for name, ctype in fields:
        offset = align_up(offset, ctype.alignment)
        placed.append(Field(name, ctype, offset))
        offset += 0 if ctype.holds is Holds.TAIL else ctype.size
    return tuple(placed)


def _by_name(*pairs: tuple[str, Any]) -> list[tuple[str, CType]]:
    return [(name, c_type(annotation)) for name, annotation in pairs]


COMMON_FIELDS = lay_out(
    _by_name(
        ("common_type", UnsignedShort),
        ("common_flags", UnsignedChar),
        ("common_preempt_count", UnsignedChar),
        ("common_pid", Int),
    ),
    start=0,
)


class Loaded(Struct, frozen=True):
    """What an event of one kernel consists of. `declared`: types of the fields of the class."""

    cls: type[Tracepoint]
    fields: tuple[Field, ...]
    print_fmt: str
    text: Callable[[Any], str]
    declared: Mapping[str, CType]


class Packer(NamedTuple):
    """How records of one size are written straight into a page.

    `size`: with the word before the record. `words`: its length in that word. `common`: number,
    flags and preempt count; without the latter two if `varies`, for `context_word` to add them.
    `pack_into`: takes that word, `common`, the pid and the fields of the event, which `get` reads.
    """

    size: int
    words: int
    common: int
    varies: bool
    pack_into: Callable[..., None]
    get: Callable[[Any], tuple[Any, ...]]


class EventFormat:
    """One event as one kernel has it: format text, and records to and from tracepoints.

    Until more than its name and number is asked for, `load` is not called: a kernel has hundreds
    of events, of which few are used.
    """

    def __init__(self, system: str, event: str, number: int, load: Callable[[], Loaded]) -> None:
        self.system = system
        self.event = event
        self.id = number
        self._load = load

    @cached_property
    def _loaded(self) -> Loaded:
        return self._load()

    @cached_property
    def cls(self) -> type[Tracepoint]:
        """The class of its events."""
        return self._loaded.cls

    @cached_property
    def print_fmt(self) -> str:
        """How C prints it."""
        return self._loaded.print_fmt

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The fields of its record."""
        return self._loaded.fields

    @cached_property
    def text(self) -> Callable[[Any], str]:
        """The function that makes its text."""
        return self._loaded.text

    @cached_property
    def _fixed(self) -> tuple[Field, ...]:
        return tuple(f for f in self.fields if f.ctype.holds is not Holds.TAIL)

    @cached_property
    def _tail(self) -> Field | None:
        return next((f for f in self.fields if f.ctype.holds is Holds.TAIL), None)

    @cached_property
    def _dynamic(self) -> tuple[Field, ...]:
        return tuple(f for f in self._fixed if f.ctype.holds is Holds.DYNAMIC)

    @cached_property
    def _end(self) -> int:
        return max((f.offset + f.ctype.size for f in self._fixed), default=COMMON_SIZE)

    @cached_property
    def size(self) -> int:
        """Bytes of the fixed part of its record."""
        return align_up(self._end, max((f.ctype.alignment for f in self._fixed), default=4))

    @cached_property
    def _head(self) -> tuple[int, int, int]:
        return self.id, self.cls.common_flags, self.cls.common_preempt_count

    @cached_property
    def _has_one_context(self) -> bool:
        """Whether all its records have the same flags and the same preempt count."""
        return self.cls.context is Tracepoint.context

    def _head_of(self, event: Tracepoint) -> tuple[int, int, int]:
        return self.id, *event.context()

    @cached_property
    def _struct(self) -> struct.Struct:
        return struct.Struct("<HBBi" + "".join(self._codes()))

    @cached_property
    def _body(self) -> struct.Struct:
        return struct.Struct(f"<{COMMON_SIZE}x" + "".join(self._codes()))

    @cached_property
    def _numbers_only(self) -> bool:
        return all(f.ctype.holds in (Holds.NUMBER, Holds.BOOL) for f in self.fields)

    @cached_property
    def packer(self) -> Packer | None:
        """How its records are written into a page; None if they vary in length."""
        if not self._numbers_only:
            return None
        layout = struct.Struct("<IIi" + "".join(self._codes()))
        varies = not self._has_one_context
        number, flags, depth = self._head
        common = number if varies else number | context_word((flags, depth))
        words = layout.size // 4 - 1
        return Packer(layout.size, words, common, varies, layout.pack_into, self._get)

    @cached_property
    def _get(self) -> Callable[[Any], tuple[Any, ...]]:
        return _getter([f.of_class for f in self._fixed])

    @cached_property
    def _arguments(self) -> tuple[tuple[Any, ...], tuple[int, ...] | None]:
        return _arguments(self._loaded.declared, self._fixed)

    @property
    def name(self) -> str:
        """`system:event`."""
        return f"{self.system}:{self.event}"

    def field(self, name: str) -> Field | None:
        """Return the field of this name, common fields included; None when there is none."""
        return next((f for f in (*self.fields, *COMMON_FIELDS) if f.name == name), None)

    def format_text(self, *, char_signed: bool = False) -> str:
        """Return the text of the `format` file. `char_signed`: how the kernel was compiled."""
        common = "".join(f"\t{field.line()}\n" for field in COMMON_FIELDS)
        own = "".join(f"\t{field.line(char_signed=char_signed)}\n" for field in self.fields)
        return (
            f"name: {self.event}\nID: {self.id}\nformat:\n{common}\n{own}\n"
            f"print fmt: {self.print_fmt}\n"
        )

    def encode(self, event: Tracepoint, pid: int) -> bytes:
        """Return the record of an event: all its fields, filled up to a multiple of 4 bytes."""
        if not self._numbers_only:
            return self._encode_any(event, pid)
        try:
            head = self._head if self._has_one_context else self._head_of(event)
            data = self._struct.pack(*head, pid, *self._get(event))
        except struct.error:
            return self._encode_any(event, pid)
        return data

    def has_length(self, length: int) -> bool:
        """Return whether a record of this event can have so many bytes, so that it is readable."""
        least = self._struct.size
        varies = self._dynamic or self._tail is not None
        return length >= least if varies else length == least

    def decode(self, record: bytes) -> Any:
        """Return the tracepoint of a record; fields that this kernel does not record are zero."""
        values = self._body.unpack_from(record)
        empty, order = self._arguments
        if order is not None:
            known = values + empty
            values = tuple([known[index] for index in order])
        event = self.cls(*values)
        if not self._numbers_only:
            self._fill(event, record)
        return event

    def _codes(self) -> Iterator[str]:
        position = COMMON_SIZE
        for field in self._fixed:
            yield f"{field.offset - position}x" if field.offset > position else ""
            yield field.ctype.code
            position = field.offset + field.ctype.size
        padded = align_up(self.size, 4)
        yield f"{padded - position}x" if padded > position else ""

    def _encode_any(self, event: Tracepoint, pid: int) -> bytes:
        values = list(self._get(event))
        # As in the kernel, strings begin where the last field ends, before C's tail padding.
        extra = b""
        for index, field in enumerate(self._fixed):
            values[index] = _packable(field.ctype, values[index])
            if field.ctype.holds is Holds.DYNAMIC:
                offset = self._end + len(extra)
                extra += values[index] + b"\0"
                values[index] = (len(values[index]) + 1) << 16 | offset
        data = self._struct.pack(*self._head_of(event), pid, *values)
        if self._dynamic:
            total = align_up(self.size + len(extra), 4)
            return (data[: self._end] + extra).ljust(total, b"\0")
        if self._tail is None:
            return data
        tail = getattr(event, self._tail.of_class)
        whole: bytes = data[: self._end].ljust(self._tail.offset, b"\0") + tail
        return whole.ljust(align_up(len(whole), 4), b"\0")

    def _fill(self, event: Any, record: bytes) -> None:
        for field in self._fixed:
            if field.ctype.holds is Holds.CHARS:
                raw = getattr(event, field.of_class)
                setattr(event, field.of_class, raw.split(b"\0", 1)[0].decode("latin-1"))
            elif field.ctype.holds is Holds.DYNAMIC:
                where = getattr(event, field.of_class)
                raw = record[where & 0xFFFF : (where & 0xFFFF) + (where >> 16)]
                setattr(event, field.of_class, raw.split(b"\0", 1)[0].decode("latin-1"))
        if self._tail is not None:
            setattr(event, self._tail.of_class, record[self._tail.offset :])


def context_word(context: tuple[int, int]) -> int:
    """Return flags and preempt count where the first word of a record has them."""
    flags, depth = context
    return flags << 16 | depth << 24


def event_format(cls: type[Tracepoint], number: int, features: FeatureSet) -> EventFormat | None:
    """Return the event as a kernel with these features has it; None when it has no such event."""
    if not has_features(cls.needs, cls.unless, features):
        return None
    for variant in cls.variants:
        if has_features(variant.needs, variant.unless, features):
            return None if variant.absent else _of_class(cls, number, variant)
    return _of_class(cls, number, Variant())


def _of_class(cls: type[Tracepoint], number: int, variant: Variant) -> EventFormat:
    def load() -> Loaded:
        return Loaded(
            cls=cls,
            fields=lay_out(_chosen(cls, variant)),
            print_fmt=cls.print_fmt if variant.print_fmt is None else variant.print_fmt,
            text=variant.text or cls.text,
            declared=declared_fields(cls),
        )

    return EventFormat(cls.system, variant.event or cls.event, number, load)


def _chosen(cls: type[Tracepoint], variant: Variant) -> list[tuple[str, CType]]:
    declared = declared_fields(cls)
    if variant.fields is None:
        return list(declared.items())
    return [
        (entry, declared[entry]) if isinstance(entry, str) else entry for entry in variant.fields
    ]


_EMPTY = {Holds.CHARS: "", Holds.DYNAMIC: "", Holds.BYTES: b"", Holds.TAIL: b""}


def _arguments(
    declared: Mapping[str, CType], recorded: tuple[Field, ...]
) -> tuple[tuple[Any, ...], tuple[int, ...] | None]:
    """Return how the values of a record become the arguments of the class.

    The values of fields that are not recorded; and for each argument its index in the recorded
    values followed by those. The indexes are None when all are recorded in order.
    """
    indexes = {field.of_class: number for number, field in enumerate(recorded)}
    empty: list[Any] = []
    for name, ctype in declared.items():
        if name not in indexes:
            indexes[name] = len(recorded) + len(empty)
            empty.append(_EMPTY.get(ctype.holds, 0))
    order = tuple(indexes[name] for name in declared)
    return tuple(empty), None if order == tuple(range(len(recorded))) else order


def _getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    if not names:
        return lambda event: ()
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda event: (get(event),)


def _packable(ctype: CType, value: Any) -> Any:
    """Return a value as `struct` takes it: numbers cut to their size as C does, texts as bytes."""
    if ctype.holds is Holds.CHARS:
        return value.encode("latin-1")[: ctype.size - 1]
    if ctype.holds is Holds.DYNAMIC:
        return value.encode("latin-1")
    if ctype.holds is not Holds.NUMBER:
        return value
    bits = ctype.size * 8
    value &= (1 << bits) - 1
    return value - (1 << bits) if ctype.signed and value >> (bits - 1) else value

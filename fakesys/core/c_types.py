"""C types of the fields of tracepoints, as `format` files spell them.

An annotation carries the type: `port: c.UnsignedInt` with this module imported as `c`. Types of
other sizes are `Annotated[str, chars(20)]` and `Annotated[bytes, octets("u8", 6)]`.
"""

from __future__ import annotations

import struct
from enum import Enum
from typing import Annotated, Any, get_args

from msgspec import Struct


class Holds(Enum):
    """How the bytes of a field are read."""

    NUMBER = "number"
    BOOL = "bool"
    # A str of at most size - 1 characters, filled up with NUL.
    CHARS = "chars"
    # A bytes object of exactly `size`.
    BYTES = "bytes"
    # A str behind the fixed part of the record; the field holds its offset and length.
    DYNAMIC = "dynamic"
    # A bytes object of any length that ends the record.
    TAIL = "tail"


class CType(Struct, frozen=True):
    """A type as the `format` file spells it, `text NAME suffix`, with its size in bytes.

    `code`: the format character of module `struct`. `align`: alignment where it is not the size.
    """

    text: str
    size: int
    signed: bool = False
    code: str = ""
    suffix: str = ""
    align: int = 0
    holds: Holds = Holds.NUMBER

    @property
    def alignment(self) -> int:
        """The number of bytes of which the offset of such a field is a multiple."""
        return self.align or self.size or 1


def align_up(offset: int, alignment: int) -> int:
    """Return the lowest multiple of `alignment` that is not below `offset`."""
    return (offset + alignment - 1) // alignment * alignment


def _number(text: str, code: str) -> CType:
    size = struct.calcsize(f"<{code}")
    return CType(text, size, signed=code.islower(), code=code)


def chars(size: int) -> CType:
    """Return the type of `char NAME[size]`: a text of at most size - 1 characters."""
    return CType("char", size, False, f"{size}s", f"[{size}]", 1, Holds.CHARS)


def octets(text: str, size: int) -> CType:
    """Return the type of `u8 NAME[size]`, whose elements are called `text`."""
    return CType(text, size, False, f"{size}s", f"[{size}]", 1, Holds.BYTES)


def c_type(annotation: Any) -> CType:
    """Return the C type of an annotation, as the `fields` of a variant need it."""
    found: CType = get_args(annotation)[1]
    return found


# As include/uapi/asm-generic/int-ll64.h and include/linux/types.h (v6.18) name them.
U8 = Annotated[int, _number("__u8", "B")]
U16 = Annotated[int, _number("__u16", "H")]
U32 = Annotated[int, _number("__u32", "I")]
U64 = Annotated[int, _number("__u64", "Q")]
S8 = Annotated[int, _number("__s8", "b")]
S64 = Annotated[int, _number("__s64", "q")]
# The kernel's short names.
KU8 = Annotated[int, _number("u8", "B")]
KU32 = Annotated[int, _number("u32", "I")]
KU64 = Annotated[int, _number("u64", "Q")]
KS64 = Annotated[int, _number("s64", "q")]
# C's own names.
SignedChar = Annotated[int, _number("signed char", "b")]
UnsignedChar = Annotated[int, _number("unsigned char", "B")]
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
# An address; where C prints it by `%p`, `text` does by `hashed`.
VoidPointer = Annotated[int, _number("void *", "Q")]
U64Pointer = Annotated[int, _number("u64 *", "Q")]
# Texts and bytes.
Comm = Annotated[str, chars(16)]
Insn = Annotated[bytes, octets("__u8", 15)]
DynamicString = Annotated[str, CType("__data_loc char[]", 4, False, "I", holds=Holds.DYNAMIC)]
TailBytes = Annotated[bytes, CType("char", 0, False, "", "[]", 1, Holds.TAIL)]
Callers = Annotated[
    bytes, CType("unsigned long", 64, False, "", suffix="[8]", align=8, holds=Holds.TAIL)
]

"""Plain values in which a model is saved: declared types, checked while they are decoded.

A subsystem with state has a module `saved.py` with three parts:

* structs derived from `Saved` (with `frozen=True`, which type checkers do not inherit), which
  declare every value with its type and range;
* `save(model)`, which returns such a struct;
* `restore(saved, model)`, which fills a model that ordinary constructors have just made.

A saved value never names a class, a function or an attribute. What has a name in the machine is
saved by that name (a VM, an mdev, an event, a timer of the closed list of its subsystem), and
`restore` looks the name up and refuses one that does not exist. Filters, triggers and the like are
saved as the text that a client wrote, and are parsed again.

Nothing of the running machine changes before all parts of a snapshot were decoded, checked and
restored into new models, so `restore` may raise at any point.

    class SavedScan(Saved, frozen=True):
        count: U63
        timer: SavedTimer
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, NoReturn

from msgspec import Meta, Struct


class BadSnapshotError(ValueError):
    """A saved value that has the right type but cannot be; the text says where and why."""


class Saved(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of everything that a snapshot holds: plain values, no unknown field."""


# Whole numbers by their bits. Unsigned 64-bit values are checked by `check_range`, since ranges
# that need more than a signed 64-bit number cannot be declared.
U8 = Annotated[int, Meta(ge=0, lt=1 << 8)]
U16 = Annotated[int, Meta(ge=0, lt=1 << 16)]
U32 = Annotated[int, Meta(ge=0, lt=1 << 32)]
U63 = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Natural = Annotated[int, Meta(ge=0)]
# Counters may exceed 64 bits, but not the digits that can be printed.
COUNTER_END = 1 << 128
# A mask of up to 256 bits as hexadecimal digits.
Mask = Annotated[str, Meta(pattern=r"\A[0-9a-f]{1,64}\Z")]
# A word or one line of text of a length that a client could have written.
Word = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"\A\S+\Z")]
Line = Annotated[str, Meta(max_length=4096)]
# A text that may hold names that are no UTF-8, as `byte_text` writes it.
ByteText = Annotated[str, Meta(max_length=1 << 17, pattern=r"\A[\x00-\xff]*\Z")]


def refuse(why: str) -> NoReturn:
    """Raise BadSnapshotError with the reason."""
    raise BadSnapshotError(why)


def check(condition: object, why: str) -> None:
    """Raise BadSnapshotError with the reason unless the condition holds."""
    if not condition:
        raise BadSnapshotError(why)


def check_range(value: int, end: int, what: str) -> int:
    """Return `value` if it lies in [0, end). Raises BadSnapshotError."""
    if not 0 <= value < end:
        raise BadSnapshotError(f"{what} is {value}, outside of 0 to {end - 1}")
    return value


def check_counter(value: int, what: str) -> int:
    """Return `value` if a counter can have it. Raises BadSnapshotError."""
    return check_range(value, COUNTER_END, what)


def check_unique(values: Collection[object], what: str) -> None:
    """Raise BadSnapshotError if a value occurs twice. The values can be hashed."""
    check(len(set(values)) == len(values), f"{what} occurs twice")


def mask_text(mask: int) -> Mask:
    """Return a mask as `Mask` writes it."""
    return f"{mask:x}"


def mask_of(text: Mask) -> int:
    """Return the number that a `Mask` means."""
    return int(text, 16)


def byte_text(text: str) -> ByteText:
    """Return the bytes of a text as one character each; a file cannot hold all other texts."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def text_of(saved: ByteText) -> str:
    """Return the text that a `ByteText` means."""
    return saved.encode("latin-1").decode("utf-8", "surrogateescape")

"""Columns of numbers as bytes, lowest byte first, and masks of the entries of a table."""

from __future__ import annotations

import sys
from array import array
from typing import Annotated

from msgspec import Meta

from fakesys.core.saved import check, refuse
from fakesys.subsystems.kvm_mmu.shadow.sptes import ENTRIES

MASK_BYTES = ENTRIES // 8
# 512 bits, not all 0.
EntryMask = Annotated[str, Meta(pattern=r"\A[1-9a-f][0-9a-f]{0,127}\Z")]
Gfn = Annotated[int, Meta(ge=0, lt=1 << 52)]
# A generation can begin just below the end of 64 bits and still go on.
GENERATION_END = 1 << 65


def packed(column: array[int]) -> bytes:
    """Return the numbers of a column as bytes."""
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()


def unpacked(typecode: str, data: bytes, what: str) -> array[int]:
    """Return the column that bytes mean. Raises BadSnapshotError unless they are whole numbers."""
    column = array(typecode)
    if len(data) % column.itemsize:
        refuse(f"{what}: {len(data)} bytes are no numbers of {column.itemsize}")
    column.frombytes(data)
    if sys.byteorder == "big":
        column.byteswap()
    return column


def rows_of(data: bytes, known: set[int], what: str) -> array[int]:
    """Return rows that are among the known ones, each only once. Raises BadSnapshotError."""
    rows = unpacked("i", data, what)
    found = set(rows)
    check(len(found) == len(rows), f"{what}: a row is there twice")
    check(found <= known, f"{what}: a row that is no shadow page")
    return rows

"""Lists of depmod in the binary form of libkmod: a tree of the letters of the keys.

All numbers are big-endian. A node is at an offset, whose highest bits say what it has: children,
which are the first and the last letter and an offset for each letter between, and values.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

MAGIC, VERSION = 0xB007_F457, 0x0002_0001
HEAD = struct.Struct(">III")
CHILDREN, VALUES = 0x2000_0000, 0x4000_0000


def index(entries: Mapping[str, str]) -> bytes:
    """Return the file that gives for each key one value."""
    body = bytearray(HEAD.size)
    root = _node(body, {key.encode(): value.encode() for key, value in entries.items()})
    HEAD.pack_into(body, 0, MAGIC, VERSION, root)
    return bytes(body)


def _node(body: bytearray, entries: Mapping[bytes, bytes]) -> int:
    """Append the node of these entries, whose keys lack what leads to it; return its offset."""
    letters = sorted({key[0] for key in entries if key})
    children = {
        letter: _node(
            body, {key[1:]: value for key, value in entries.items() if key[:1] == b"%c" % letter}
        )
        for letter in letters
    }
    flags, offset = 0, len(body)
    if letters:
        flags |= CHILDREN
        first, last = letters[0], letters[-1]
        body += bytes((first, last))
        for letter in range(first, last + 1):
            body += struct.pack(">I", children.get(letter, 0))
    if b"" in entries:
        flags |= VALUES
        body += struct.pack(">II", 1, 0) + entries[b""] + b"\0"
    return offset | flags

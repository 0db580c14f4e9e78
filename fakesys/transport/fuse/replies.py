"""Pack nodes into answers: attributes, entries of LOOKUP, entries of READDIR."""

from __future__ import annotations

import stat

from fakesys.transport.conversions import BLOCK_SIZE, encode
from fakesys.transport.fuse import protocol
from fakesys.tree.node import Node

NS = 1_000_000_000
# Long, because the kernel is told of every change: see fakesys/transport/fuse/invalidation.py.
CACHE_SECONDS = 3600
NO_NODE = 0
# Node numbers from here on are for one look-up each: see fakesys/transport/fuse/nodes.py.
APART = 1 << 48

_ATTR_FIELDS = tuple[int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int]


class Replies:
    """Packs nodes. What root owns is shown as owned by `uid` and `gid`, those who mounted."""

    def __init__(self, uid: int = 0, gid: int = 0) -> None:
        self._uid = uid
        self._gid = gid

    def attr(self, node: Node) -> bytes:
        """Return the answer to GETATTR and SETATTR."""
        return protocol.ATTR_OUT.pack(_attr_seconds(node), 0, 0, *self._attributes(node))

    def entry(self, nodeid: int, node: Node) -> bytes:
        """Return the answer to LOOKUP."""
        return protocol.ENTRY_OUT.pack(
            nodeid,
            0,
            CACHE_SECONDS if nodeid < APART else 0,
            _attr_seconds(node),
            0,
            0,
            *self._attributes(node),
        )

    def _attributes(self, node: Node) -> _ATTR_FIELDS:
        atime, mtime, ctime = node.times_ns
        return (
            node.ino,
            node.size,
            0,
            atime // NS,
            mtime // NS,
            ctime // NS,
            atime % NS,
            mtime % NS,
            ctime % NS,
            node.mode,
            node.nlink,
            node.uid or self._uid,
            node.gid or self._gid,
            node.rdev,
            BLOCK_SIZE,
            0,
        )


def _attr_seconds(node: Node) -> int:
    # Without an end, lseek(SEEK_END) must be refused, so the kernel may not use a cached size.
    return CACHE_SECONDS if node.kind.has_end else 0


# The answer for a name that does not exist; the kernel keeps it until it is told to forget it.
NO_ENTRY_REPLY = protocol.ENTRY_OUT.pack(NO_NODE, 0, CACHE_SECONDS, *([0] * 19))
# In READDIRPLUS the attributes of `.`, of `..` and of nodes that the kernel knows already.
EMPTY_ENTRY = bytes(protocol.ENTRY_OUT.size)


def dirent(node: Node, offset: int, name: str) -> bytes:
    """Return one entry of READDIR."""
    return protocol.pack_dirent(node.ino, offset, stat.S_IFMT(node.mode) >> 12, encode(name))

"""What a node looks like in an answer: attributes, entries, directory entries."""

from __future__ import annotations

import stat
from errno import EIO

from fakesys.core.errors import KernelError
from fakesys.transport.fuse import protocol
from fakesys.tree.node import Node

NS = 1_000_000_000
# Long, because every change is told: see invalidation.py.
CACHE_SECONDS = 3600
BLOCK_SIZE = 4096
NO_NODE = 0
LARGEST_ERRNO = 511

_ATTR_FIELDS = tuple[int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int]


class Replies:
    """Packs nodes. What root owns belongs to `uid` and `gid`: the user who mounted."""

    def __init__(self, uid: int = 0, gid: int = 0) -> None:
        self._uid = uid
        self._gid = gid

    def attr(self, node: Node) -> bytes:
        """The answer to GETATTR and SETATTR."""
        return protocol.ATTR_OUT.pack(_attr_seconds(node), 0, 0, *self._attributes(node))

    def entry(self, nodeid: int, node: Node) -> bytes:
        """The answer to LOOKUP."""
        return protocol.ENTRY_OUT.pack(
            nodeid, 0, CACHE_SECONDS, _attr_seconds(node), 0, 0, *self._attributes(node)
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
            0,
            BLOCK_SIZE,
            0,
        )


def _attr_seconds(node: Node) -> int:
    # A file without an end must be asked each time: its size is what lseek(SEEK_END) needs.
    return CACHE_SECONDS if node.kind.has_end else 0


# A name that is not there: remembered by the kernel until it is told otherwise.
NO_ENTRY_REPLY = protocol.ENTRY_OUT.pack(NO_NODE, 0, CACHE_SECONDS, *([0] * 19))
# What stands in READDIRPLUS before `.`, `..` and what the kernel knows already.
UNTOLD_ENTRY = bytes(protocol.ENTRY_OUT.size)


def dirent(node: Node, offset: int, name: str) -> bytes:
    """One entry of READDIR."""
    return protocol.pack_dirent(node.ino, offset, stat.S_IFMT(node.mode) >> 12, encode(name))


def encode(name: str) -> bytes:
    """A name as the kernel has it."""
    return name.encode("utf-8", "surrogateescape")


def decode(name: bytes) -> str:
    """A name as the tree has it."""
    return name.decode("utf-8", "surrogateescape")


def client_errno(refusal: KernelError) -> int:
    """The errno that can be sent: with a larger one the kernel drops the answer, and the client
    would wait for ever.
    """
    number = refusal.errno or EIO
    return number if 0 < number <= LARGEST_ERRNO else EIO

"""The entries of a directory in the format of READDIR, packed once until a name changes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

from fakesys.core.scheduling.resched import cond_resched_killable, might_resched
from fakesys.transport.fuse import replies
from fakesys.tree.node import Directory, Node

# Longer directories are packed in slices, which may end after so many names.
FEW_NAMES = 1000
_OFTEN = 0x3F


class Listing:
    """`.`, `..` and some names of a directory with their nodes, packed.

    The position of an entry is the number of entries up to and including it. A name whose node
    was gone when it was packed keeps its position and has no entry.
    A long directory is packed in slices; names that change meanwhile are those of before.
    `sent_at` is `NodeTable.corrections` when the attributes of all these nodes were last sent.
    """

    __slots__ = ("_data", "_ends", "_nodes", "names", "sent_at", "version")

    def __init__(self, directory: Directory, names: Iterable[str]) -> None:
        self.version = directory.version
        self.sent_at = -1
        self.names = tuple(names)
        if len(self.names) > FEW_NAMES:
            might_resched()
        # None for `.` and `..` and for nodes that are gone.
        self._nodes: list[Node | None] = [None, None]
        data = bytearray(replies.dirent(directory, 1, "."))
        ends = [0, len(data)]
        data += replies.dirent(directory.parent or directory, 2, "..")
        ends.append(len(data))
        known, lookup, add = directory.cached, directory.lookup, self._nodes.append
        for position, name in enumerate(self.names, start=3):
            if not position & _OFTEN:
                cond_resched_killable()
            # The last step removed what it changed from the cache, so a cached node is right.
            node = known.get(name) or lookup(name)
            if node is not None:
                data += replies.dirent(node, position, name)
            add(node)
            ends.append(len(data))
        self._data = bytes(data)
        self._ends = ends

    def piece(self, position: int, size: int) -> bytes:
        """Return the entries behind a position, as many as fit in `size` bytes."""
        ends = self._ends
        if position >= len(ends):
            return b""
        start = ends[position]
        last = bisect_right(ends, start + size) - 1
        return self._data[start : ends[last]]

    def entries(self, position: int) -> Iterator[tuple[Node | None, bytes]]:
        """Yield each entry behind a position with its node, which is None for `.` and `..`."""
        data, ends = self._data, self._ends
        for index in range(position, len(self._nodes)):
            entry = data[ends[index] : ends[index + 1]]
            if entry:
                yield self._nodes[index], entry


class OpenDirectory:
    """One open(2) of a directory: its names at the moment when reading began at the start.

    Names that are removed before they were read are left out.
    """

    __slots__ = ("_listing", "directory", "sends_all")

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        # READDIRPLUS sends also the attributes that the kernel knows already.
        self.sends_all = True
        self._listing: Listing | None = None

    def from_start(self) -> Listing:
        """Return the listing of the present names and keep it for `rest`."""
        directory = self.directory
        listing: Listing | None = directory.listing
        if listing is None or listing.version != directory.version:
            listing = Listing(directory, () if directory.gone else directory.names())
            directory.listing = listing
        self._listing = listing
        return listing

    def rest(self) -> Listing:
        """Return the listing of those names of the start that still exist."""
        listing = self._listing
        if listing is None:
            return self.from_start()
        if listing.version != self.directory.version:
            listing = self._listing = Listing(self.directory, listing.names)
        return listing

"""What a directory holds, as READDIR gives it: packed once, until its names change."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

from fakesys.transport.fuse import replies
from fakesys.tree.node import Directory, Node


class Listing:
    """The dots and some names of a directory with their nodes, packed.

    The position of an entry is the number of those up to and including it. A name whose node
    was gone when it was packed keeps its position and has no entry.
    `told_at`: the kernel's corrections when it was last told all about these nodes.
    """

    __slots__ = ("_data", "_ends", "_nodes", "names", "told_at", "version")

    def __init__(self, directory: Directory, names: Iterable[str]) -> None:
        self.version = directory.version
        self.told_at = -1
        self.names = tuple(names)
        # None for the dots and for what is gone.
        self._nodes: list[Node | None] = [None, None]
        data = bytearray(replies.dirent(directory, 1, "."))
        ends = [0, len(data)]
        data += replies.dirent(directory.parent or directory, 2, "..")
        ends.append(len(data))
        known, lookup, add = directory.cached, directory.lookup, self._nodes.append
        for position, name in enumerate(self.names, start=3):
            # What the last step changed has left the cache: no need to ask the models.
            node = known.get(name) or lookup(name)
            if node is not None:
                data += replies.dirent(node, position, name)
            add(node)
            ends.append(len(data))
        self._data = bytes(data)
        self._ends = ends

    def piece(self, position: int, size: int) -> bytes:
        """The entries behind a position, as many as fit in `size` bytes."""
        ends = self._ends
        if position >= len(ends):
            return b""
        start = ends[position]
        last = bisect_right(ends, start + size) - 1
        return self._data[start : ends[last]]

    def entries(self, position: int) -> Iterator[tuple[Node | None, bytes]]:
        """Each entry behind a position with its node; None for the dots."""
        data, ends = self._data, self._ends
        for index in range(position, len(self._nodes)):
            entry = data[ends[index] : ends[index + 1]]
            if entry:
                yield self._nodes[index], entry


class OpenDirectory:
    """One open(2) of a directory: its names as they were when reading began at the start.

    Those that go before they were read are left out.
    """

    __slots__ = ("_listing", "directory", "tells_all")

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        # Is this reader given what the kernel may know already?
        self.tells_all = True
        self._listing: Listing | None = None

    def from_start(self) -> Listing:
        """The names as they are now."""
        directory = self.directory
        listing: Listing | None = directory.listing
        if listing is None or listing.version != directory.version:
            listing = Listing(directory, () if directory.gone else directory.names())
            directory.listing = listing
        self._listing = listing
        return listing

    def now(self) -> Listing:
        """Of the names as they were at the start, those that are still there."""
        listing = self._listing
        if listing is None:
            return self.from_start()
        if listing.version != self.directory.version:
            listing = self._listing = Listing(self.directory, listing.names)
        return listing

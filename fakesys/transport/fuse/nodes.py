"""The nodes that the kernel knows, by their FUSE node numbers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from errno import ESTALE

from fakesys.core.errors import KernelError
from fakesys.transport.fuse.protocol import ROOT_ID
from fakesys.transport.fuse.replies import APART
from fakesys.tree.kinds import Splice
from fakesys.tree.node import Directory, File, Node

_apart = itertools.count(APART)


class Belief:
    """What the kernel believes of the size of a node; see `splice.py`.

    `raised`: it is larger than any text. `readers`: the numbers of the open files that may be
    spliced from. `changing`: the open files by which a thread changes the size, with this thread.
    `cut`: the kernel may show the length of a text as size. `stores`: how often it was raised.
    """

    __slots__ = ("_before", "_thread", "_until", "changing", "cut", "raised", "readers", "stores")

    def __init__(self, *, raised: bool) -> None:
        self.raised = raised
        self.readers: set[int] = set()
        self.changing: dict[int, int] = {}
        self.cut = False
        self.stores = 0
        # Until when the kernel may use attributes that were sent to a thread, and to those before.
        self._until = self._before = float("-inf")
        self._thread = 0

    def sent(self, thread: int, until: float) -> None:
        """Note that a thread gets attributes, which the kernel has used by that time."""
        if thread != self._thread:
            self._before, self._thread = max(self._until, self._before), thread
        self._until = until

    def is_quiet(self, thread: int, now: float) -> bool:
        """Return whether the kernel has done what all other threads asked for."""
        others = self._before if thread == self._thread else max(self._until, self._before)
        return now > others and all(other == thread for other in self.changing.values())


class NodeTable(dict[int, Node]):
    """The nodes that LOOKUP or READDIRPLUS has returned, until the kernel sends FORGET.

    The number of a node is its inode number, which is never used twice; the root is ROOT_ID. A file
    whose pages are for one reader each gets another number at every look-up, and so a page cache
    of its own for every open(2). A number that is not in the table raises ESTALE.
    """

    def __init__(self, root: Directory) -> None:
        super().__init__({ROOT_ID: root})
        self._root = root
        self._lookups: dict[int, int] = {}
        # Grows with every step of which the kernel is told to forget something.
        self.corrections = 0
        self.beliefs: dict[int, Belief] = {}
        # The directories of which READDIRPLUS answers may be unused, with a number of the last one.
        self.listings: dict[int, int] = {}
        self._listing = 0

    def __missing__(self, nodeid: int) -> Node:
        raise KernelError(ESTALE, f"node {nodeid} was forgotten")

    def id_of(self, node: Node) -> int | None:
        """Return the number by which the kernel knows this node; None if it does not."""
        if node is self._root:
            return ROOT_ID
        return node.ino if node.ino in self else None

    def is_apart(self, node: Node) -> bool:
        """Return whether a node gets another number at every look-up."""
        return node.kind.splice is Splice.PAGES and isinstance(node, File)

    def remember(self, node: Node) -> int:
        """Count one more reference of the kernel to this node and return its number."""
        if node is self._root:
            return ROOT_ID
        nodeid = next(_apart) if self.is_apart(node) else node.ino
        self[nodeid] = node
        self._lookups[nodeid] = self._lookups.get(nodeid, 0) + 1
        return nodeid

    def forget(self, nodeid: int, count: int) -> None:
        """Drop `count` references of the kernel; numbers that are not in the table are ignored."""
        left = self._lookups.get(nodeid, 0) - count
        if left > 0:
            self._lookups[nodeid] = left
            return
        if nodeid != ROOT_ID:
            self._lookups.pop(nodeid, None)
            self.pop(nodeid, None)
            self.beliefs.pop(nodeid, None)
            self.listings.pop(nodeid, None)

    def listed(self, directory: Directory) -> None:
        """Note that names of a directory go out by READDIRPLUS."""
        nodeid = self.id_of(directory)
        if nodeid is not None:
            self._listing += 1
            self.listings[nodeid] = self._listing

    def forget_listings(self, listings: Mapping[int, int]) -> None:
        """Drop directories that were not listed again: the kernel has used the answers."""
        for nodeid, number in listings.items():
            if self.listings.get(nodeid) == number:
                del self.listings[nodeid]

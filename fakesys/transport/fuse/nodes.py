"""Which nodes the kernel remembers, by the number under which it knows them."""

from __future__ import annotations

from errno import ESTALE

from fakesys.core.errors import KernelError
from fakesys.transport.fuse.protocol import ROOT_ID
from fakesys.tree.node import Directory, Node


class NodeTable(dict[int, Node]):
    """The nodes that a LOOKUP or READDIRPLUS handed out, until the kernel forgets them.

    A node's number is its inode number, which is never used twice, except that of the root.
    Asking for another number raises ESTALE.
    """

    def __init__(self, root: Directory) -> None:
        super().__init__({ROOT_ID: root})
        self._root = root
        self._lookups: dict[int, int] = {}
        # Grows whenever the kernel is told that it remembers something wrongly.
        self.corrections = 0

    def __missing__(self, nodeid: int) -> Node:
        raise KernelError(ESTALE, f"node {nodeid} was forgotten")

    def id_of(self, node: Node) -> int | None:
        """The number under which the kernel knows this node; None if it does not."""
        if node is self._root:
            return ROOT_ID
        return node.ino if node.ino in self else None

    def remember(self, node: Node) -> int:
        """The kernel is about to hear of this node once more; its number."""
        if node is self._root:
            return ROOT_ID
        nodeid = node.ino
        self[nodeid] = node
        self._lookups[nodeid] = self._lookups.get(nodeid, 0) + 1
        return nodeid

    def forget(self, nodeid: int, count: int) -> None:
        """The kernel dropped so many references; unknown numbers are fine."""
        left = self._lookups.get(nodeid, 0) - count
        if left > 0:
            self._lookups[nodeid] = left
            return
        if nodeid != ROOT_ID:
            self._lookups.pop(nodeid, None)
            self.pop(nodeid, None)

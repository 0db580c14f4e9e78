"""The nodes that the kernel knows, by their FUSE node numbers."""

from __future__ import annotations

from errno import ESTALE

from fakesys.core.errors import KernelError
from fakesys.transport.fuse.protocol import ROOT_ID
from fakesys.tree.node import Directory, Node


class NodeTable(dict[int, Node]):
    """The nodes that LOOKUP or READDIRPLUS has returned, until the kernel sends FORGET.

    The number of a node is its inode number, which is never used twice; the root is ROOT_ID.
    A number that is not in the table raises ESTALE.
    """

    def __init__(self, root: Directory) -> None:
        super().__init__({ROOT_ID: root})
        self._root = root
        self._lookups: dict[int, int] = {}
        # Grows with every step of which the kernel is told to forget something.
        self.corrections = 0

    def __missing__(self, nodeid: int) -> Node:
        raise KernelError(ESTALE, f"node {nodeid} was forgotten")

    def id_of(self, node: Node) -> int | None:
        """Return the number by which the kernel knows this node; None if it does not."""
        if node is self._root:
            return ROOT_ID
        return node.ino if node.ino in self else None

    def remember(self, node: Node) -> int:
        """Count one more reference of the kernel to this node and return its number."""
        if node is self._root:
            return ROOT_ID
        nodeid = node.ino
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

"""The nodes that the kernel knows, by their FUSE node numbers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Mapping
from errno import ESTALE
from time import monotonic

from fakesys.core.errors import Blocked, KernelError, Waiters
from fakesys.transport.fuse.protocol import ROOT_ID
from fakesys.transport.fuse.replies import APART
from fakesys.tree.kinds import Splice
from fakesys.tree.node import Directory, File, Node

_apart = itertools.count(APART)
# A process that has opened a file for writing writes within so many seconds, if it does at once.
WRITES_AT_ONCE = 0.1


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
    of its own for every open(2). A file in which a write waits gets another number by `renew`: the
    kernel then has a second inode for it, whose lock is free. A number that is not in the table
    raises ESTALE.
    """

    def __init__(self, root: Directory) -> None:
        super().__init__({ROOT_ID: root})
        self._root = root
        self._lookups: dict[int, int] = {}
        # Inode number -> the further numbers of the node; the last one is for new look-ups.
        self._renewed: dict[int, list[int]] = {}
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

    def ids_of(self, node: Node) -> list[int]:
        """Return the numbers by which the kernel knows this node, none if it does not."""
        if node is self._root:
            return [ROOT_ID]
        numbers = {node.ino, *self._renewed.get(node.ino, ())}
        return [nodeid for nodeid in numbers if nodeid in self]

    def is_known(self, node: Node) -> bool:
        """Return whether the kernel knows this node by the number that a look-up would give."""
        # Asked for each name of a listing.
        number = self._number(node) if self._renewed else node.ino
        return number in self or node is self._root

    def renew(self, nodeid: int, used: Container[int]) -> Node | None:
        """Give the node of a number another one for look-ups from now on, which is not in `used`.

        Return the node; None if that number is not in the table, or look-ups gave another before.
        """
        node = self.get(nodeid)
        if node is None or node is self._root:
            return None
        before = self._number(node)
        if before != nodeid and before not in used:
            return None
        known = [number for number in self._renewed.get(node.ino, ()) if number in self]
        free = [number for number in (node.ino, *known) if number not in used and number != nodeid]
        new = free[0] if free else next(_apart)
        self._renewed[node.ino] = [*(number for number in known if number != new), new]
        return node if before == nodeid else None

    def _number(self, node: Node) -> int:
        renewed = self._renewed.get(node.ino) if self._renewed else None
        return renewed[-1] if renewed else node.ino

    def is_apart(self, node: Node) -> bool:
        """Return whether a node gets another number at every look-up."""
        return node.kind.splice is Splice.PAGES and isinstance(node, File)

    def remember(self, node: Node) -> int:
        """Count one more reference of the kernel to this node and return its number."""
        if node is self._root:
            return ROOT_ID
        nodeid = next(_apart) if self.is_apart(node) else self._number(node)
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
            node = self.pop(nodeid, None)
            if node is not None and node.gone and not self.ids_of(node):
                self._renewed.pop(node.ino, None)
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


class Writers:
    """The node numbers by which files are open for writing now.

    The kernel holds the lock of an inode while a write is not answered (fs/fuse/file.c:
    fuse_dio_lock, v6.18), and another writer of that inode could not even be killed: it takes the
    lock after its OPEN was answered (fs/namei.c:handle_truncate). So a file that is open for
    writing, and in which a write may wait, is opened again as another inode: OPEN answers ESTALE,
    upon which the kernel looks the name up again (fs/namei.c:do_filp_open) and finds the other
    number. It does so once. If a third process has opened that number in the meantime, the OPEN
    waits, where a signal ends it, until no write holds the lock.

    `is_locked`: whether a write in the file of this number is not answered. `run_later`: runs a
    callable after so many seconds in the thread of the session.
    """

    def __init__(
        self,
        nodes: NodeTable,
        is_locked: Callable[[int], bool],
        run_later: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self._nodes = nodes
        self._is_locked = is_locked
        self._run_later = run_later
        # By the number of the open file: the node number, and when it was opened.
        self.opened: dict[int, tuple[int, float]] = {}
        # How many are open, by node number.
        self._count: dict[int, int] = {}
        # Processes that were told to look again, which works once.
        self._sent_back: set[bytes] = set()
        # OPEN requests that wait until a write was answered or a file was closed.
        self.waiting = Waiters()

    def check(self, nodeid: int, caller: bytes) -> None:
        """Refuse to open, with ESTALE, what is open for writing by the same number.

        Raises Blocked for a process that has looked again and found a number that is not free.
        """
        if nodeid not in self._count:
            self._sent_back.discard(caller)
            return
        if caller not in self._sent_back:
            self._sent_back.add(caller)
            self.renew(nodeid)
            raise KernelError(ESTALE, "another inode of this file is free")
        if self._is_locked(nodeid):
            raise Blocked(self.waiting)
        young = self._youngest(nodeid) + WRITES_AT_ONCE - monotonic()
        if young > 0:
            self._run_later(young, self.waiting.wake)
            raise Blocked(self.waiting)
        self._sent_back.remove(caller)

    def _youngest(self, nodeid: int) -> float:
        return max(moment for opened, moment in self.opened.values() if opened == nodeid)

    def renew(self, nodeid: int) -> Node | None:
        """Let new look-ups of a file find a number by which it is not open for writing.

        Return the node if they found `nodeid` so far.
        """
        return self._nodes.renew(nodeid, self._count)

    def add(self, handle: int, nodeid: int) -> None:
        """Record that a file was opened for writing."""
        self.opened[handle] = nodeid, monotonic()
        self._count[nodeid] = self._count.get(nodeid, 0) + 1

    def remove(self, handle: int) -> None:
        """Forget one of `opened` that was closed."""
        nodeid, _ = self.opened.pop(handle)
        count = self._count.pop(nodeid)
        if count > 1:
            self._count[nodeid] = count - 1
        if self.waiting:
            self.waiting.wake()

"""Tell the kernel which names and attributes it must forget. Texts it never keeps.

This happens before the write that changed them is answered, so the next `ls` of any client is
exact. Names are forgotten in one of two ways. By epoch: one message, without any lock, after which
the kernel looks up every name again. By entry: one message per name, for which the kernel takes
the lock of the directory. A client that holds that lock may be waiting for an answer of this very
daemon, so these messages are sent by a thread of their own, and the answer follows them.

Under a new epoch the kernel drops all names that it knows, one by one, within the first look-up,
and others wait for it. So where it knows many names, a few are forgotten by entry.

The epoch alone does not cover names in an answer to READDIRPLUS that the kernel has not used yet:
it gives them the epoch of the moment when it uses them (fs/fuse/readdir.c:fuse_direntplus_link,
v6.18). It does so under the lock of the directory. So gone names of directories with such answers
are forgotten by entry, too.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from queue import SimpleQueue

from fakesys.core.errors import Waiters
from fakesys.transport.conversions import encode
from fakesys.transport.fuse import protocol
from fakesys.transport.fuse.nodes import NodeTable
from fakesys.tree.binder import Stale
from fakesys.tree.node import Directory, File, Node

# Known to the kernel, and to be forgotten: dropping a name takes it about ten microseconds.
MANY_NAMES, FEW_STALE = 3000, 1000


class Unsettled:
    """Counts the steps of which the notifier thread has not told all clients yet.

    `told` wakes what waits for the last of them.
    """

    __slots__ = ("steps", "told")

    def __init__(self) -> None:
        self.steps = 0
        self.told = Waiters()

    def begin(self) -> None:
        """Count one more step."""
        self.steps += 1

    def end(self) -> None:
        """Count one step less; after the last one wake what waits."""
        self.steps -= 1
        if not self.steps:
            self.told.wake()


class Invalidator:
    """Makes the messages for a step and sends them, at once or from the notifier thread.

    `by_epoch`: the epoch may be used; it is given up when the kernel first refuses it.
    """

    def __init__(self, device: int, nodes: NodeTable, *, by_epoch: bool) -> None:
        self._device = device
        self._nodes = nodes
        self.by_epoch = by_epoch
        self._thread = NotifierThread(device)
        # Of listed directories: those with messages of this step, and those of steps that are told.
        self._telling: dict[int, int] = {}
        self._told: deque[dict[int, int]] = deque()

    def tell(self, stale: Stale) -> list[bytes]:
        """Send the messages that take no lock, and return the others, which are for `later`."""
        self._nodes.corrections += 1
        while self._told:
            self._nodes.forget_listings(self._told.popleft())
        locking: list[bytes] = []
        if stale.gone or stale.new:
            count = len(stale.gone) + len(stale.new)
            locking.extend(self._entries(stale, listed_only=self._bump_epoch(count)))
        # Attributes alone take no lock.
        for nodeid in self._counted(stale):
            self.send(protocol.pack_inval_attributes(nodeid))
        return locking

    def look_up_again(self, node: Node) -> None:
        """Make the kernel look up the name of a node at its next use."""
        self._nodes.corrections += 1
        if node.parent is not None and not self._bump_epoch(1):
            self.later(list(self._entry(node.parent, node.name)), _nothing)

    def later(self, messages: list[bytes], then: Callable[[], None]) -> None:
        """Send from the notifier thread; `then` is called in that thread after the last message."""
        telling, self._telling = self._telling, {}

        def told() -> None:
            self._told.append(telling)
            then()

        self._thread.put(messages, told if telling else then)

    def send(self, message: bytes) -> bool:
        """Send now; return False when the kernel refuses, most often for a name that it forgot."""
        return send(self._device, message)

    def stop(self) -> None:
        """End the notifier thread after what is queued."""
        self._thread.stop()

    def _bump_epoch(self, stale: int) -> bool:
        """Let the kernel look up all names again; return False where `stale` go by entry."""
        if stale < FEW_STALE and len(self._nodes) > MANY_NAMES:
            return False
        if self.by_epoch and not self.send(protocol.pack_inc_epoch()):
            self.by_epoch = False
        return self.by_epoch

    def _entries(self, stale: Stale, *, listed_only: bool) -> Iterator[bytes]:
        """Yield messages by entry: for all names, or for those gone from listed directories."""
        if not listed_only:
            for directory, name in stale.new:
                yield from self._entry(directory, name)
        elif not self._nodes.listings:
            return
        for directory, name, node in stale.gone:
            # Deepest first: a name that the kernel still knows keeps the directories above it.
            for below in reversed(list(_tree_of(node))):
                if below.parent is not None and below is not node:
                    yield from self._entry(below.parent, below.name, listed_only=listed_only)
            yield from self._entry(directory, name, listed_only=listed_only)

    def _entry(
        self, directory: Directory, name: str, *, listed_only: bool = False
    ) -> Iterator[bytes]:
        parent = self._nodes.id_of(directory)
        if parent is None:
            return
        listing = self._nodes.listings.get(parent)
        if listing is not None:
            self._telling[parent] = listing
        if listing is not None or not listed_only:
            yield protocol.pack_inval_entry(parent, encode(name))

    def _counted(self, stale: Stale) -> Iterator[int]:
        """Yield the nodes whose link count is wrong."""
        gone = (below for _, _, node in stale.gone for below in _tree_of(node))
        for node in (*stale.changed, *gone):
            if isinstance(node, File) and node.kind.rest_after_gone:
                continue
            yield from self._nodes.ids_of(node)


class NotifierThread:
    """Writes messages that may have to wait for a lock; started with the first of them."""

    def __init__(self, device: int) -> None:
        self._device = device
        self._queue: SimpleQueue[tuple[list[bytes], Callable[[], None]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, messages: list[bytes], then: Callable[[], None]) -> None:
        """Queue messages, to be sent in order, and what to call after them."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)
            self._thread.start()
        self._queue.put((messages, then))

    def stop(self) -> None:
        """End the thread after what is queued, without waiting for it."""
        self._queue.put(None)

    def _run(self) -> None:
        while (step := self._queue.get()) is not None:
            messages, then = step
            for message in messages:
                send(self._device, message)
            then()


def _nothing() -> None:
    """Do nothing after the last message."""


def send(device: int, message: bytes) -> bool:
    """Write one message; return False for ENOENT, ENOTEMPTY and the like, which are harmless."""
    try:
        os.write(device, message)
    except OSError:
        return False
    return True


def _tree_of(node: Node) -> Iterator[Node]:
    yield node
    if isinstance(node, Directory):
        for below in node.cached.values():
            yield from _tree_of(below)

"""Telling the kernel what it remembers wrongly, before the write that caused it is answered.

Names are forgotten in one of two ways. By epoch: one message that takes no lock makes every
name be looked up again. By entry: one message per name, which takes the lock of its directory.
A client that holds that lock may be waiting for an answer of ours, so such messages go out from
a thread of their own and the answer follows them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

from fakesys.transport.fuse import protocol, replies
from fakesys.transport.fuse.nodes import NodeTable
from fakesys.tree.binder import Stale
from fakesys.tree.node import Directory, File, Node


class Invalidator:
    """Makes the messages for a step and sends them, at once or from the notifier thread.

    `by_epoch`: may the epoch be tried? It is given up at the first refusal.
    """

    def __init__(self, device: int, nodes: NodeTable, *, by_epoch: bool) -> None:
        self._device = device
        self._nodes = nodes
        self.by_epoch = by_epoch
        self._thread = NotifierThread(device)

    def tell(self, stale: Stale) -> list[bytes]:
        """Send what takes no lock; what is left for `later`."""
        self._nodes.corrections += 1
        locking = [
            protocol.pack_inval_inode(nodeid, contents=True) for nodeid in self._texts(stale)
        ]
        if stale.gone or stale.new:
            locking.extend(() if self._bump_epoch() else self._entries(stale))
        # Attributes alone take no lock either: these nodes have no cached pages to wait for.
        for nodeid in self._counted(stale):
            self.send(protocol.pack_inval_inode(nodeid, contents=False))
        return locking

    def later(self, messages: list[bytes], then: Callable[[], None]) -> None:
        """Send from the notifier thread; `then` runs in that thread after the last one."""
        self._thread.put(messages, then)

    def send(self, message: bytes) -> bool:
        """Send now. False for a refusal: most often the kernel knows no such name any more."""
        return send(self._device, message)

    def stop(self) -> None:
        """End the thread after what is queued."""
        self._thread.stop()

    def _bump_epoch(self) -> bool:
        if self.by_epoch and not self.send(protocol.pack_inc_epoch()):
            self.by_epoch = False
        return self.by_epoch

    def _entries(self, stale: Stale) -> Iterator[bytes]:
        for directory, name in stale.new:
            yield from self._entry(directory, name)
        for directory, name, node in stale.gone:
            # Deepest first: a name in use would keep the directories above it.
            for below in reversed(list(_tree_of(node))):
                if below.parent is not None and below is not node:
                    yield from self._entry(below.parent, below.name)
            yield from self._entry(directory, name)

    def _entry(self, directory: Directory, name: str) -> Iterator[bytes]:
        parent = self._nodes.id_of(directory)
        if parent is not None:
            yield protocol.pack_inval_entry(parent, replies.encode(name))

    def _texts(self, stale: Stale) -> Iterator[int]:
        """Files whose cached text is wrong."""
        gone = (below for _, _, node in stale.gone for below in _tree_of(node))
        for node in (*stale.touched, *gone):
            if not (isinstance(node, File) and node.row.announced and node.kind.cacheable):
                continue
            nodeid = self._nodes.id_of(node)
            if nodeid is not None:
                yield nodeid

    def _counted(self, stale: Stale) -> Iterator[int]:
        """Nodes whose link count is wrong and that have no cached text."""
        gone = (below for _, _, node in stale.gone for below in _tree_of(node))
        for node in (*stale.changed, *gone):
            if isinstance(node, File) and node.kind.cacheable:
                continue
            nodeid = self._nodes.id_of(node)
            if nodeid is not None:
                yield nodeid


class NotifierThread:
    """One thread that writes messages which may have to wait for a lock; started at need."""

    def __init__(self, device: int) -> None:
        self._device = device
        self._queue: SimpleQueue[tuple[list[bytes], Callable[[], None]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, messages: list[bytes], then: Callable[[], None]) -> None:
        """Send these in order, then call."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)
            self._thread.start()
        self._queue.put((messages, then))

    def stop(self) -> None:
        """End after what is queued; does not wait."""
        self._queue.put(None)

    def _run(self) -> None:
        while (step := self._queue.get()) is not None:
            messages, then = step
            for message in messages:
                send(self._device, message)
            then()


def send(device: int, message: bytes) -> bool:
    """Write one message. False for ENOENT, ENOTEMPTY and the like, which are harmless."""
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

"""One open file: text is made at offset 0 and kept; a write is one buffer, cut as its kind says."""

from __future__ import annotations

import select
from errno import EINVAL

from fakesys.core.errors import KernelError
from fakesys.core.text import c_string
from fakesys.core.waiters import Waiters
from fakesys.tree.node import File

READY = select.POLLIN | select.POLLOUT | select.POLLRDNORM | select.POLLWRNORM
NOTIFIED = READY | select.POLLPRI | select.POLLERR


class OpenFile:
    """The state of one open(2) of an attribute: its text and how far it was read."""

    __slots__ = ("_buffer", "_cursor", "_event", "_let_go", "node")

    def __init__(self, node: File) -> None:
        self.node = node
        self._buffer: bytes | None = None
        self._cursor = 0
        self._event = 0
        hold = node.row.hold
        self._let_go = None if hold is None else hold(node.model)

    def read(self, offset: int, size: int, *, nonblock: bool = False) -> bytes:
        """A slice of the text. Raises the kind's errno once the file is gone."""
        node, kind = self.node, self.node.kind_
        if not kind.seekable:
            offset = self._cursor
        if offset and kind.only_at_zero:
            return b""
        fresh = (
            self._buffer is None
            or (offset == 0 and kind.reread_at_zero)
            or not (kind.keeps_text or node.gone)
        )
        if node.gone and (fresh or not kind.rest_after_gone):
            raise KernelError(kind.gone, "the object behind this file is gone")
        if fresh:
            self._event = node.event
            self._buffer = node.show()
        assert self._buffer is not None
        if kind.whole_reads and size <= len(self._buffer):
            raise KernelError(EINVAL, f"{size} bytes have no room for the whole text")
        data = self._buffer[offset : offset + size]
        if not kind.seekable:
            self._cursor += len(data)
        return data

    def write(self, data: bytes, offset: int = 0, *, nonblock: bool = False) -> int:
        """One store(); the number of bytes that the caller is told."""
        node, kind = self.node, self.node.kind_
        if node.gone:
            raise KernelError(kind.gone, "the object behind this file is gone")
        if not data:
            return 0
        limit = kind.store_limit
        seen = data if limit is None else data[:limit]
        taken = node.store(seen.decode("latin-1") if kind.sees_nul else c_string(seen))
        if taken is not None:
            return taken
        return len(seen) if kind.short_writes else len(data)

    def poll(self) -> int:
        """The events of poll(2) that are true now. Like fs/kernfs/file.c:kernfs_generic_poll."""
        node = self.node
        if node.kind_.notifies and (node.gone or self._event != node.event):
            return NOTIFIED
        return READY

    def waiters(self) -> Waiters | None:
        """What wakes a poller of this file."""
        return self.node.pollers if self.node.kind_.notifies else None

    def release(self) -> None:
        """Let go of what the open file kept alive; once only."""
        let_go, self._let_go = self._let_go, None
        if let_go is not None:
            let_go()

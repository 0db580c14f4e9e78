"""One open file: its text is made at offset 0 and kept; a write is one buffer, cut by its kind."""

from __future__ import annotations

import select
from errno import EINVAL

from fakesys.core.copying.copies import Text
from fakesys.core.errors import KernelError, Waiters
from fakesys.core.text import c_string
from fakesys.tree.kinds import Kind
from fakesys.tree.node import File

READY = select.POLLIN | select.POLLOUT | select.POLLRDNORM | select.POLLWRNORM
NOTIFIED = READY | select.POLLPRI | select.POLLERR


class OpenFile:
    """The state of one open(2) of an attribute: its text and where the last read of it ended.

    Precondition of `read` and `write`: `FileSystem` has refused those of files that are gone, but
    for reads of the rest where the kind has `rest_after_gone`.
    """

    __slots__ = ("_buffer", "_copy", "_cursor", "_drop_hold", "_event", "node")

    def __init__(self, node: File) -> None:
        self.node = node
        self._buffer: bytes | None = None
        self._cursor = 0
        self._event = 0
        # The text that is being made in a copy of the process.
        self._copy: Text | None = None
        hold = node.row.hold
        self._drop_hold = None if hold is None else hold(node.model)

    def read(self, offset: int, size: int, *, nonblock: bool = False) -> bytes:
        """Return a slice of the text, which is made if it has to be; Blocked: in a copy.

        Raises the kind's errno when a file that is gone has nothing left, and EINVAL when the kind
        reads whole texts only and `size` has no room for it and a NUL; the kind's errno for a part.
        """
        kind = self.node.kind_
        if not kind.seekable:
            offset = self._cursor
        if offset and kind.only_at_zero:
            return b""
        if kind.part is not None and (offset or size < kind.size):
            return _part(kind, offset)
        text = self._buffer
        if text is None or self._is_stale(offset):
            text = self._make_text()
        elif self.node.gone and offset >= len(text):
            raise self._gone()
        if kind.whole_reads and size <= len(text):
            raise KernelError(EINVAL, f"{size} bytes have no room for the whole text")
        data = text[offset : offset + size]
        self._cursor = offset + len(data)
        return data

    def _is_stale(self, offset: int) -> bool:
        """Return whether a read needs a new text.

        A seq_file goes on with its text only where the last read ended, and makes it again for any
        other position. Like fs/seq_file.c:seq_read_iter, traverse (v6.1).
        """
        kind = self.node.kind_
        if not kind.reread_at_zero:
            return False
        return not kind.keeps_text or offset == 0 or offset != self._cursor

    def _gone(self) -> KernelError:
        self._buffer = None
        return KernelError(self.node.kind_.gone, "the object behind this file is gone")

    def _make_text(self) -> bytes:
        node = self.node
        if node.gone:
            raise self._gone()
        event = node.event
        text = self._copied() if node.row.copied else node.show()
        self._event, self._buffer = event, text
        return text

    def _copied(self) -> bytes:
        """Return the text that a copy of the process makes. Raises Blocked until it is there."""
        text = self._copy or Text(self.node.show)
        self._copy = text if text.is_waited_for else None
        return text.text()

    def write(self, data: bytes, offset: int = 0, *, nonblock: bool = False) -> int:
        """Call store() once; return the number of bytes that write(2) returns."""
        node, kind = self.node, self.node.kind_
        if not data:
            return 0
        limit = kind.store_limit
        seen = data if limit is None else data[:limit]
        taken = node.store(seen.decode("latin-1") if kind.sees_nul else c_string(seen))
        if taken is not None:
            return taken
        return len(seen) if kind.short_writes else len(data)

    def poll(self) -> int:
        """Return the events of poll(2) that hold now. Like fs/kernfs/file.c:kernfs_generic_poll."""
        node = self.node
        if node.kind_.notifies and (node.gone or self._event != node.event):
            return NOTIFIED
        return READY

    def waiters(self) -> Waiters | None:
        """Return what wakes a poller of this file, None when nothing does."""
        return self.node.pollers if self.node.kind_.notifies else None

    def release(self) -> None:
        """Drop what the open file keeps alive; a second call does nothing."""
        if self._copy is not None:
            self._copy.close()
        drop_hold = self._drop_hold
        if drop_hold is not None:
            self._drop_hold = None
            drop_hold()


def _part(kind: Kind, offset: int) -> bytes:
    """Refuse to read a part. Like fs/sysfs/file.c:sysfs_kf_bin_read (v6.1)."""
    if offset >= kind.size:
        return b""
    raise KernelError(kind.part or EINVAL, f"only whole reads of {kind.size} bytes")

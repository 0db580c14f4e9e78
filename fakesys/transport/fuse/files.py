"""Answer the requests about open files and open directories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from errno import EINVAL, EISDIR, ENOTTY, ENXIO, EOPNOTSUPP
from os import O_ACCMODE, O_APPEND, O_NOATIME, O_NONBLOCK, O_RDONLY, O_TRUNC
from select import POLLERR, POLLHUP

from fakesys.core.errors import Blocked, KernelError
from fakesys.transport.fuse import protocol, replies
from fakesys.transport.fuse.handlers import Handler
from fakesys.transport.fuse.invalidation import Unsettled
from fakesys.transport.fuse.listing import Listing, OpenDirectory
from fakesys.transport.fuse.nodes import NodeTable, Writers
from fakesys.transport.fuse.protocol import Message, Op, OpenFlag
from fakesys.transport.fuse.replies import Replies
from fakesys.transport.fuse.splice import Splicing
from fakesys.tree.attr import Handle
from fakesys.tree.filesystem import FileSystem
from fakesys.tree.kinds import Splice
from fakesys.tree.node import File
from fakesys.tree.openfile import OpenFile

# Looked up once: these run for every request.
_CALLER = protocol.CALLER
_unpack_open = protocol.OPEN_IN.unpack_from
_unpack_read = protocol.READ_IN.unpack_from
_unpack_write = protocol.WRITE_IN.unpack_from
_unpack_number = protocol.FH.unpack_from
_pack_open = protocol.OPEN_OUT.pack
_pack_written = protocol.WRITE_OUT.pack
_WRITTEN_DATA = protocol.WRITE_IN.size
_BY_READ = protocol.READ_LOCKOWNER
# By whether splice(2) gives a text, and whether the file is seekable. Without KEEP_CACHE each
# open(2) drops the pages, and waits for clients that hold the lock of one, who may wait long.
_TEXT = Splice.TEXT
_OPEN_FLAGS = tuple(
    int(OpenFlag.DIRECT_IO | OpenFlag.PARALLEL_DIRECT_WRITES | kept | seekable)
    for kept in (OpenFlag.KEEP_CACHE, OpenFlag(0))
    for seekable in (OpenFlag.NONSEEKABLE, OpenFlag(0))
)
SEEK_HOLE = 4
_DIRECTORY_OPEN = 0


class Files:
    """One handler per request, and the open files by the number that the kernel uses.

    `wake_poller` takes the kernel's handle of a polled file that has become ready. While clients
    are still being told of a change (`unsettled`), streams wait: their text may name files that
    these clients would not find yet.
    """

    def __init__(
        self,
        fs: FileSystem,
        nodes: NodeTable,
        pack: Replies,
        wake_poller: Callable[[int], None],
        unsettled: Unsettled,
        splicing: Splicing,
        writers: Writers,
    ) -> None:
        self._fs = fs
        self._nodes = nodes
        self._pack = pack
        self._wake_poller = wake_poller
        self._unsettled = unsettled
        self._splicing = splicing
        self._beliefs = nodes.beliefs
        self.writers = writers
        self._last_number = 0
        self._open_files: dict[int, tuple[File, Handle]] = {}
        self._open_directories: dict[int, OpenDirectory] = {}
        # The kernel's handle of each open file that a client polls.
        self._polled: dict[int, int] = {}
        # The callers of these hold no lock of a directory while they wait for the answer.
        self.lockless: frozenset[Handler] = frozenset(
            (self._open, self._read, self.write, self._release)
        )

    def handlers(self) -> Mapping[int, Handler]:
        """Return the handlers, which may get a request with further bytes behind its end."""
        return {
            Op.OPEN: self._open,
            Op.READ: self._read,
            Op.WRITE: self.write,
            Op.RELEASE: self._release,
            Op.POLL: self._poll,
            Op.LSEEK: self._lseek,
            Op.FSYNC: self._fsync,
            Op.OPENDIR: self._opendir,
            Op.READDIR: self._readdir,
            Op.READDIRPLUS: self._readdirplus,
            Op.RELEASEDIR: self._releasedir,
            Op.FSYNCDIR: self._fsyncdir,
            Op.IOCTL: self._ioctl,
            Op.FALLOCATE: self._fallocate,
            Op.COPY_FILE_RANGE: self._fallocate,
        }

    def __len__(self) -> int:
        return len(self._open_files) + len(self._open_directories)

    def close_all(self) -> None:
        """Release every handle: the mount is gone."""
        for _, handle in self._open_files.values():
            handle.release()
        self._open_files.clear()
        self._open_directories.clear()

    def _open(self, nodeid: int, message: Message) -> bytes:
        (flags,) = _unpack_open(message)
        node = self._nodes[nodeid]
        if not isinstance(node, File):
            raise KernelError(EISDIR, f"{node.path} is not a file")
        writes = flags & O_ACCMODE != O_RDONLY
        if writes and (node.row.waits or node.kind_.waits or self._fs.gate is not None):
            self.writers.check(nodeid, bytes(message[_CALLER]))
        handle = self._fs.open(node, flags)
        number = self._last_number = self._last_number + 1
        self._open_files[number] = node, handle
        if writes:
            self.writers.add(number, nodeid)
        kind = node.kind_
        text = kind.splice is _TEXT
        if not text or flags & O_TRUNC or nodeid in self._beliefs:
            self._splicing.opened(nodeid, number, node, flags, message)
        return _pack_open(number, _OPEN_FLAGS[text * 2 + kind.seekable], 0)

    def _read(self, nodeid: int, message: Message) -> bytes:
        number, offset, size, read_flags, flags = _unpack_read(message)
        node, handle = self._open_files[number]
        if self._unsettled.steps and not isinstance(handle, OpenFile):
            raise Blocked(self._unsettled.told)
        if not read_flags & _BY_READ:
            return self._splicing.read(nodeid, node, handle, message)
        # O_NONBLOCK as it is now: fcntl(2) after open shows in the request only.
        return self._fs.read(node, handle, offset, size, nonblock=flags & O_NONBLOCK != 0)

    def write(self, nodeid: int, message: Message) -> bytes:
        """Serve WRITE; its caller holds the lock of the file's inode until it is answered."""
        number, offset, size, _, flags = _unpack_write(message)
        node, handle = self._open_files[number]
        if nodeid in self._beliefs:
            self._splicing.written(nodeid, number, node, message)
        # With O_APPEND the kernel sends the size that it has cached, which has no meaning here.
        if flags & O_APPEND:
            offset = 0
        data = bytes(message[_WRITTEN_DATA : _WRITTEN_DATA + size])
        nonblock = flags & O_NONBLOCK != 0
        taken = self._fs.write(node, handle, data, offset, nonblock=nonblock)
        return _pack_written(taken, 0)

    def _release(self, nodeid: int, message: Message) -> bytes:
        (number,) = _unpack_number(message)
        node, handle = self._open_files.pop(number)
        if number in self.writers.opened:
            self.writers.remove(number)
        if nodeid in self._beliefs:
            self._splicing.closed(nodeid, node, number)
        if self._polled:
            self._stop_polling(number, handle)
        handle.release()
        return b""

    def _fsync(self, _nodeid: int, message: Message) -> bytes:
        node, _ = self._open_files[protocol.FH.unpack_from(message)[0]]
        return _no_data(node.kind.fsync, "this file has no fsync")

    def _poll(self, _nodeid: int, message: Message) -> bytes:
        number, kernel_handle, flags, _ = protocol.POLL_IN.unpack_from(message)
        node, handle = self._open_files[number]
        waiters = handle.waiters()
        if flags & protocol.POLL_SCHEDULE_NOTIFY and waiters is not None:
            self._polled[number] = kernel_handle
            waiters.add(("poll", number), lambda: self._wake_poller(kernel_handle))
        if node.gone and not isinstance(handle, OpenFile):
            return protocol.POLL_OUT.pack(POLLERR | POLLHUP, 0)
        return protocol.POLL_OUT.pack(handle.poll(), 0)

    def wake_pollers(self) -> None:
        """Make every client that polls ask again."""
        for kernel_handle in self._polled.values():
            self._wake_poller(kernel_handle)

    def _stop_polling(self, number: int, handle: Handle) -> None:
        waiters = handle.waiters()
        if self._polled.pop(number, None) is not None and waiters is not None:
            waiters.discard(("poll", number))

    def _lseek(self, _nodeid: int, message: Message) -> bytes:
        number, offset, whence, _ = protocol.LSEEK_IN.unpack_from(message)
        node, _ = self._open_files[number]
        if not node.kind.has_end:
            raise KernelError(EINVAL, "this file knows no holes")
        if offset >= node.size:
            raise KernelError(ENXIO, f"{offset} is behind the end")
        return protocol.LSEEK_OUT.pack(node.size if whence == SEEK_HOLE else offset)

    def _ioctl(self, _nodeid: int, _message: Message) -> bytes:
        raise KernelError(ENOTTY, "no ioctl here")

    def _fallocate(self, _nodeid: int, _message: Message) -> bytes:
        raise KernelError(EOPNOTSUPP, "these files have no blocks")

    def _opendir(self, nodeid: int, _message: Message) -> bytes:
        node = self._fs.opendir(self._nodes[nodeid])
        number = self._last_number = self._last_number + 1
        self._open_directories[number] = OpenDirectory(node)
        return protocol.OPEN_OUT.pack(number, _DIRECTORY_OPEN, 0)

    def _readdir(self, _nodeid: int, message: Message) -> bytes:
        number, offset, size, _, flags = protocol.READ_IN.unpack_from(message)
        return self._listing(self._open_directories[number], offset, flags).piece(offset, size)

    def _readdirplus(self, _nodeid: int, message: Message) -> bytes:
        number, offset, size, _, flags = protocol.READ_IN.unpack_from(message)
        opened = self._open_directories[number]
        listing = self._listing(opened, offset, flags)
        nodes = self._nodes
        if offset == 0:
            # Attributes that the kernel knows and was not told to forget are not sent again.
            opened.sends_all = listing.sent_at != nodes.corrections
            listing.sent_at = nodes.corrections
        sends_all = opened.sends_all
        answer = bytearray()
        named = False
        room = size - protocol.ENTRY_OUT.size
        for node, entry in listing.entries(offset):
            if len(answer) + len(entry) > room:
                break
            if node is None or (not sends_all and nodes.is_known(node)) or nodes.is_apart(node):
                answer += replies.EMPTY_ENTRY
            else:
                named = True
                self._splicing.attributes(node.ino, node, message)
                answer += self._pack.entry(nodes.remember(node), node)
            answer += entry
        if named:
            nodes.listed(opened.directory)
        return bytes(answer)

    def _listing(self, opened: OpenDirectory, offset: int, flags: int) -> Listing:
        if offset:
            return opened.rest()
        if not flags & O_NOATIME:
            opened.directory.listed()
        return opened.from_start()

    def _releasedir(self, _nodeid: int, message: Message) -> bytes:
        del self._open_directories[protocol.FH.unpack_from(message)[0]]
        return b""

    def _fsyncdir(self, nodeid: int, _message: Message) -> bytes:
        return _no_data(self._nodes[nodeid].kind.directory_fsync, "this directory has no fsync")


def _no_data(errno: int, why: str) -> bytes:
    if errno:
        raise KernelError(errno, why)
    return b""

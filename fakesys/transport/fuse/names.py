"""Answer the requests about names: look-up, attributes, links, extended attributes.

Here are also the requests that sysfs refuses, each with the errno of kernfs.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Mapping
from errno import EINVAL, ENODATA, ENOENT, ENOSYS, EOPNOTSUPP, ERANGE

from fakesys.core.errors import KernelError
from fakesys.core.scheduling.resched import cond_resched
from fakesys.transport.conversions import BLOCK_SIZE, decode, encode
from fakesys.transport.fuse import protocol, replies
from fakesys.transport.fuse.handlers import Handler, SilentHandler
from fakesys.transport.fuse.nodes import NodeTable
from fakesys.transport.fuse.protocol import Message, Op, Valid
from fakesys.transport.fuse.replies import Replies
from fakesys.transport.fuse.splice import Splicing
from fakesys.transport.xattrs import ExtendedAttributes
from fakesys.tree.filesystem import NAME_MAX, FileSystem
from fakesys.tree.node import File, Node, Symlink

HEADER_SIZE = protocol.IN_HEADER.size
XATTR_NAME = protocol.XATTR_IN.size
SECURITY_NAME = XATTR_NAME + len("security.")
_STATFS = protocol.STATFS_OUT.pack(0, 0, 0, 0, 0, BLOCK_SIZE, NAME_MAX, BLOCK_SIZE, 0)


# More are forgotten in slices.
FEW_FORGOTTEN = 4096
# Does something in slices.
Later = Callable[[Callable[[], None]], object]


class Names:
    """One handler per request, and the extended attributes of the mount."""

    def __init__(
        self, fs: FileSystem, nodes: NodeTable, pack: Replies, splicing: Splicing, later: Later
    ) -> None:
        self._later = later
        self._fs = fs
        self._nodes = nodes
        self._pack = pack
        self._splicing = splicing
        self._xattrs = ExtendedAttributes()

    def handlers(self) -> Mapping[int, Handler]:
        """Return the handlers, which need a request cut to its length."""
        return {
            Op.LOOKUP: self._lookup,
            Op.GETATTR: self._getattr,
            Op.SETATTR: self._setattr,
            Op.READLINK: self._readlink,
            Op.SYMLINK: self._symlink,
            Op.MKNOD: self._mknod,
            Op.MKDIR: self._mkdir,
            Op.UNLINK: self._unlink,
            Op.RMDIR: self._rmdir,
            Op.RENAME: self._rename,
            Op.RENAME2: self._rename2,
            Op.LINK: self._link,
            Op.CREATE: self._create,
            Op.TMPFILE: self._tmpfile,
            Op.STATFS: self._statfs,
            Op.GETXATTR: self._getxattr,
            Op.SETXATTR: self._setxattr,
            Op.LISTXATTR: self._listxattr,
            Op.REMOVEXATTR: self._removexattr,
        }

    def silent_handlers(self) -> Mapping[int, SilentHandler]:
        """Return the handlers of requests that have no answer."""
        return {Op.FORGET: self._forget, Op.BATCH_FORGET: self._batch_forget}

    def refusal_of_label(self, nodeid: int, message: bytes) -> int:
        """Return the errno for a GETXATTR of the security name space; 0: ask the handler.

        The kernel and `ls` send many of these, nearly always for a value that was never set.
        """
        if not message.startswith(b"security.", XATTR_NAME):
            return 0
        if message.startswith(b"selinux\0", SECURITY_NAME):
            # `ls -l` asks for it at each name. After ENOSYS the kernel sends no GETXATTR again and
            # says EOPNOTSUPP itself: a thousand requests less, for xattrs that no program reads.
            return ENOSYS
        if self._xattrs:
            return 0
        node = self._nodes.get(nodeid)
        if node is None:
            return 0
        # The kernel asks for security.capability at each O_TRUNC.
        return ENODATA if node.kind.xattrs else EOPNOTSUPP

    def _entry(self, node: Node) -> bytes:
        return self._pack.entry(self._nodes.remember(node), node)

    def _lookup(self, nodeid: int, message: Message) -> bytes:
        directory = self._nodes[nodeid]
        try:
            node = self._fs.lookup(directory, decode(bytes(message[HEADER_SIZE:-1])))
        except KernelError as error:
            if error.errno != ENOENT:
                raise
            return replies.NO_ENTRY_REPLY
        self._splicing.attributes(node.ino, node, message)
        return self._entry(node)

    def _forget(self, nodeid: int, message: Message) -> None:
        (count,) = protocol.FORGET_IN.unpack_from(message)
        self._nodes.forget(nodeid, count)

    def _batch_forget(self, _nodeid: int, message: Message) -> None:
        (total, _) = protocol.BATCH_FORGET_IN.unpack_from(message)
        start = protocol.BATCH_FORGET_IN.size
        pairs = message[start : start + total * protocol.FORGET_ONE.size]
        if total > FEW_FORGOTTEN:
            self._later(lambda: self._forget_all(pairs))
        else:
            self._forget_all(pairs)

    def _forget_all(self, pairs: Message) -> None:
        for nodeid, count in protocol.FORGET_ONE.iter_unpack(pairs):
            cond_resched()
            self._nodes.forget(nodeid, count)

    def _getattr(self, nodeid: int, message: Message) -> bytes:
        node = self._nodes[nodeid]
        # The kernel names an open file for lseek(SEEK_END), not for fstat(2).
        seeks = protocol.GETATTR_IN.unpack_from(message)[0] & 1 != 0
        if seeks and not node.kind.has_end:
            raise KernelError(EINVAL, "this file has no end to seek from")
        self._splicing.attributes(nodeid, node, message, seeks=seeks)
        return self._pack.attr(node)

    def _setattr(self, nodeid: int, message: Message) -> bytes:
        fields = protocol.SETATTR_IN.unpack_from(message)
        valid, size, mode, uid, gid = fields[0], fields[3], fields[11], fields[13], fields[14]
        node = self._nodes[nodeid]
        if valid & Valid.SIZE and isinstance(node, File):
            if valid & Valid.FH:
                node.truncate_open(size)
            else:
                node.truncate(size)
        if valid & Valid.MODE:
            self._fs.chmod(node, stat.S_IMODE(mode))
        if valid & (Valid.UID | Valid.GID):
            self._fs.chown(
                node, uid if valid & Valid.UID else None, gid if valid & Valid.GID else None
            )
        if not valid & Valid.SIZE:
            atime = _new_time(valid, Valid.ATIME, Valid.ATIME_NOW, fields[5], fields[8])
            mtime = _new_time(valid, Valid.MTIME, Valid.MTIME_NOW, fields[6], fields[9])
            # Also without times: chown(2) of -1 and -1 still updates ctime.
            node.set_times(atime, mtime)
        self._splicing.attributes(nodeid, node, message, seeks=True)
        return self._pack.attr(node)

    def _readlink(self, nodeid: int, _message: Message) -> bytes:
        node = self._nodes[nodeid]
        if not isinstance(node, Symlink) or node.gone:
            raise KernelError(ENOENT, f"{node.path} is no link")
        return encode(node.target)

    def _symlink(self, nodeid: int, message: Message) -> bytes:
        raise self._fs.make_other(self._nodes[nodeid], _first_name(message, HEADER_SIZE))

    def _mknod(self, nodeid: int, message: Message) -> bytes:
        mode = protocol.MKNOD_IN.unpack_from(message)[0]
        name = _first_name(message, protocol.MKNOD_IN.size)
        if stat.S_ISREG(mode):
            raise self._fs.create(self._nodes[nodeid], name)
        raise self._fs.make_other(self._nodes[nodeid], name)

    def _mkdir(self, nodeid: int, message: Message) -> bytes:
        directory = self._nodes[nodeid]
        name = _first_name(message, protocol.MKDIR_IN.size)
        self._fs.mkdir(directory, name)
        return self._entry(self._fs.lookup(directory, name))

    def _unlink(self, nodeid: int, message: Message) -> bytes:
        raise self._fs.unlink(self._nodes[nodeid], _first_name(message, HEADER_SIZE))

    def _rmdir(self, nodeid: int, message: Message) -> bytes:
        self._fs.rmdir(self._nodes[nodeid], _first_name(message, HEADER_SIZE))
        return b""

    def _rename(self, nodeid: int, message: Message) -> bytes:
        raise self._fs.rename(self._nodes[nodeid], _first_name(message, HEADER_SIZE + 8))

    def _rename2(self, nodeid: int, message: Message) -> bytes:
        name = _first_name(message, HEADER_SIZE + 16)
        raise self._fs.rename(self._nodes[nodeid], name, with_flags=True)

    def _link(self, nodeid: int, message: Message) -> bytes:
        raise self._fs.make_other(self._nodes[nodeid], _first_name(message, HEADER_SIZE + 8))

    def _create(self, nodeid: int, message: Message) -> bytes:
        raise self._fs.create(self._nodes[nodeid], _first_name(message, protocol.CREATE_IN.size))

    def _tmpfile(self, _nodeid: int, _message: Message) -> bytes:
        raise KernelError(EOPNOTSUPP, "no file without a name")

    def _statfs(self, _nodeid: int, _message: Message) -> bytes:
        return _STATFS

    def _getxattr(self, nodeid: int, message: Message) -> bytes:
        size, _ = protocol.XATTR_IN.unpack_from(message)
        name = protocol.names_in(message, protocol.XATTR_IN.size)[0]
        return _sized(self._xattrs.get(self._nodes[nodeid], decode(name)), size)

    def _setxattr(self, nodeid: int, message: Message) -> bytes:
        size, flags = protocol.SETXATTR_IN.unpack_from(message)
        name, _, rest = bytes(message[protocol.SETXATTR_IN.size :]).partition(b"\0")
        self._xattrs.set(self._nodes[nodeid], decode(name), rest[:size], flags)
        return b""

    def _listxattr(self, nodeid: int, message: Message) -> bytes:
        size, _ = protocol.XATTR_IN.unpack_from(message)
        uid, _, _ = protocol.CALLER_IN.unpack(message[protocol.CALLER])
        names = self._xattrs.names(self._nodes[nodeid], uid)
        return _sized(b"".join(encode(name) + b"\0" for name in names), size)

    def _removexattr(self, nodeid: int, message: Message) -> bytes:
        name = protocol.names_in(message, HEADER_SIZE)[0]
        self._xattrs.remove(self._nodes[nodeid], decode(name))
        return b""


def _first_name(message: Message, offset: int) -> str:
    return decode(protocol.names_in(message, offset)[0])


def _new_time(valid: int, given: int, now: int, seconds: int, nanoseconds: int) -> int | None:
    if not valid & given:
        return None
    return time.time_ns() if valid & now else seconds * replies.NS + nanoseconds


def _sized(value: bytes, size: int) -> bytes:
    """Return the value, or its length when the caller asks with size 0. Raises ERANGE."""
    if size == 0:
        return protocol.XATTR_OUT.pack(len(value), 0)
    if len(value) > size:
        raise KernelError(ERANGE, f"{len(value)} bytes do not fit into {size}")
    return value

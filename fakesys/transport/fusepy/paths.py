"""System calls by path, as libfuse passes them on, which knows no inode numbers.

Runs on the thread of the models and does not know the library.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Mapping
from errno import EINVAL, EISDIR

from fakesys.core.errors import KernelError
from fakesys.transport.conversions import BLOCK_SIZE
from fakesys.transport.xattrs import ExtendedAttributes
from fakesys.tree.filesystem import NAME_MAX, FileSystem
from fakesys.tree.node import File, Node, Symlink

Status = Mapping[str, int]
# utimensat(2): these instead of a number of nanoseconds mean "now" and "unchanged".
UTIME_NOW = (1 << 30) - 1
UTIME_OMIT = (1 << 30) - 2
UNCHANGED = -1


class PathCalls:
    """One method per system call on a path; each raises KernelError when it is refused.

    `owner` is the user and group who mounted: they are shown as the owners of what root owns.
    """

    def __init__(self, fs: FileSystem, owner: tuple[int, int] = (0, 0)) -> None:
        self._fs = fs
        self._owner = owner
        self._xattrs = ExtendedAttributes()

    def status(self, path: str) -> Status:
        """Return what stat(2) says of a path, without following a link."""
        return status_of(self._node(path), self._owner)

    def readlink(self, path: str) -> str:
        """Return the text of a link. Raises EINVAL for another file."""
        node = self._node(path)
        if not isinstance(node, Symlink):
            raise KernelError(EINVAL, f"{path} is no link")
        return node.target

    def statfs(self) -> Status:
        """Return what statvfs(2) says: no blocks, no files, names of at most 255 bytes."""
        return {"f_bsize": BLOCK_SIZE, "f_frsize": BLOCK_SIZE, "f_namemax": NAME_MAX}

    def chmod(self, path: str, mode: int) -> None:
        """Set the permission bits."""
        self._fs.chmod(self._node(path), stat.S_IMODE(mode))

    def chown(self, path: str, uid: int, gid: int) -> None:
        """Set user and group; -1 leaves one as it is."""
        node = self._node(path)
        self._fs.chown(node, None if uid == UNCHANGED else uid, None if gid == UNCHANGED else gid)

    def set_times(self, path: str, atime: int, mtime: int) -> None:
        """Set both times as utimensat(2) does: nanoseconds, UTIME_NOW or UTIME_OMIT."""
        self._node(path).set_times(_time(atime), _time(mtime))

    def truncate(self, path: str, size: int) -> None:
        """Set the size as truncate(2) does, where kernfs keeps one. Raises EISDIR."""
        node = self._node(path)
        if not isinstance(node, File):
            raise KernelError(EISDIR, f"{path} is not a file")
        node.truncate(size)

    def create(self, path: str) -> None:
        """Refuse a new regular file, by open(2) or mknod(2)."""
        directory, name = self._place(path)
        raise self._fs.create(directory, name)

    def make_other(self, path: str) -> None:
        """Refuse a new fifo, device or link."""
        directory, name = self._place(path)
        raise self._fs.make_other(directory, name)

    def mkdir(self, path: str) -> None:
        """Make a directory, where that is allowed: in `instances` of tracefs."""
        self._fs.mkdir(*self._place(path))

    def rmdir(self, path: str) -> None:
        """Remove a directory, where that is allowed."""
        self._fs.rmdir(*self._place(path))

    def unlink(self, path: str) -> None:
        """Refuse to remove a name."""
        directory, name = self._place(path)
        raise self._fs.unlink(directory, name)

    def rename(self, path: str) -> None:
        """Refuse to change a name."""
        directory, name = self._place(path)
        raise self._fs.rename(directory, name)

    def getxattr(self, path: str, name: str) -> bytes:
        """Return the value of an extended attribute."""
        return self._xattrs.get(self._node(path), name)

    def setxattr(self, path: str, name: str, value: bytes, flags: int = 0) -> None:
        """Set an extended attribute."""
        self._xattrs.set(self._node(path), name, value, flags)

    def listxattr(self, path: str, uid: int = 0) -> list[str]:
        """Return the names of the extended attributes that this user may see."""
        return list(self._xattrs.names(self._node(path), uid))

    def removexattr(self, path: str, name: str) -> None:
        """Remove an extended attribute."""
        self._xattrs.remove(self._node(path), name)

    def _node(self, path: str) -> Node:
        return self._fs.resolve(path, follow=False)

    def _place(self, path: str) -> tuple[Node, str]:
        """Return the directory of a path and the name in it."""
        directory, _, name = path.rpartition("/")
        return self._node(directory), name


def status_of(node: Node, owner: tuple[int, int]) -> Status:
    """Return what stat(2) says of a node; what root owns is shown as owned by `owner`."""
    atime, mtime, ctime = node.times_ns
    uid, gid = owner
    return {
        "st_ino": node.ino,
        "st_mode": node.mode,
        "st_nlink": node.nlink,
        "st_size": node.size,
        "st_uid": node.uid or uid,
        "st_gid": node.gid or gid,
        "st_rdev": node.rdev,
        "st_blksize": BLOCK_SIZE,
        "st_atime": atime,
        "st_mtime": mtime,
        "st_ctime": ctime,
    }


def _time(nanoseconds: int) -> int | None:
    if nanoseconds == UTIME_OMIT:
        return None
    return time.time_ns() if nanoseconds == UTIME_NOW else nanoseconds

"""System calls by path, as a library that knows no inode numbers hands them on.

Runs on the thread of the models and knows no library. Open files are known by number, so what
was unplugged stays dead for those who hold it.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Mapping
from errno import EINVAL, EISDIR, ENOTDIR
from os import O_APPEND, O_NONBLOCK
from typing import NamedTuple

from fakesys.core.errors import KernelError
from fakesys.transport.fuse.replies import BLOCK_SIZE
from fakesys.transport.xattrs import ExtendedAttributes
from fakesys.tree.attr import Handle
from fakesys.tree.filesystem import NAME_MAX, FileSystem
from fakesys.tree.node import Directory, File, Node, Symlink

Status = Mapping[str, int]
# What utimensat(2) means by these instead of a time in nanoseconds.
UTIME_NOW = (1 << 30) - 1
UTIME_OMIT = (1 << 30) - 2
UNCHANGED = -1


class Opened(NamedTuple):
    """An open file: its number, and whether lseek(2) and pread(2) work."""

    number: int
    seekable: bool


class Paths:
    """One method per call; each raises KernelError, or Blocked where it would have to wait.

    `owner`: user and group to whom belongs what root owns: those who mounted.
    """

    def __init__(self, fs: FileSystem, owner: tuple[int, int] = (0, 0)) -> None:
        self._fs = fs
        self._uid, self._gid = owner
        self._xattrs = ExtendedAttributes()
        self._last_number = 0
        self._files: dict[int, tuple[File, Handle]] = {}
        self._directories: dict[int, Directory] = {}

    def __len__(self) -> int:
        return len(self._files) + len(self._directories)

    def close_all(self) -> None:
        """The mount is gone: let go of every handle."""
        for _, handle in self._files.values():
            handle.release()
        self._files.clear()
        self._directories.clear()

    def status(self, path: str) -> Status:
        """What stat(2) says of a path."""
        return self._status(self._node(path))

    def status_of(self, number: int) -> Status:
        """What an open file is asked for the sake of lseek(SEEK_END). Raises EINVAL."""
        node, _ = self._files[number]
        if not node.kind.has_end:
            raise KernelError(EINVAL, "this file has no end to seek from")
        return self._status(node)

    def readlink(self, path: str) -> str:
        """The text of a link."""
        node = self._node(path)
        if not isinstance(node, Symlink):
            raise KernelError(EINVAL, f"{path} is no link")
        return node.target

    def statfs(self) -> Status:
        """What statvfs(2) says: no blocks, no files, names of 255 bytes."""
        return {"f_bsize": BLOCK_SIZE, "f_frsize": BLOCK_SIZE, "f_namemax": NAME_MAX}

    def chmod(self, path: str, mode: int) -> None:
        """Set the permission bits."""
        self._fs.chmod(self._node(path), stat.S_IMODE(mode))

    def chown(self, path: str, uid: int, gid: int) -> None:
        """Set user and group; -1 leaves one as it is."""
        node = self._node(path)
        self._fs.chown(node, None if uid == UNCHANGED else uid, None if gid == UNCHANGED else gid)

    def set_times(self, path: str, atime: int, mtime: int) -> None:
        """utimensat(2), in nanoseconds or UTIME_NOW, UTIME_OMIT."""
        self._node(path).set_times(_time(atime), _time(mtime))

    def truncate(self, path: str, size: int) -> None:
        """truncate(2)."""
        node = self._node(path)
        if not isinstance(node, File):
            raise KernelError(EISDIR, f"{path} is not a file")
        node.truncate(size)

    def truncate_open(self, number: int, size: int) -> None:
        """ftruncate(2)."""
        node, _ = self._files[number]
        node.truncate_open(size)

    def create(self, path: str) -> None:
        """A new regular file, by open(2) or mknod(2): always refused."""
        directory, name = self._place(path)
        raise self._fs.create(directory, name)

    def make_other(self, path: str) -> None:
        """A new fifo, device or link: always refused."""
        directory, name = self._place(path)
        raise self._fs.make_other(directory, name)

    def mkdir(self, path: str) -> None:
        """A new directory, where that is allowed."""
        self._fs.mkdir(*self._place(path))

    def rmdir(self, path: str) -> None:
        """Remove a directory, where that is allowed."""
        self._fs.rmdir(*self._place(path))

    def unlink(self, path: str) -> None:
        """Always refused."""
        directory, name = self._place(path)
        raise self._fs.unlink(directory, name)

    def rename(self, path: str) -> None:
        """Always refused."""
        directory, name = self._place(path)
        raise self._fs.rename(directory, name)

    def open(self, path: str, flags: int) -> Opened:
        """open(2) of a file."""
        node = self._node(path)
        handle = self._fs.open(node, flags)
        assert isinstance(node, File)
        number = self._next_number()
        self._files[number] = node, handle
        return Opened(number, node.kind.seekable)

    def read(self, number: int, size: int, offset: int, flags: int) -> bytes:
        """read(2); `flags` of the open file as they are now."""
        node, handle = self._files[number]
        return self._fs.read(node, handle, offset, size, nonblock=flags & O_NONBLOCK != 0)

    def write(self, number: int, data: bytes, offset: int, flags: int) -> int:
        """write(2)."""
        node, handle = self._files[number]
        # With O_APPEND the kernel sends the size that it believes in.
        offset = 0 if flags & O_APPEND else offset
        return self._fs.write(node, handle, data, offset, nonblock=flags & O_NONBLOCK != 0)

    def fsync(self, number: int) -> None:
        """fsync(2) of a file."""
        node, _ = self._files[number]
        _refuse(node.kind.fsync, "this file has no fsync")

    def release(self, number: int) -> None:
        """The last descriptor of an open file is closed."""
        _, handle = self._files.pop(number)
        handle.release()

    def opendir(self, path: str) -> int:
        """The number of an open directory."""
        node = self._node(path)
        if not isinstance(node, Directory):
            raise KernelError(ENOTDIR, f"{path} is not a directory")
        number = self._next_number()
        self._directories[number] = node
        return number

    def readdir(self, number: int) -> list[tuple[str, Status]]:
        """All entries as they are now, each with inode number and type."""
        directory = self._directories[number]
        directory.listed()
        dots = (".", directory), ("..", directory.parent or directory)
        return [
            (name, {"st_ino": node.ino, "st_mode": node.mode})
            for name, node in (*dots, *directory.entries())
        ]

    def fsyncdir(self, number: int) -> None:
        """fsync(2) of a directory."""
        kind = self._directories[number].kind
        _refuse(kind.directory_fsync, "this directory has no fsync")

    def releasedir(self, number: int) -> None:
        """The last descriptor of an open directory is closed."""
        del self._directories[number]

    def getxattr(self, path: str, name: str) -> bytes:
        """The value of an extended attribute."""
        return self._xattrs.get(self._node(path), name)

    def setxattr(self, path: str, name: str, value: bytes, flags: int = 0) -> None:
        """Set an extended attribute."""
        self._xattrs.set(self._node(path), name, value, flags)

    def listxattr(self, path: str, uid: int = 0) -> list[str]:
        """Names of extended attributes that this user may see."""
        return list(self._xattrs.names(self._node(path), uid))

    def removexattr(self, path: str, name: str) -> None:
        """Remove an extended attribute."""
        self._xattrs.remove(self._node(path), name)

    def _node(self, path: str) -> Node:
        return self._fs.resolve(path, follow=False)

    def _place(self, path: str) -> tuple[Node, str]:
        """The directory of a path and the name in it."""
        directory, _, name = path.rpartition("/")
        return self._node(directory), name

    def _next_number(self) -> int:
        self._last_number += 1
        return self._last_number

    def _status(self, node: Node) -> Status:
        atime, mtime, ctime = node.times_ns
        return {
            "st_ino": node.ino,
            "st_mode": node.mode,
            "st_nlink": node.nlink,
            "st_size": node.size,
            "st_uid": node.uid or self._uid,
            "st_gid": node.gid or self._gid,
            "st_blksize": BLOCK_SIZE,
            "st_atime": atime,
            "st_mtime": mtime,
            "st_ctime": ctime,
        }


def _time(nanoseconds: int) -> int | None:
    if nanoseconds == UTIME_OMIT:
        return None
    return time.time_ns() if nanoseconds == UTIME_NOW else nanoseconds


def _refuse(errno: int, why: str) -> None:
    if errno:
        raise KernelError(errno, why)

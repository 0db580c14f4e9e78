"""Open files and open directories, by the numbers that libfuse keeps in `fi.fh`.

An open file stays the one that was opened: after its device was unplugged, reading it is refused
with ENODEV, also when a file of the same path exists again.
"""

from __future__ import annotations

from errno import EINVAL, ENOTDIR
from itertools import count
from os import O_APPEND, O_NONBLOCK
from typing import NamedTuple

from fakesys.core.errors import KernelError
from fakesys.transport.fusepy.paths import Status, status_of
from fakesys.tree.attr import Handle
from fakesys.tree.filesystem import FileSystem
from fakesys.tree.node import Directory, File


class Opened(NamedTuple):
    """The number of an open file, and whether lseek(2) and pread(2) work on it."""

    number: int
    seekable: bool


class OpenFiles:
    """One method per system call on an open file.

    Each raises KernelError when it is refused, and Blocked where the call would have to wait.
    """

    def __init__(self, fs: FileSystem, owner: tuple[int, int] = (0, 0)) -> None:
        self._fs = fs
        self._owner = owner
        self._numbers = count(1)
        self._files: dict[int, tuple[File, Handle]] = {}

    def __len__(self) -> int:
        return len(self._files)

    def close_all(self) -> None:
        """Release every handle: the mount is gone."""
        for _, handle in self._files.values():
            handle.release()
        self._files.clear()

    def open(self, path: str, flags: int) -> Opened:
        """Open a file. Raises EISDIR for a directory."""
        node = self._fs.resolve(path, follow=False)
        handle = self._fs.open(node, flags)
        assert isinstance(node, File)
        number = next(self._numbers)
        self._files[number] = node, handle
        return Opened(number, node.kind.seekable)

    def status(self, number: int) -> Status:
        """Return the status of an open file, which only lseek(SEEK_END) asks for. Raises EINVAL."""
        node, _ = self._files[number]
        if not node.kind.has_end:
            raise KernelError(EINVAL, "this file has no end to seek from")
        return status_of(node, self._owner)

    def truncate(self, number: int, size: int) -> None:
        """Set the size as ftruncate(2) does, where the file system keeps one."""
        node, _ = self._files[number]
        node.truncate_open(size)

    def read(self, number: int, size: int, offset: int, flags: int) -> bytes:
        """Read at most `size` bytes; `flags` are the present ones of the open file."""
        node, handle = self._files[number]
        return self._fs.read(node, handle, offset, size, nonblock=flags & O_NONBLOCK != 0)

    def write(self, number: int, data: bytes, offset: int, flags: int) -> int:
        """Write and return how many bytes were taken; `flags` as for `read`."""
        node, handle = self._files[number]
        # With O_APPEND the kernel sends the size that it has cached, which has no meaning here.
        offset = 0 if flags & O_APPEND else offset
        return self._fs.write(node, handle, data, offset, nonblock=flags & O_NONBLOCK != 0)

    def fsync(self, number: int) -> None:
        """Do nothing, or refuse as the file does."""
        node, _ = self._files[number]
        _refuse(node.kind.fsync, "this file has no fsync")

    def release(self, number: int) -> None:
        """Release the handle: the last descriptor was closed."""
        _, handle = self._files.pop(number)
        handle.release()


class OpenDirectories:
    """One method per system call on an open directory."""

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._numbers = count(1)
        self._directories: dict[int, Directory] = {}

    def __len__(self) -> int:
        return len(self._directories)

    def close_all(self) -> None:
        """Forget every directory: the mount is gone."""
        self._directories.clear()

    def open(self, path: str) -> int:
        """Open a directory and return its number. Raises ENOTDIR for a file."""
        node = self._fs.resolve(path, follow=False)
        if not isinstance(node, Directory):
            raise KernelError(ENOTDIR, f"{path} is not a directory")
        number = next(self._numbers)
        self._directories[number] = node
        return number

    def entries(self, number: int) -> list[tuple[str, Status]]:
        """Return all present entries, each with inode number and type."""
        directory = self._directories[number]
        directory.listed()
        dots = (".", directory), ("..", directory.parent or directory)
        return [
            (name, {"st_ino": node.ino, "st_mode": node.mode})
            for name, node in (*dots, *directory.entries())
        ]

    def fsync(self, number: int) -> None:
        """Do nothing, or refuse as the directory does."""
        kind = self._directories[number].kind
        _refuse(kind.directory_fsync, "this directory has no fsync")

    def release(self, number: int) -> None:
        """Forget the directory: the last descriptor was closed."""
        del self._directories[number]


def _refuse(errno: int, why: str) -> None:
    if errno:
        raise KernelError(errno, why)

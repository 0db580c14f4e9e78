"""Open, make and remove what lies below a directory, wherever a path wants to lead.

The kernel itself looks the path up and refuses one that leads out, so that no other process can
exchange a directory for a link in between. Symbolic links that stay below are followed.
"""

from __future__ import annotations

import ctypes
import os
from errno import EAGAIN, EEXIST, EINVAL, ENOSYS
from pathlib import Path
from types import TracebackType
from typing import Self

# The same number on all architectures of Linux but alpha.
OPENAT2 = 437
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_BENEATH = 0x08
# The lookup of a link with `..` is refused with EAGAIN while anything is renamed or mounted.
_TRIES = 1000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    """`struct open_how` of the kernel (include/uapi/linux/openat2.h, v6.1)."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


class Below:
    """A directory, and what lies below it. Every method raises OSError.

    A path that leads out is EXDEV: one that begins with a slash, has too many `..`, or passes a
    symbolic link to such a place. So is one through a link of procfs, such as `/proc/self/fd/3`,
    with ELOOP.

        with Below(Path("./mountpoint")) as place:
            place.mkdir("sys/kernel/tracing/instances/foo")
    """

    def __init__(self, root: Path) -> None:
        """Open the directory. Raises OSError, ENOSYS with a reason when the kernel is too old."""
        self._root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.close(self.open(".", os.O_PATH))
        except OSError as error:
            os.close(self._root)
            why = error.strerror
            if error.errno == ENOSYS:
                why = "this kernel has no openat2(2), without which a path could lead outside"
            raise OSError(error.errno, why, str(root)) from None

    def __enter__(self) -> Self:
        """Return itself; the directory is closed at the end of the block."""
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Close the directory."""
        os.close(self._root)

    def open(self, path: str, flags: int) -> int:
        """Return a new descriptor of what is at `path`."""
        name = os.fsencode(path)
        if b"\0" in name:
            raise OSError(EINVAL, os.strerror(EINVAL), path)
        how = _OpenHow(flags | os.O_CLOEXEC, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
        for _ in range(_TRIES):
            # c_long: a variadic function takes whole registers.
            descriptor = _libc.syscall(
                ctypes.c_long(OPENAT2),
                ctypes.c_long(self._root),
                name,
                ctypes.byref(how),
                ctypes.c_long(ctypes.sizeof(how)),
            )
            number = ctypes.get_errno()
            if descriptor >= 0:
                return int(descriptor)
            if number != EAGAIN:
                break
        raise OSError(number, os.strerror(number), path)

    def mkdir(self, path: str) -> None:
        """Make a directory."""
        folder, name = self._place(path)
        try:
            os.mkdir(name, dir_fd=folder)
        finally:
            os.close(folder)

    def rmdir(self, path: str) -> None:
        """Remove a directory."""
        folder, name = self._place(path)
        try:
            os.rmdir(name, dir_fd=folder)
        finally:
            os.close(folder)

    def _place(self, path: str) -> tuple[int, str]:
        """Return a descriptor of the directory that holds `path`, and the last name of `path`."""
        folder, slash, name = path.rstrip("/").rpartition("/")
        if name in ("", ".", ".."):
            # What mkdir(2) answers to `.`; `..` is looked up for the sake of the refusal.
            os.close(self.open(path, os.O_PATH))
            raise OSError(EEXIST, os.strerror(EEXIST), path)
        # An absolute path stays one, and is refused.
        return self.open(folder or slash or ".", os.O_PATH | os.O_DIRECTORY), name

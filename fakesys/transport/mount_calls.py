"""mount(2) and umount2(2), for which Python has no names."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path

MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MNT_FORCE = 1
MNT_DETACH = 2


@functools.cache
def libc() -> ctypes.CDLL:
    """Return the C library, whose calls leave their errno for `last_error`."""
    return ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str | Path, fstype: str, flags: int, data: str) -> None:
    """Call mount(2). Raises OSError."""
    words = os.fsencode(source), os.fsencode(target), fstype.encode()
    if libc().mount(*words, ctypes.c_ulong(flags), data.encode()) != 0:
        raise last_error()


def umount2(target: str | Path, flags: int) -> None:
    """Call umount2(2). Raises OSError."""
    if libc().umount2(os.fsencode(target), flags) != 0:
        raise last_error()


def last_error() -> OSError:
    """Return the failure of the last call through ctypes in this thread."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))

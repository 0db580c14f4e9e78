"""The few system calls about namespaces and mounts that Python has no names for."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWNET = 0x4000_0000
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_PRIVATE = 0x4_0000
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


class StepError(Exception):
    """A step towards the private world failed; the text is one line for the user."""


def unshare(flags: int) -> None:
    """New namespaces for this process. Raises OSError."""
    if _libc.unshare(flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def mount(source: str, target: Path, fstype: str, flags: int = 0, data: str = "") -> None:
    """mount(2). Raises StepError that names what could not be mounted where."""
    done = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        fstype.encode(),
        ctypes.c_ulong(flags),
        data.encode(),
    )
    if done != 0:
        reason = os.strerror(ctypes.get_errno())
        raise StepError(f"cannot mount {fstype or source} on {target}: {reason}")


def tmpfs(target: Path, mode: int = 0o755) -> None:
    """An empty file system in memory on this directory."""
    mount("fakesys", target, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={mode:o}")


def bind(source: Path, target: Path) -> None:
    """Show `source` at `target` too, with all that is mounted below it.

    Recursive: without root, a part of what the host mounted together may not be shown alone.
    """
    mount(str(source), target, "", MS_BIND | MS_REC)


def move(source: Path, target: Path) -> None:
    """Move a mount."""
    mount(str(source), target, "", MS_MOVE)


def detach(target: Path) -> None:
    """Take away the topmost mount here, also while it is in use. Raises OSError."""
    if _libc.umount2(os.fsencode(target), MNT_DETACH) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def make_private() -> None:
    """From now on no mount here is seen outside, and none from outside here."""
    mount("none", Path("/"), "", MS_REC | MS_PRIVATE)

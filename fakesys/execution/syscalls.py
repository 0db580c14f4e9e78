"""System calls for namespaces and mounts, with refusals that name what could not be done."""

from __future__ import annotations

import ctypes
from pathlib import Path

from fakesys.transport import mount_calls
from fakesys.transport.mount_calls import MNT_DETACH, MS_NODEV, MS_NOSUID, last_error

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWNET = 0x4000_0000
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_PRIVATE = 0x4_0000


class StepError(Exception):
    """A step towards the private view failed; the text is one line for the user."""


def unshare(flags: int) -> None:
    """Give this process new namespaces. Raises OSError."""
    if ctypes.CDLL(None, use_errno=True).unshare(flags) != 0:
        raise last_error()


def mount(source: str, target: Path, fstype: str, flags: int = 0, data: str = "") -> None:
    """Call mount(2). Raises StepError that names what could not be mounted and where."""
    try:
        mount_calls.mount(source, target, fstype, flags, data)
    except OSError as error:
        message = f"cannot mount {fstype or source} on {target}: {error.strerror}"
        raise StepError(message) from None


def tmpfs(target: Path, mode: int = 0o755) -> None:
    """Mount an empty file system in memory on this directory. Raises StepError."""
    mount("fakesys", target, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={mode:o}")


def bind(source: Path, target: Path) -> None:
    """Show `source` at `target` too, with everything mounted below it. Raises StepError.

    Recursive, because in a user namespace the kernel refuses to bind a mount without those that
    cover parts of it.
    """
    mount(str(source), target, "", MS_BIND | MS_REC)


def move(source: Path, target: Path) -> None:
    """Move a mount from `source` to `target`. Raises StepError."""
    mount(str(source), target, "", MS_MOVE)


def detach(target: Path) -> None:
    """Unmount the topmost mount on `target`, also while it is in use. Raises OSError."""
    mount_calls.umount2(target, MNT_DETACH)


def make_private() -> None:
    """Stop the propagation of mounts between this mount namespace and all others."""
    mount("none", Path("/"), "", MS_REC | MS_PRIVATE)

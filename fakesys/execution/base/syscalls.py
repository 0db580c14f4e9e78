"""System calls for namespaces and mounts, with refusals that name what could not be done."""

from __future__ import annotations

import ctypes
import os
import struct
import time
from errno import ENOSYS
from pathlib import Path

from fakesys.transport import mount_calls
from fakesys.transport.mount_calls import MNT_DETACH, MS_NODEV, MS_NOSUID, last_error, libc

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWNET = 0x4000_0000
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_PRIVATE = 0x4_0000
MS_SHARED = 0x10_0000
# The same number on every architecture, as for all system calls of the last years.
SYS_MOUNT_SETATTR = 442
AT_FDCWD = -100
AT_RECURSIVE = 0x8000
MOUNT_ATTR_RDONLY = 1
# struct mount_attr: what to set, what to clear, propagation, user namespace.
MOUNT_ATTR = struct.Struct("=QQQQ")
# A thread that ends needs no longer, on a machine that is very busy.
THREAD_SECONDS = 5.0


class StepError(Exception):
    """A step towards the private view failed; the text is one line for the user."""


def unshare(flags: int) -> None:
    """Give this process new namespaces. Raises OSError.

    A thread whose end was waited for may exist for some moments longer, and the kernel refuses
    CLONE_NEWUSER to a process with several threads (EINVAL): so the last one must be gone first.
    """
    if flags & CLONE_NEWUSER:
        _wait_for_last_threads()
    if libc().unshare(flags) != 0:
        raise last_error()


def _wait_for_last_threads() -> None:
    deadline = time.monotonic() + THREAD_SECONDS
    while len(os.listdir("/proc/self/task")) > 1 and time.monotonic() < deadline:
        time.sleep(0.001)


def setns(path: Path, kind: int) -> None:
    """Move this process into an existing namespace, a file below `/proc/PID/ns`.

    Raises OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc().setns(descriptor, kind) != 0:
            raise last_error()
    finally:
        os.close(descriptor)


def mount(source: str, target: str | Path, fstype: str, flags: int = 0, data: str = "") -> None:
    """Call mount(2). Raises StepError that names what could not be mounted and where."""
    try:
        mount_calls.mount(source, target, fstype, flags, data)
    except OSError as error:
        message = f"cannot mount {fstype or source} on {target}: {error.strerror}"
        raise StepError(message) from None


def tmpfs(target: Path, mode: int = 0o755) -> None:
    """Mount an empty file system in memory on this directory. Raises StepError."""
    mount("fakesys", target, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={mode:o}")


def bind(source: str | Path, target: str | Path) -> None:
    """Show `source` at `target` too, with everything mounted below it. Raises StepError.

    Recursive, because in a user namespace the kernel refuses to bind a mount without those that
    cover parts of it.
    """
    mount(str(source), target, "", MS_BIND | MS_REC)


def move(source: Path, target: Path) -> None:
    """Move a mount from `source` to `target`. Raises StepError."""
    mount(str(source), target, "", MS_MOVE)


def detach(target: str | Path) -> None:
    """Unmount the topmost mount on `target`, also while it is in use. Raises OSError."""
    mount_calls.umount2(target, MNT_DETACH)


def make_private() -> None:
    """Stop the propagation of mounts between this mount namespace and all others."""
    mount("none", Path("/"), "", MS_REC | MS_PRIVATE)


def share_mounts() -> None:
    """Let mounts that are made here later appear in the copies of this mount namespace too."""
    mount("none", Path("/"), "", MS_REC | MS_SHARED)


def read_only(target: Path) -> None:
    """Refuse writes through the mount on `target` and all mounts below it. Raises StepError."""
    attributes = MOUNT_ATTR.pack(MOUNT_ATTR_RDONLY, 0, 0, 0)
    result = libc().syscall(
        ctypes.c_long(SYS_MOUNT_SETATTR),
        ctypes.c_int(AT_FDCWD),
        os.fsencode(target),
        ctypes.c_uint(AT_RECURSIVE),
        attributes,
        ctypes.c_size_t(len(attributes)),
    )
    if result == 0:
        return
    error = last_error()
    why = "this needs Linux 5.12" if error.errno == ENOSYS else error.strerror
    raise StepError(f"cannot make {target} read-only: {why}; --host-writable leaves it out")

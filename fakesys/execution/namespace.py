"""Private namespaces: of mounts, of the network if asked for, for ordinary users of user ids."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from errno import EPERM
from pathlib import Path

from fakesys.execution import syscalls
from fakesys.execution.syscalls import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUSER, StepError

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1


def enter(*, network: bool) -> None:
    """Give this process its own mounts, and its own network if `network`. Raises StepError.

    A process without the right to do so first becomes root of a user namespace of its own; outside
    of it, it is still the same user.
    """
    flags = CLONE_NEWNS | (CLONE_NEWNET if network else 0)
    if not _as_root(flags):
        _as_user(flags)
    syscalls.make_private()
    if network:
        _raise_loopback()


def _as_root(flags: int) -> bool:
    if os.geteuid() != 0:
        return False
    try:
        syscalls.unshare(flags)
    except OSError as error:
        if error.errno == EPERM:
            return False
        raise StepError(f"no private namespace: {error.strerror}") from None
    return True


def _as_user(flags: int) -> None:
    uid, gid = os.geteuid(), os.getegid()
    try:
        syscalls.unshare(flags | CLONE_NEWUSER)
        # user_namespaces(7): without it an ordinary user may not write a map of groups.
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    except OSError as error:
        raise StepError(
            f"no user namespace ({error.strerror}): let an administrator allow them, or be root"
        ) from None


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", b"lo", 0)
        answer = fcntl.ioctl(control, SIOCGIFFLAGS, request)
        flags = struct.unpack_from("16sH", answer)[1] | IFF_UP
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags))

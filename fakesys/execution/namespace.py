"""Private namespaces: of mounts, of the network if asked for, of user ids.

There are two steps. `enter` gives this process mounts of its own, with all rights that it needs to
change them. `confine` takes these rights away: the process becomes root of a user namespace that
has them over nothing but its own copies of the mounts.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from errno import EPERM, EROFS
from pathlib import Path

from fakesys.execution.base import syscalls
from fakesys.execution.base.syscalls import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUSER, StepError

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
NO_USER_NAMESPACE = "no user namespace ({why}): let an administrator allow them, or {instead}"


def enter() -> None:
    """Give this process its own mounts. Raises StepError.

    A process without the right to do so first becomes root of a user namespace of its own; outside
    of it, it is still the same user.
    """
    if not _as_root():
        _as_user()
    syscalls.make_private()


def _as_root() -> bool:
    if os.geteuid() != 0:
        return False
    try:
        syscalls.unshare(CLONE_NEWNS)
    except OSError as error:
        if error.errno == EPERM:
            return False
        raise StepError(f"no private namespace: {error.strerror}") from None
    return True


def _as_user() -> None:
    uid, gid = os.geteuid(), os.getegid()
    try:
        syscalls.unshare(CLONE_NEWNS | CLONE_NEWUSER)
        # user_namespaces(7): without it an ordinary user may not write a map of groups.
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    except OSError as error:
        why = error.strerror
        raise StepError(NO_USER_NAMESPACE.format(why=why, instead="be root")) from None


def leave_to_others() -> None:
    """Leave these mounts to the processes that have them too, and take copies. Raises StepError.

    Changes of the copies are not seen by the others.
    """
    try:
        syscalls.unshare(CLONE_NEWNS)
    except OSError as error:
        raise StepError(f"no private namespace: {error.strerror}") from None


def join_mounts(pid: int) -> None:
    """Move this process into the mounts of another one, to their root. Raises StepError."""
    try:
        syscalls.setns(Path(f"/proc/{pid}/ns/mnt"), CLONE_NEWNS)
    except OSError as error:
        raise StepError(f"cannot enter the private namespace: {error.strerror}") from None


class Confinement:
    """The user namespace of a command, in which root cannot change the host.

    It has the ids of the namespace around it, so files have the same owners. What needs a right
    over the host itself is refused with EPERM there: to mount debugfs, tracefs, or sysfs, to load
    modules, to set the clock, to enter the namespaces of other processes. Mounts that it inherits
    cannot be removed or made writable again.
    """

    def __init__(self) -> None:
        # Through this directory the settings stay writable after `/proc/sys` was covered.
        self._settings = os.open("/proc/sys/user", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def unshare_ids(self, *, network: bool) -> None:
        """Become root of the new user namespace, not yet with mounts of its own.

        With `network` it gets a network too, over which it has all rights. Raises StepError.
        """
        try:
            syscalls.unshare(CLONE_NEWUSER | (CLONE_NEWNET if network else 0))
            self._forbid_cgroup_namespaces()
        except OSError as error:
            message = NO_USER_NAMESPACE.format(why=error.strerror, instead="use --host-writable")
            raise StepError(message) from None
        finally:
            os.close(self._settings)

    def unshare_mounts(self) -> None:
        """Copy the mounts, which from then on are locked. Raises OSError."""
        syscalls.unshare(CLONE_NEWNS)

    def _forbid_cgroup_namespaces(self) -> None:
        # In one of them cgroup2 can be mounted again, with the files of the host.
        name = "max_cgroup_namespaces"
        try:
            setting = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._settings)
        except OSError as error:
            # Inside of another view, whose limit holds here too.
            if error.errno == EROFS:
                return
            raise
        try:
            os.write(setting, b"0")
        finally:
            os.close(setting)


def map_ids(pid: int) -> None:
    """Give the user namespace of process `pid` every id of this one, unchanged. Raises OSError.

    Precondition: that namespace is a child of this process' own, and this process is root in it.
    """
    for name in ("uid_map", "gid_map"):
        lines = Path("/proc/self", name).read_text().splitlines()
        extents = [(first, count) for first, _, count in map(str.split, lines)]
        Path(f"/proc/{pid}", name).write_text(
            "".join(f"{first} {first} {count}\n" for first, count in extents)
        )


def unshare_network() -> None:
    """Give this process a network of its own. Raises OSError."""
    syscalls.unshare(CLONE_NEWNET)


def join_network(pid: int) -> None:
    """Move this process into the network of another one. Raises OSError."""
    syscalls.setns(Path(f"/proc/{pid}/ns/net"), CLONE_NEWNET)


def raise_loopback() -> None:
    """Turn on the interface `lo` of this network. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", b"lo", 0)
        answer = fcntl.ioctl(control, SIOCGIFFLAGS, request)
        flags = struct.unpack_from("16sH", answer)[1] | IFF_UP
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags))

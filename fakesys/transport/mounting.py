"""Mounting and unmounting: mount(2) where it is allowed, else fusermount3; what is mounted."""

from __future__ import annotations

import array
import ctypes
import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from errno import EBUSY, EINVAL, ENOTCONN, EPERM
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

FSTYPE = "fuse.fakesys"
SOURCE_PREFIX = "fakesys-"
DEVICE = "/dev/fuse"
CONNECTIONS = Path("/sys/fs/fuse/connections")
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MNT_FORCE = 1
MNT_DETACH = 2
ANSWER_SECONDS = 2.0
HELPER_SECONDS = 10.0

T = TypeVar("T")


class MountError(Exception):
    """Mounting or unmounting failed; the text is one line for the user."""


class Busy(MountError):
    """The mount is in use."""


class Mounted(Struct, frozen=True):
    """One line of /proc/self/mountinfo that is ours."""

    point: Path
    source: str
    # By which fusectl knows it: the minor number of its device.
    connection: int

    @property
    def instance(self) -> str:
        """What distinguishes this mount from others of ours."""
        return self.source.removeprefix(SOURCE_PREFIX)


def mounted() -> Iterator[Mounted]:
    """Our mounts that this process can see, oldest first."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            _, _, device, _, point = before.split(" ")[:5]
            fstype, source = after.split(" ")[:2]
            if fstype == FSTYPE:
                connection = int(device.partition(":")[2])
                yield Mounted(Path(_unescape(point)), _unescape(source), connection)


def find(point: Path) -> Mounted | None:
    """Our topmost mount on this point; touches nothing below it."""
    wanted = real_point(point)
    found = [mount for mount in mounted() if mount.point == wanted]
    return found[-1] if found else None


def real_point(point: Path) -> Path:
    """The absolute path without links, also when the mount on it is dead."""
    whole = point.absolute()
    if whole.name == "..":
        return Path(os.path.realpath(whole))
    return Path(os.path.realpath(whole.parent), whole.name) if whole.name else Path("/")


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)


def answers(point: Path) -> bool:
    """Does the daemon behind this mount answer? Waits at most two seconds.

    statvfs(2) is what the kernel never answers from a cache.
    """

    def ask() -> bool:
        try:
            os.statvfs(point)
        except OSError as error:
            return error.errno != ENOTCONN
        return True

    return within(ANSWER_SECONDS, ask) or False


def within(seconds: float, call: Callable[[], T]) -> T | None:
    """The result of a call that a daemon may leave without an answer; None when time is up."""
    result: list[T] = []
    asker = threading.Thread(target=lambda: result.append(call()), daemon=True)
    asker.start()
    asker.join(seconds)
    return result[0] if result else None


def abort(mount: Mounted) -> None:
    """Let the kernel end the connection, every waiting client with it: the last resort.

    By fusectl, or where that is not mounted by a forced unmount, of which this is the beginning.
    """
    try:
        (CONNECTIONS / str(mount.connection) / "abort").write_text("1")
    except OSError:
        with suppress(MountError):
            unmount(mount.point, force=True)


def clear_stale(point: Path) -> bool:
    """Detach a mount of ours on this point whose daemon is gone; was there one?"""
    mount = find(point)
    if mount is None or answers(point):
        return False
    unmount(mount.point, lazy=True)
    return True


def check_point(point: Path) -> None:
    """Raises MountError unless something can be mounted here."""
    if find(point) is not None:
        raise MountError(f"{point} has a fakesys mount already; unmount it first: fakesys umount")
    if not point.exists():
        raise MountError(f"{point} does not exist; make the directory first")
    if not point.is_dir():
        raise MountError(f"{point} is not a directory")


def mount(point: Path, instance: str, *, allow_other: bool) -> int:
    """Mount on `point`; the descriptor to serve. Raises MountError."""
    if not os.path.exists(DEVICE):
        raise MountError(f"{DEVICE} does not exist: load the fuse module")
    source = SOURCE_PREFIX + instance
    if os.geteuid() == 0:
        try:
            return _mount_directly(point, source, allow_other=allow_other)
        except OSError as error:
            if error.errno != EPERM:
                raise MountError(f"cannot mount on {point}: {error.strerror}") from error
    return _mount_by_helper(point, source, allow_other=allow_other)


def _mount_directly(point: Path, source: str, *, allow_other: bool) -> int:
    device = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    options = [f"fd={device}", "rootmode=40000", f"user_id={os.geteuid()}"]
    options += [f"group_id={os.getegid()}", "default_permissions"]
    options += ["allow_other"] if allow_other else []
    flags = ctypes.c_ulong(MS_NOSUID | MS_NODEV | MS_NOEXEC)
    data = ",".join(options).encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), os.fsencode(point), FSTYPE.encode(), flags, data) != 0:
        number = ctypes.get_errno()
        os.close(device)
        raise OSError(number, os.strerror(number))
    return device


def _mount_by_helper(point: Path, source: str, *, allow_other: bool) -> int:
    options = f"fsname={source},subtype=fakesys,default_permissions,nosuid,nodev,noexec"
    options += ",allow_other" if allow_other else ""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        _run_helper(
            ["-o", options, "--", str(point)],
            environment={"_FUSE_COMMFD": str(theirs.fileno())},
            keep=theirs.fileno(),
        )
        # Ours is the last end then: a helper that sent nothing is not waited for.
        theirs.close()
        ours.settimeout(HELPER_SECONDS)
        _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(4))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            device = array.array("i", data)[0]
            os.set_blocking(device, False)
            os.set_inheritable(device, False)
            return device
    raise MountError("fusermount3 gave no descriptor")


def unmount(point: Path, *, lazy: bool = False, force: bool = False) -> None:
    """Unmount; `lazy` detaches while it is in use. Raises Busy, MountError.

    Must not run in the thread that serves the mount.
    """
    flags = (MNT_DETACH if lazy else 0) | (MNT_FORCE if force else 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(point), flags) == 0:
        return
    number = ctypes.get_errno()
    if number == EBUSY:
        raise Busy(f"{point} is in use")
    if number == EINVAL:
        raise MountError(f"{point} is not a mount point")
    if number != EPERM:
        raise MountError(f"cannot unmount {point}: {os.strerror(number)}")
    _run_helper(["-u", *(["-z"] if lazy else []), "--", str(point)])


def _run_helper(
    arguments: list[str], *, environment: dict[str, str] | None = None, keep: int | None = None
) -> None:
    try:
        done = subprocess.run(
            ["fusermount3", *arguments],
            env={**os.environ, **(environment or {}), "LC_ALL": "C"},
            pass_fds=() if keep is None else (keep,),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=HELPER_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise MountError("fusermount3 is missing: install fuse3, or mount as root") from None
    except subprocess.TimeoutExpired:
        raise MountError("fusermount3 did not answer") from None
    if done.returncode == 0:
        return
    lines = done.stderr.strip().splitlines() or ["fusermount3 failed"]
    message = lines[-1].removeprefix("fusermount3: ")
    raise Busy(message) if "busy" in message else MountError(message)

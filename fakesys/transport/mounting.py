"""Mount and unmount, and find the mounts of fakesys.

Root mounts by mount(2); other users, and root without the right to mount, by the set-uid helper
fusermount3 of the package fuse3. A mount is recognised by its type, FSTYPE, and its source, which
is SOURCE_PREFIX and the name of the instance.
"""

from __future__ import annotations

import array
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from enum import Enum
from errno import EBUSY, ECONNABORTED, EINVAL, ENOTCONN, EPERM
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from fakesys.transport import mount_calls
from fakesys.transport.mount_calls import (
    MNT_DETACH,
    MNT_FORCE,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
)
from fakesys.transport.mountinfo import mount_lines

FSTYPE = "fuse.fakesys"
SOURCE_PREFIX = "fakesys-"
DEVICE = "/dev/fuse"
CONNECTIONS = Path("/sys/fs/fuse/connections")
ANSWER_SECONDS = 2.0
HELPER_SECONDS = 10.0

T = TypeVar("T")


class MountError(Exception):
    """Mounting or unmounting failed; the text is one line for the user."""


class Busy(MountError):
    """The mount is in use."""


class Mounted(Struct, frozen=True):
    """A mount of fakesys that this process sees."""

    point: Path
    source: str
    # Its folder in fusectl: the minor number of its device.
    connection: int

    @property
    def instance(self) -> str:
        """The name of this instance, different for each mount."""
        return self.source.removeprefix(SOURCE_PREFIX)


def mounted() -> Iterator[Mounted]:
    """Yield the mounts of fakesys that this process sees, oldest first."""
    for line in mount_lines((FSTYPE,)):
        yield Mounted(line.point, line.source, line.minor)


def find(point: Path) -> Mounted | None:
    """Return the topmost mount of fakesys on this point. Touches no file below it."""
    wanted = real_point(point)
    found = [mount for mount in mounted() if mount.point == wanted]
    return found[-1] if found else None


def real_point(point: Path) -> Path:
    """Return the absolute path without links, also when the mount on it does not answer."""
    whole = point.absolute()
    if whole.name == "..":
        return Path(os.path.realpath(whole))
    return Path(os.path.realpath(whole.parent), whole.name) if whole.name else Path("/")


class Answer(Enum):
    """What the daemon behind a mount does when it is asked."""

    PROMPT = "answers"
    # It may be busy, or stopped: the mount may not be taken from it.
    NONE = "does not answer"
    # The kernel has noticed that the daemon has ended.
    GONE = "has ended"


def answer(point: Path) -> Answer:
    """Ask the daemon behind this mount; wait for it at most ANSWER_SECONDS.

    It is asked by statvfs(2), the one call that the kernel never answers from a cache.
    """
    return within(ANSWER_SECONDS, lambda: _ask(point)) or Answer.NONE


def answers(point: Path) -> bool:
    """Return whether the daemon behind this mount answers within ANSWER_SECONDS."""
    return answer(point) is Answer.PROMPT


def _ask(point: Path) -> Answer:
    try:
        os.statvfs(point)
    except OSError as error:
        return Answer.GONE if error.errno in (ENOTCONN, ECONNABORTED) else Answer.PROMPT
    return Answer.PROMPT


def within(seconds: float, call: Callable[[], T]) -> T | None:
    """Return the result of a call that may hang on a dead mount; None when time is up."""
    return within_all(seconds, [call])[0]


def within_all(seconds: float, calls: Iterable[Callable[[], T]]) -> list[T | None]:
    """Return the results of calls that may hang, which have the same time together."""
    results: list[T | None] = []
    askers = []
    for index, call in enumerate(calls):
        results.append(None)
        asker = threading.Thread(target=_store, args=(results, index, call), daemon=True)
        asker.start()
        askers.append(asker)
    deadline = time.monotonic() + seconds
    for asker in askers:
        asker.join(max(0.0, deadline - time.monotonic()))
    return list(results)


def _store(results: list[T | None], index: int, call: Callable[[], T]) -> None:
    results[index] = call()


def abort(mount: Mounted) -> None:
    """Let the kernel end the connection: every request that waits ends with ECONNABORTED.

    By fusectl; where that is not mounted, by a forced unmount, which begins with the same step.
    The last resort, for a daemon that does not answer.
    """
    try:
        (CONNECTIONS / str(mount.connection) / "abort").write_text("1")
    except OSError:
        with suppress(MountError):
            unmount(mount.point, force=True)


def clear_stale(point: Path) -> bool:
    """Detach a mount whose daemon is gone from this point; return whether there was one."""
    mount = find(point)
    if mount is None or answer(point) is not Answer.GONE:
        return False
    unmount(mount.point, lazy=True)
    return True


def check_point(point: Path) -> None:
    """Refuse a point on which nothing can be mounted. Raises MountError that says what to do."""
    if find(point) is not None:
        silent = "" if answers(point) else ", whose daemon does not answer"
        raise MountError(
            f"{point} has a fakesys mount already{silent}; unmount it first: fakesys umount"
        )
    if not point.exists():
        raise MountError(f"{point} does not exist; make the directory first")
    if not point.is_dir():
        raise MountError(f"{point} is not a directory")


def mount(point: Path, instance: str, *, allow_other: bool) -> int:
    """Mount on `point` and return the descriptor to serve, non-blocking. Raises MountError."""
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
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    try:
        mount_calls.mount(source, point, FSTYPE, flags, ",".join(options))
    except OSError:
        os.close(device)
        raise
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
        # With both other ends closed, recvmsg(2) returns at once if the helper sent nothing.
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

    Precondition: this is not the thread that serves the mount, which the kernel asks meanwhile.
    """
    flags = (MNT_DETACH if lazy else 0) | (MNT_FORCE if force else 0)
    try:
        mount_calls.umount2(point, flags)
    except OSError as error:
        if error.errno == EBUSY:
            raise Busy(f"{point} is in use") from None
        if error.errno == EINVAL:
            raise MountError(f"{point} is not a mount point") from None
        if error.errno != EPERM:
            raise MountError(f"cannot unmount {point}: {error.strerror}") from None
    else:
        return
    _run_helper(["-u", *(["-z"] if lazy else []), "--", str(point)])


def _run_helper(
    arguments: list[str], *, environment: dict[str, str] | None = None, keep: int | None = None
) -> None:
    """Run fusermount3; it inherits the descriptor `keep`. Raises Busy, MountError."""
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
    except OSError as error:
        # PermissionError also when a directory of PATH may not be searched.
        why = "" if isinstance(error, FileNotFoundError) else f" or out of reach ({error.strerror})"
        message = f"fusermount3 is missing{why}: install fuse3, or mount as root"
        raise MountError(message) from None
    except subprocess.TimeoutExpired:
        raise MountError("fusermount3 did not answer") from None
    if done.returncode == 0:
        return
    lines = done.stderr.strip().splitlines() or ["fusermount3 failed"]
    message = lines[-1].removeprefix("fusermount3: ")
    raise Busy(message) if "busy" in message else MountError(message)

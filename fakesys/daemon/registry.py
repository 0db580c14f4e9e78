"""What this user has mounted: one JSON file per mount, written and removed by its daemon.

Beside it is the log of a daemon in the background. What a killed daemon leaves behind is removed
by the next command that starts one (`sweep`), or by `fakesys umount`.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from fakesys.transport import mounting
from fakesys.transport.processes import Process


class MountEntry(msgspec.Struct, frozen=True):
    """One mount, as `fakesys status` shows it.

    `started`: seconds since the epoch; `start_time`: of the process, in clock ticks since boot.
    """

    point: str
    pid: int
    start_time: int
    started: float
    instance: str
    profile: str
    scenario: str
    transport: str
    log_file: str

    def process(self) -> Process:
        """Return the daemon, which may have ended. Raises OSError."""
        return Process(self.pid, self.start_time)


def folder() -> Path:
    """Return this user's directory of entries and logs, which is made if it is missing.

    Raises PermissionError if another user owns it, OSError if it cannot be made.
    """
    path = _place()
    path.mkdir(mode=0o700, exist_ok=True)
    _require_own(path)
    return path


def _place() -> Path:
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base:
        return Path(base, "fakesys")
    if os.access("/run", os.W_OK):
        return Path(f"/run/fakesys-{os.getuid()}")
    return Path(f"/tmp/fakesys-{os.getuid()}")


def _require_own(path: Path) -> None:
    status = path.lstat()
    # Another user may have made that name in /tmp first.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to another user")


def write(entry: MountEntry) -> None:
    """Write an entry, in one step: readers see all of it or nothing. Raises OSError."""
    path = _path(entry.instance)
    draft = path.with_suffix(".new")
    try:
        draft.write_bytes(msgspec.json.encode(entry) + b"\n")
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def remove(instance: str) -> None:
    """Remove an entry, if there is one."""
    _path(instance).unlink(missing_ok=True)


def forget(instance: str) -> None:
    """Remove the entry and the log of a daemon that has ended without doing so itself."""
    remove(instance)
    log_path(instance).unlink(missing_ok=True)


def sweep() -> None:
    """Remove what daemons that were killed have left; a mount that is still there keeps its entry.

    Raises OSError.
    """
    shown = {mount.instance for mount in mounting.mounted()}
    for entry in entries():
        with entry.process() as process:
            if entry.instance not in shown and process.wait_gone(0):
                forget(entry.instance)
    known = {entry.instance for entry in entries()} | shown
    for log in folder().glob("*.log"):
        if log.stem not in known and not _is_in_use(log):
            log.unlink(missing_ok=True)


def hold(log: int) -> None:
    """Mark an open log as in use until this process ends: it may not have an entry yet."""
    fcntl.flock(log, fcntl.LOCK_SH)


def _is_in_use(log: Path) -> bool:
    with suppress(FileNotFoundError), log.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def entries() -> Iterator[MountEntry]:
    """Yield every readable entry, the oldest mount first.

    There is none where the directory is missing. Raises PermissionError if another user owns it.
    """
    found = []
    place = _place()
    if place.is_symlink() or place.exists():
        _require_own(place)
    for path in place.glob("*.json"):
        with suppress(OSError, msgspec.DecodeError):
            found.append(msgspec.json.decode(path.read_bytes(), type=MountEntry))
    yield from sorted(found, key=lambda entry: entry.started)


def find(instance: str) -> MountEntry | None:
    """Return the entry of a mount; None if it has none."""
    return next((entry for entry in entries() if entry.instance == instance), None)


def log_path(instance: str) -> Path:
    """Return the file to which the daemon of this mount logs by default."""
    return folder() / f"{instance}.log"


def _path(instance: str) -> Path:
    return folder() / f"{instance}.json"

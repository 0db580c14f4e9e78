"""What this user has mounted: one JSON file per mount, written and removed by its daemon."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec


class MountEntry(msgspec.Struct, frozen=True):
    """One mount, as `fakesys list` shows it. `started`: seconds since the epoch."""

    point: str
    pid: int
    started: float
    instance: str
    profile: str
    scenario: str
    transport: str
    log_file: str


def folder() -> Path:
    """Return this user's directory of entries and logs, which is made if it is missing.

    Raises PermissionError if another user owns it, OSError if it cannot be made.
    """
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base:
        path = Path(base, "fakesys")
    elif os.access("/run", os.W_OK):
        path = Path(f"/run/fakesys-{os.getuid()}")
    else:
        path = Path(f"/tmp/fakesys-{os.getuid()}")
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    # Another user may have made that name in /tmp first.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to another user")
    return path


def write(entry: MountEntry) -> None:
    """Write an entry, in one step: readers see all of it or nothing."""
    path = _path(entry.instance)
    draft = path.with_suffix(".new")
    draft.write_bytes(msgspec.json.encode(entry) + b"\n")
    draft.replace(path)


def remove(instance: str) -> None:
    """Remove an entry, if there is one."""
    _path(instance).unlink(missing_ok=True)


def entries() -> Iterator[MountEntry]:
    """Yield every readable entry, the oldest mount first."""
    found = []
    for path in folder().glob("*.json"):
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

"""What this user has mounted: one small JSON file per mount, written by its daemon."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec


class Record(msgspec.Struct, frozen=True):
    """One mount. `started`: seconds since the epoch."""

    point: str
    pid: int
    started: float
    instance: str
    profile: str
    scenario: str
    transport: str
    log_file: str


def folder() -> Path:
    """This user's directory for records and logs, made at need. Raises OSError."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base:
        path = Path(base, "fakesys")
    elif os.access("/run", os.W_OK):
        path = Path(f"/run/fakesys-{os.getuid()}")
    else:
        path = Path(f"/tmp/fakesys-{os.getuid()}")
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    # Somebody else may have made that name in /tmp first.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to somebody else")
    return path


def write(record: Record) -> None:
    """Keep a record, whole or not at all."""
    path = _path(record.instance)
    draft = path.with_suffix(".new")
    draft.write_bytes(msgspec.json.encode(record) + b"\n")
    draft.replace(path)


def remove(instance: str) -> None:
    """Forget a record; fine when there is none."""
    _path(instance).unlink(missing_ok=True)


def records() -> Iterator[Record]:
    """Every readable record, oldest first."""
    found = []
    for path in folder().glob("*.json"):
        with suppress(OSError, msgspec.DecodeError):
            found.append(msgspec.json.decode(path.read_bytes(), type=Record))
    yield from sorted(found, key=lambda record: record.started)


def find(instance: str) -> Record | None:
    """The record of one mount."""
    return next((record for record in records() if record.instance == instance), None)


def log_path(instance: str) -> Path:
    """Where the daemon of this mount logs when it is not told otherwise."""
    return folder() / f"{instance}.log"


def _path(instance: str) -> Path:
    return folder() / f"{instance}.json"

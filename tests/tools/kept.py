"""Where fetched programs are kept: between runs, and for every copy of the project of a user."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Unavailable(Exception):
    """What is wanted cannot be had here; the text says why."""


@contextmanager
def kept(name: str) -> Iterator[Path]:
    """The folder of this name, for one process at a time. Raises Unavailable."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base, "fakesys-tests", name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / "lock", "w")  # noqa: SIM115 - closed below
    except OSError as error:
        raise Unavailable(f"no place to keep {name}: {error}") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder

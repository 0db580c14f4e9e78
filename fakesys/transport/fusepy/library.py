"""The Python package fusepy and the C library libfuse 2 under it: loading, options, its messages.

The only module that imports fusepy (as `fuse`), and only when `load` is called: it looks for
libfuse while it is imported.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Mapping
from typing import IO, Any

from fakesys.transport.mounting import MountError

STDERR = 2

# The kernel caches nothing, because libfuse 2 has no call that makes it forget a name.
# `intr`: interrupts are passed on. `use_ino`: inode numbers of the tree. `hard_remove`: no hidden
# files for removed ones that are open.
OPTIONS: Mapping[str, object] = {
    "foreground": True,
    "subtype": "fakesys",
    "default_permissions": True,
    "nonempty": True,
    "intr": True,
    "use_ino": True,
    "hard_remove": True,
    "nosuid": True,
    "nodev": True,
    "noexec": True,
    "atomic_o_trunc": True,
    "big_writes": True,
    "entry_timeout": 0,
    "attr_timeout": 0,
    "negative_timeout": 0,
}


def load() -> Any:
    """Return the module of fusepy. Raises MountError naming the package that is missing."""
    try:
        import fuse
    except ModuleNotFoundError:
        raise MountError("--transport fusepy needs fusepy: pip install fusepy") from None
    except OSError:
        raise MountError(
            "--transport fusepy needs libfuse 2: install the package libfuse2 (newer: libfuse2t64)"
        ) from None
    fuse._libfuse.fuse_exited.argtypes = [ctypes.c_void_p]
    return fuse


class StderrCapture:
    """Keeps what libfuse prints on standard error while it mounts: its only report of a failure."""

    def __init__(self) -> None:
        self._real = -1
        self._file: IO[bytes] | None = None

    def start(self) -> None:
        """Let descriptor 2 lead to a file."""
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self._real = os.dup(STDERR)
        os.dup2(self._file.fileno(), STDERR)

    def stop(self) -> str | None:
        """Restore standard error and return the last line, or None if this was called before."""
        file, self._file = self._file, None
        if file is None:
            return None
        os.dup2(self._real, STDERR)
        os.close(self._real)
        with file:
            file.seek(0)
            lines = file.read().decode(errors="replace").strip().splitlines()
        return lines[-1].partition(": ")[2] if lines else "libfuse could not mount"

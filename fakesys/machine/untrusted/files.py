"""Read a file that another person made, within bounds of size and time."""

from __future__ import annotations

import os
import select
import stat
import time
from pathlib import Path

from fakesys.core.text import one_line

# From the open to the end of a pipe.
SECONDS = 10.0
_PIECE = 1 << 16


class UnusableFileError(ValueError):
    """A file that is not read; the text is one line with its name and the reason."""


def read_file(path: Path, most: int) -> bytes:
    """Return the content of a regular file or of a pipe, at most `most` bytes.

    A pipe must end within `SECONDS`. Raises UnusableFileError.
    """
    try:
        return _read(path, most)
    except OSError as error:
        raise UnusableFileError(f"{one_line(str(path))}: {error.strerror}") from None
    except ValueError as error:
        raise UnusableFileError(f"{one_line(str(path))}: {error}") from None


def _read(path: Path, most: int) -> bytes:
    # Looked at first, as the open of some devices has an effect of its own.
    _require_kind(os.stat(path))
    # O_NONBLOCK: the open of a pipe would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        _require_kind(found)
        if found.st_size > most:
            raise ValueError(f"{found.st_size} bytes, of which at most {most} can be used")
        return _read_to_end(descriptor, most)
    finally:
        os.close(descriptor)


def _require_kind(found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise ValueError("a directory, not a file")
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISFIFO(found.st_mode):
        raise ValueError("neither a regular file nor a pipe")


def _read_to_end(descriptor: int, most: int) -> bytes:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + SECONDS
    data = bytearray()
    while len(data) <= most:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise ValueError(f"a pipe that did not end within {SECONDS:g} seconds")
        try:
            piece = os.read(descriptor, min(_PIECE, most + 1 - len(data)))
        except BlockingIOError:
            continue
        if not piece:
            return bytes(data)
        data += piece
    # A pipe, or a file whose size is not known before, such as those of procfs.
    raise ValueError(f"more than the {most} bytes that can be used")

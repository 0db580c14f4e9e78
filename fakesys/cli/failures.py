"""Standard descriptors of the command, and failures that none of its commands expects.

Whatever happens, a user reads one line.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from contextlib import suppress
from typing import IO

FAILED = 1


def occupy_standard_descriptors() -> None:
    """Open the descriptors 0 to 2 that are closed, so that no other file gets their numbers.

    They are opened for the wrong direction: a command that uses one gets EBADF, as if it were
    still closed.
    """
    for number, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free: this one.
            os.set_inheritable(os.open(os.devnull, mode), True)


def say(line: str) -> None:
    """Write a line to standard error, if that is possible."""
    with suppress(OSError):
        print(f"fakesys: {line}", file=sys.stderr, flush=True)


def line_about(error: Exception) -> str:
    """Return one line about an error that no command has expected.

    Errors of the system name the file; the traceback of any other goes to a file that is named.
    """
    if isinstance(error, OSError):
        if error.strerror is None:
            return str(error)
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    kind = f"{type(error).__name__}: {error}".splitlines()[0]
    try:
        # Not at the top, where every command would load it and the random numbers that it needs.
        import tempfile

        handle, path = tempfile.mkstemp(prefix="fakesys-error-", suffix=".txt")
        with os.fdopen(handle, "w", errors="backslashreplace") as file:
            traceback.print_exception(error, file=file)
    except OSError as refused:
        return f"internal error: {kind} (its traceback cannot be kept: {refused.strerror})"
    return f"internal error: {kind} (traceback in {path})"


def flushed(status: int) -> int:
    """Write what the standard streams still hold; return the exit status after that."""
    wrong = _flushed(sys.stdout)
    if wrong is not None and wrong.errno != errno.EPIPE and status == 0:
        say(f"standard output: {wrong.strerror}")
    _flushed(sys.stderr)
    return FAILED if wrong is not None and status == 0 else status


def _flushed(stream: IO[str] | None) -> OSError | None:
    if stream is None:
        return None
    try:
        stream.flush()
    except OSError as error:
        # The interpreter flushes again at its end, and would show a traceback.
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
            stream.flush()
        return error
    return None

"""The file from which the whole machine is read, and to which another one is written.

Reading gives the machine as it was at open. What is written to one open file is collected until
its last line; then all of it is loaded in one step, or refused.
"""

from __future__ import annotations

import os
import re
from errno import EFBIG, EINTR, EINVAL
from select import POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM

from fakesys.core.copying.copies import COPY_ERRORS, Text
from fakesys.core.errors import KernelError, Waiters
from fakesys.core.scheduling.resched import can_repeat, might_resched
from fakesys.subsystems.control.model import Control

FIRST = b'{"fakesys": '
# Formats before 3 closed a list there.
_LAST = re.compile(rb'\n(?:\],)?"sha256":"[0-9a-f]{64}"\}\n')
LONGEST = 1 << 30
PATH = "sys/kernel/debug/fakesys/snapshot"
ERRORS = {
    EINVAL: "no whole snapshot made by this version",
    EFBIG: "longer than any snapshot",
    EINTR: "a signal came before the machine was replaced",
    **COPY_ERRORS,
}
_READY = POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM


def is_complete(data: bytes | bytearray) -> bool:
    """Return whether the last line of a snapshot is there."""
    return data.endswith(b'"}\n') and _LAST.fullmatch(data, data.rfind(b"\n", 0, -1)) is not None


def last_line(checksum: str) -> bytes:
    """Return the last line of a snapshot."""
    return f'"sha256":"{checksum}"}}\n'.encode()


class SnapshotFile:
    """One open file."""

    def __init__(self, control: Control, flags: int) -> None:
        self._control = control
        reads = flags & os.O_ACCMODE != os.O_WRONLY
        self._text = _saved(control) if reads else None
        self._collected = bytearray()

    def read(self, offset: int, size: int, *, nonblock: bool) -> bytes:
        """Return a piece of the text. Raises Blocked until it is there."""
        return b"" if self._text is None else self._text.text()[offset : offset + size]

    def write(self, data: bytes, offset: int, *, nonblock: bool) -> int:
        """Take the next piece; the last one loads.

        Raises EINVAL, EFBIG; all pieces are dropped then. A load is done in slices.
        """
        collected, self._collected = self._collected, bytearray()
        collected += data
        if not collected.startswith(FIRST[: len(collected)]):
            raise KernelError(EINVAL, "no snapshot of fakesys")
        if len(collected) > LONGEST:
            raise KernelError(EFBIG, f"a snapshot has at most {LONGEST} bytes")
        if is_complete(collected):
            if can_repeat():
                del collected[len(collected) - len(data) :]
                self._collected = collected
                might_resched()
            self._control.machine.load(bytes(collected))
        else:
            self._collected = collected
        return len(data)

    def poll(self) -> int:
        """Return that it is always ready."""
        return _READY

    def waiters(self) -> Waiters | None:
        """Return None: it is always ready for poll(2)."""
        return None

    def release(self) -> None:
        """Refuse, in `last_error`, a snapshot that was not written to its end."""
        if self._text is not None:
            self._text.close()
        if self._collected:
            error = KernelError(EINVAL, "a snapshot that is cut off: its last line is missing")
            self._control.note_refusal(PATH, error)


def _saved(control: Control) -> Text:
    # What is due happens before, so that the time in the file is the time of the reader.
    control.machine.kernel.clock.catch_up()
    return Text(control.machine.save)

"""Every write to the mount with who made it: one JSON object a line, for one reader."""

from __future__ import annotations

import select

import msgspec

from fakesys.core.clock import NS
from fakesys.core.errors import KernelError, Waiters
from fakesys.core.kernel import Begun
from fakesys.core.saved import byte_text
from fakesys.subsystems.control.recording import Lines, Recordings, refuse_write, result_of

# A reader that is slower than the writers for so long loses what comes then, in bytes.
MOST_KEPT = 4 << 20
# Of a text: a snapshot may be written too.
LONGEST_TEXT = 4096


class Written(msgspec.Struct, frozen=True):
    """One line.

    `time`: simulated seconds when it began. `pid`, `comm`: of the thread. `call`: `write`, `mkdir`,
    `rmdir`, or `truncate` for an open with O_TRUNC of a file that reacts to it. `text`: the first
    4,096 bytes of `size`. `result`: `ok` or the errno, and `why` it was refused.
    """

    time: float
    pid: int
    uid: int
    comm: str
    call: str
    path: str
    text: str
    size: int
    result: str
    why: str


class WritersFile:
    r"""One open file: what happens from its opening on. Bytes that are no UTF-8 become `\xNN`."""

    def __init__(self, recordings: Recordings) -> None:
        self._recordings = recordings
        self._machine = recordings.machine
        self._lines = Lines('{{"lost":{}}}\n'.format)
        recordings.add(self)

    def wrote(
        self, begun: Begun, path: str, text: bytes, error: KernelError | None, *, truncatable: bool
    ) -> None:
        """Tell of a write: what was taken of it, or what was refused."""
        self._say(begun, "write", path, text, error)

    def happened(self, begun: Begun, path: str, text: bytes) -> None:
        """Leave out what no process wrote."""

    def truncated(self, begun: Begun, path: str) -> None:
        """Tell of an open with O_TRUNC."""
        self._say(begun, "truncate", path, b"", None)

    def made(self, begun: Begun, word: str, path: str, error: KernelError | None) -> None:
        """Tell of a `mkdir` or `rmdir`."""
        self._say(begun, word, path, b"", error)

    def read(self, offset: int, size: int, *, nonblock: bool) -> bytes:
        """Return the next lines. Raises EAGAIN or Blocked when there is none yet."""
        return self._lines.read(size, nonblock=nonblock)

    def write(self, data: bytes, offset: int, *, nonblock: bool) -> int:
        """Refuse with EINVAL: the file is only read."""
        raise refuse_write()

    def poll(self) -> int:
        """Return POLLIN while there is something to read."""
        return select.POLLIN | select.POLLRDNORM if self._lines else 0

    def waiters(self) -> Waiters:
        """Return the waiters that each line wakes."""
        return self._lines.waiters

    def release(self) -> None:
        """Hear no more."""
        self._recordings.close(self)

    def _say(
        self, begun: Begun, call: str, path: str, text: bytes, error: KernelError | None
    ) -> None:
        at_ns, caller = begun
        line = Written(
            time=at_ns / NS,
            pid=caller.pid,
            uid=caller.uid,
            comm=_readable(self._machine.comm(caller.pid)),
            call=call,
            path=_readable(byte_text(path)),
            text=_readable(text[:LONGEST_TEXT].decode("latin-1")),
            size=len(text),
            result=result_of(error),
            why="" if error is None else _readable(error.why),
        )
        self._lines.say(msgspec.json.encode(line).decode() + "\n", MOST_KEPT)


def _readable(text: str) -> str:
    """Return a text that has its bytes as one character each, read as UTF-8."""
    return text.encode("latin-1", "backslashreplace").decode("utf-8", "backslashreplace")

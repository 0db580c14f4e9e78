"""Texts of the whole machine, made in a forked copy of the process while others are served.

The copy shows the machine of one moment. It only makes the text, writes it to a pipe and ends.
Where no transport waits for pipes, as in memory, a text is made at once.
"""

from __future__ import annotations

import gc
import os
import signal
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from errno import EAGAIN, ENOMEM

from fakesys.core.errors import Blocked, KernelError, Waiters
from fakesys.core.scheduling.resched import can_repeat

PIECE = 1 << 20
# The copy is ended after so many seconds, and not made while there are so many of them.
SECONDS = 600
MOST_COPIES = 8

# Calls the action once the descriptor can be read without waiting.
WhenReadable = Callable[[int, Callable[[], None]], None]


class _Pipes:
    """What the transport of this process offers. `copies`: how many processes there are."""

    def __init__(self) -> None:
        self.when_readable: WhenReadable | None = None
        self.copies = 0


pipes = _Pipes()


class Text:
    """A text that is there, or is being made in a copy of the process."""

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._pieces: list[bytes] = []
        self._made: bytes | None = None
        self._failure = ""
        self._child = 0
        self._waiters = Waiters()
        when_readable = pipes.when_readable
        if when_readable is None or not can_repeat() or pipes.copies >= MOST_COPIES:
            self._made = make()
        else:
            self._begin(make, when_readable)

    def text(self) -> bytes:
        """Return the text. Raises Blocked until it is there, and what making it has raised."""
        if self._made is None:
            raise Blocked(self._waiters)
        if self._failure:
            raise RuntimeError(f"the copy of the process failed:\n{self._failure}")
        return self._made

    def close(self) -> None:
        """Make no more of the text. A second call does nothing."""
        if self._child:
            with suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)

    def _begin(self, make: Callable[[], bytes], when_readable: WhenReadable) -> None:
        reading, writing = os.pipe()
        try:
            with warnings.catch_warnings():
                # Other threads: the copy has none, and takes no lock that they could hold.
                warnings.simplefilter("ignore", DeprecationWarning)
                self._child = os.fork()
        except OSError:
            os.close(reading)
            os.close(writing)
            raise KernelError(ENOMEM, "no room for a copy of the process") from None
        if not self._child:
            _be_the_copy(make, writing)
        os.close(writing)
        os.set_blocking(reading, False)
        pipes.copies += 1
        self._follow(reading, when_readable)

    def _follow(self, reading: int, when_readable: WhenReadable) -> None:
        def readable() -> None:
            if self._read(reading):
                when_readable(reading, readable)

        when_readable(reading, readable)

    def _read(self, reading: int) -> bool:
        """Take the next piece; return whether there are more."""
        try:
            piece = os.read(reading, PIECE)
        except OSError as error:
            return error.errno == EAGAIN
        if piece:
            self._pieces.append(piece)
            return True
        os.close(reading)
        _, status = os.waitpid(self._child, 0)
        self._child = 0
        pipes.copies -= 1
        self._made = b"".join(self._pieces)
        self._pieces.clear()
        if status:
            self._failure = self._made.decode(errors="replace") or f"wait status {status}"
        self._waiters.wake()
        return False


def _be_the_copy(make: Callable[[], bytes], writing: int) -> None:
    """Write the text to the pipe and end, whatever happens."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.alarm(SECONDS)
        gc.disable()
        # Above all the device: its last descriptor ends the mount.
        os.closerange(0, writing)
        os.closerange(writing + 1, os.sysconf("SC_OPEN_MAX"))
        try:
            data = make()
            status = 0
        except BaseException:
            data = traceback.format_exc().encode()
        view = memoryview(data)
        while view:
            view = view[os.write(writing, view) :]
    finally:
        os._exit(status)

"""Texts of the whole machine, made in a forked copy of the process while others are served.

The copy shows the machine of one moment. It only makes the text, writes it to a pipe and ends.
Where no transport waits for pipes, as in memory, a text is made at once.
"""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import struct
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from errno import ENOMEM
from typing import NoReturn

from fakesys.core.errors import Blocked, KernelError, Waiters
from fakesys.core.scheduling.resched import can_repeat, state

PIECE = 1 << 20
# A copy is ended after so many seconds. Those that want one while there are so many wait.
SECONDS = 600
MOST_COPIES = 4

# How a file may refuse to be read of which a copy makes the text.
COPY_ERRORS = {ENOMEM: "no room for a copy of the daemon, which makes the text"}

# Whether the text was made, and how long it, or what is said instead, is.
_HEAD = struct.Struct("<?Q")

# Calls the action once the descriptor can be read without waiting.
WhenReadable = Callable[[int, Callable[[], None]], None]


class Pipes:
    """What the transport of this process offers, and the copies that are at work for it."""

    def __init__(self) -> None:
        self.when_readable: WhenReadable | None = None
        self.copies: set[Copy] = set()
        # Woken when a copy has ended, and when the machine is not in the middle of a change.
        self.ended, self.unlocked = Waiters(), Waiters()

    def open(self, when_readable: WhenReadable) -> None:
        """Make copies from now on, for a transport that waits for pipes."""
        self.when_readable, state.unlocked = when_readable, self.unlocked

    def close(self) -> None:
        """End all copies: nobody waits for pipes any more."""
        self.when_readable, state.unlocked = None, None
        for copy in list(self.copies):
            copy.kill()
            copy.reap()


pipes = Pipes()


class Text:
    """A text that is there, or is being made in a copy of the process.

    Making one may raise Blocked, until the machine is in a state that a copy may show and there are
    few enough copies, and ENOMEM where the host has no room for another process.
    """

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._made: bytes | None = None
        self._failure: Exception | None = None
        self._waiters = Waiters()
        self._copy: Copy | None = None
        if pipes.when_readable is None or not can_repeat():
            self._made = make()
            return
        if state.locks:
            raise Blocked(pipes.unlocked)
        if len(pipes.copies) >= MOST_COPIES:
            raise Blocked(pipes.ended)
        self._copy = Copy(make, pipes.when_readable, self._end)

    def text(self) -> bytes:
        """Return the text. Raises Blocked until it is there, ENOMEM if the copy was killed."""
        if self._failure is not None:
            raise self._failure
        if self._made is None:
            raise Blocked(self._waiters)
        return self._made

    @property
    def is_waited_for(self) -> bool:
        """Whether it is still being made."""
        return self._copy is not None

    def close(self) -> None:
        """Make no more of the text. A second call does nothing."""
        if self._copy is not None:
            self._copy.kill()

    def _end(self, written: bytes) -> None:
        self._copy = None
        done, size = _HEAD.unpack_from(written) if written else (False, 1)
        data = written[_HEAD.size :]
        if len(data) < size:
            self._failure = KernelError(ENOMEM, "the copy of the process was killed")
        elif done:
            self._made = data
        else:
            self._failure = RuntimeError(f"in a copy of the process:\n{data.decode()}")
        self._waiters.wake()


class Copy:
    """A forked process that makes a text: `process` is its number.

    `end` is called with what it has written.

    Raises ENOMEM where there is no room for it.
    """

    def __init__(
        self,
        make: Callable[[], bytes],
        when_readable: WhenReadable,
        end: Callable[[bytes], None],
    ) -> None:
        self._pieces: list[bytes] = []
        self._when_readable = when_readable
        self._end = end
        self._reading, writing = _pipe()
        try:
            self.process = _fork()
        except KernelError:
            os.close(self._reading)
            os.close(writing)
            raise
        if not self.process:
            _be_the_copy(make, writing)
        os.close(writing)
        pipes.copies.add(self)
        when_readable(self._reading, self._readable)

    def kill(self) -> None:
        """End the process, if it is still there. What it has written is read all the same."""
        if self in pipes.copies:
            with suppress(ProcessLookupError):
                os.kill(self.process, signal.SIGKILL)

    def reap(self) -> None:
        """Wait for the end of the process, which has closed the pipe or was killed."""
        pipes.copies.discard(self)
        os.close(self._reading)
        # The kernel reaps it where SIGCHLD is ignored.
        with suppress(ChildProcessError):
            os.waitpid(self.process, 0)

    def _readable(self) -> None:
        # Ended by `Pipes.close` meanwhile?
        if self in pipes.copies and self._read():
            self._when_readable(self._reading, self._readable)

    def _read(self) -> bool:
        """Take the next piece; return whether there are more."""
        with suppress(BlockingIOError):
            piece = os.read(self._reading, PIECE)
            if not piece:
                self.reap()
                self._end(b"".join(self._pieces))
                pipes.ended.wake()
                return False
            self._pieces.append(piece)
        return True


def _pipe() -> tuple[int, int]:
    try:
        reading, writing = os.pipe()
    except OSError:
        raise KernelError(ENOMEM, "the process has too many descriptors for a copy") from None
    os.set_blocking(reading, False)
    # Larger than a user may have without a privilege?
    with suppress(OSError):
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIECE)
    return reading, writing


def _fork() -> int:
    """Return the process id of the copy, 0 in the copy."""
    try:
        with warnings.catch_warnings():
            # Other threads: the copy has none, and takes no lock that they could hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            return os.fork()
    except OSError as error:
        raise KernelError(ENOMEM, f"no room for a copy of the process: {error}") from None


def _be_the_copy(make: Callable[[], bytes], writing: int) -> NoReturn:
    """Write the text to the pipe and end, whatever happens."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.alarm(SECONDS)
        gc.disable()
        # Above all the device: its last descriptor ends the mount.
        os.closerange(0, writing)
        os.closerange(writing + 1, os.sysconf("SC_OPEN_MAX"))
        # It makes the text at once.
        pipes.when_readable, state.serving = None, False
        try:
            done, data = True, make()
        except BaseException:
            done, data = False, traceback.format_exc().encode(errors="replace")
        for part in (_HEAD.pack(done, len(data)), data):
            view = memoryview(part)
            while view:
                view = view[os.write(writing, view) :]
    finally:
        os._exit(0)

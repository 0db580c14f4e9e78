"""A process in the background, in a session of its own, that says when it is ready.

It is started before anything heavy is imported. So it is small when it is forked, and the process
that waits for it has little to free at its own end.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress

START_SECONDS = 30.0
PREPARED = "prepared"
READY = "ready"
FAILED = 1
GO = b"\n"

_log = logging.getLogger(__name__)

Ready = Callable[[], None]
"""Called once by the process when it is ready. Raises OSError if its caller has gone."""


class Refused(Exception):
    """The process refuses; the text is one line for the user, `status` an exit status."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status


class Starting:
    """A process on its way into the background.

    `prepare` runs in it and still sees the folder and the terminal of the caller; what that
    returns runs without them, and only while the caller waits for it. Both may raise Refused.
    """

    def __init__(self, prepare: Callable[[], Callable[[Ready], None]]) -> None:
        self._link, other = socket.socketpair()
        self._rest = b""
        child = os.fork()
        if child == 0:
            self._link.close()
            _be_in_background(prepare, other)
        other.close()
        os.waitpid(child, 0)

    def prepared(self) -> None:
        """Wait until it is prepared. Raises Refused."""
        self._word(PREPARED)

    def serve(self) -> int:
        """Let it go on; return its pid once it is ready. Raises Refused."""
        with suppress(BrokenPipeError):
            self._link.sendall(GO)
        pid = int(self._word(READY))
        self._link.close()
        return pid

    def _word(self, expected: str) -> str:
        """Return what follows the expected word on the next line."""
        line = self._line()
        word, _, rest = line.partition(" ")
        if word == expected:
            return rest
        self._link.close()
        raise Refused(rest, int(word)) if line else Refused("the daemon died at start")

    def _line(self) -> str:
        """Return the next line; nothing when the other end was closed or time is up."""
        deadline = time.monotonic() + START_SECONDS
        while b"\n" not in self._rest:
            left = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([self._link], [], [], left)
            piece = self._link.recv(4096) if ready else b""
            if not piece:
                return ""
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode(errors="replace")


def start(prepare: Callable[[], Callable[[Ready], None]]) -> int:
    """Start a process in the background; return its pid once it is ready. Raises Refused."""
    starting = Starting(prepare)
    starting.prepared()
    return starting.serve()


def _be_in_background(prepare: Callable[[], Callable[[Ready], None]], link: socket.socket) -> None:
    """Do the rest of a forked child: fork again, work, and leave."""
    status = FAILED
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        _work(prepare, link)
        status = 0
    except BaseException:
        _log.exception("the daemon ends")
    finally:
        logging.shutdown()
        os._exit(status)


def _work(prepare: Callable[[], Callable[[Ready], None]], link: socket.socket) -> None:
    def ready() -> None:
        _say(link, f"{READY} {os.getpid()}")
        link.close()

    try:
        serve = prepare()
        if _may_go_on(link):
            _cut_ties()
            serve(ready)
    except Refused as refusal:
        with suppress(OSError):
            _say(link, f"{refusal.status} {refusal}")


def _say(link: socket.socket, text: str) -> None:
    link.sendall(f"{text}\n".encode())


def _may_go_on(link: socket.socket) -> bool:
    """Return whether the caller still waits; it does not after Ctrl-C, for example."""
    try:
        _say(link, PREPARED)
        return link.recv(len(GO)) == GO
    except OSError:
        return False


def _cut_ties() -> None:
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    if null > 2:
        os.close(null)

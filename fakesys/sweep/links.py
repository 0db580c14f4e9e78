"""Questions and answers between the processes of a sweep: one JSON object a line."""

from __future__ import annotations

import select
import socket
import time
from typing import Any

import msgspec

# Seconds until an answer that needs no program counts as lost.
ANSWERING = 60.0
_PIECE = 1 << 16


class LinkError(RuntimeError):
    """The other side has ended, or says why it cannot."""


class Abandoned(RuntimeError):
    """The one for whom all this is done has gone."""


class Link:
    """One end. `master`: a socket that becomes readable when there is no use in waiting."""

    def __init__(self, end: socket.socket, master: socket.socket | None = None) -> None:
        self._end = end
        self._master = master
        self._rest = b""

    def ask(self, question: dict[str, Any], seconds: float = ANSWERING) -> dict[str, Any]:
        """Return the answer. Raises LinkError, Abandoned."""
        self.send(question)
        answer = self.receive(seconds)
        if answer is None:
            raise LinkError("a process of the run has ended")
        if "failed" in answer:
            raise LinkError(answer["failed"])
        return answer

    def send(self, message: dict[str, Any]) -> None:
        """Send without waiting for an answer. Raises LinkError."""
        try:
            self._end.sendall(msgspec.json.encode(message) + b"\n")
        except OSError as error:
            raise LinkError(f"a process of the run has ended: {error.strerror}") from None

    def receive(self, seconds: float | None = None) -> dict[str, Any] | None:
        """Return the next message, None at the end. Raises LinkError when there is none in time."""
        deadline = None if seconds is None else time.monotonic() + seconds
        pieces = [self._rest]
        while b"\n" not in pieces[-1]:
            self._wait(deadline)
            try:
                piece = self._end.recv(_PIECE)
            except OSError:
                piece = b""
            if not piece:
                return None
            pieces.append(piece)
        line, _, self._rest = b"".join(pieces).partition(b"\n")
        message: dict[str, Any] = msgspec.json.decode(line)
        return message

    def _wait(self, deadline: float | None) -> None:
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        if self._master is not None:
            poll.register(self._master, select.POLLIN)
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready = [descriptor for descriptor, _ in poll.poll(None if left is None else left * 1000)]
        if self._master is not None and self._master.fileno() in ready:
            raise Abandoned
        if not ready:
            raise LinkError("a process of the run does not answer")

    def close(self) -> None:
        """Close this end."""
        self._end.close()

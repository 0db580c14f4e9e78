"""A page without a browser: it takes the messages of a server and keeps what they say."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

SECONDS = 20.0


class Client:
    """What a page knows. `messages`: how many it has taken; `missed`: lines by stream."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = b""
        self.values: dict[str, Any] = {}
        self.lines: dict[str, list[list[str]]] = {}
        self.missed: dict[str, int] = {}
        self.messages = 0

    def take(self, until: Callable[[Client], object]) -> None:
        """Take messages until a condition holds. Raises TimeoutError when none comes."""
        while not until(self):
            piece = self._connection.recv(1 << 16)
            assert piece, "the server has ended"
            # Chunks end with a line break as messages do.
            *lines, self._rest = (self._rest + piece).split(b"\n")
            for line in lines:
                if line.startswith(b"data: "):
                    self._one(json.loads(line[6:]))

    def drain(self) -> None:
        """Take all that comes, and forget it, until the server ends."""
        with suppress(OSError):
            while self._connection.recv(1 << 16):
                pass

    def _one(self, said: dict[str, Any]) -> None:
        self.messages += 1
        if said.get("whole"):
            self.values.clear()
            self.lines.clear()
        for key in said.get("gone", ()):
            del self.values[key]
        self.values.update(said.get("set", {}))
        for name, lines in said.get("lines", {}).items():
            self.lines.setdefault(name, []).extend(lines)
        for name, count in said.get("missed", {}).items():
            self.missed[name] = self.missed.get(name, 0) + count


@contextmanager
def connected(address: str, room: int = 1 << 18) -> Iterator[Client]:
    """A client of the page at an address. `room`: bytes that wait on its side."""
    place = urlsplit(address)
    assert place.hostname is not None
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        connection.settimeout(SECONDS)
        connection.connect((place.hostname, place.port))
        head = f"GET {place.path}events HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n"
        connection.sendall(head.encode())
        yield Client(connection)

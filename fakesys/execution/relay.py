"""A process beside the command, with the rights over the private view that the command lacks.

First it sets up the namespaces of the command from outside. Then it reads the uevents of the
simulated machine: after each one it brings the joined `/sys` in line; in a private network it also
sends the event on netlink. It reads the file `uevents_pipe` like any client, so the directory of a
device exists before its `add` is sent.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from fakesys.execution.base.syscalls import StepError
from fakesys.execution.netlink import Sender, parse_stream
from fakesys.execution.requests import seccomp
from fakesys.execution.requests.answers import handlers

STREAM = "sys/kernel/debug/fakesys/uevents_pipe"
PIECE = 1 << 16
GO = b"\n"
READY = "ready"


class Relay:
    """The process, as its starter sees it: the command to be.

    `set_up` is called in the relay when `go` was called; StepError and OSError of it are raised by
    `go`. Then `refresh` is called after each event. `network`: events are also sent, on the network
    that `set_up` has joined, with `for_udevd` those of udevd too. The constructor raises OSError.
    """

    def __init__(
        self,
        mount: Path,
        *,
        set_up: Callable[[], None],
        refresh: Callable[[], None],
        network: bool,
        for_udevd: bool,
    ) -> None:
        self._set_up = set_up
        self._refresh = refresh
        self._network = network
        self._for_udevd = for_udevd
        # The relay ends with this process.
        self._lives_with = os.pidfd_open(os.getpid())
        self._stream = os.open(mount / STREAM, os.O_RDONLY | os.O_NONBLOCK)
        self._link, other = socket.socketpair()
        child = os.fork()
        if child == 0:
            self._link.close()
            self._link = other
            self._in_background()
        os.waitpid(child, 0)
        other.close()
        os.close(self._stream)
        os.close(self._lives_with)

    def go(self) -> None:
        """Let it begin; it reads every event that happens after the return. Raises StepError."""
        answer = ""
        with suppress(BrokenPipeError):
            self._link.sendall(GO)
            with self._link.makefile(encoding="utf-8", errors="replace") as answers:
                answer = answers.readline().rstrip("\n")
        if answer != READY:
            raise StepError(answer or "the relay of device events did not start")

    def leave_calls_to(self, listener: int | None) -> None:
        """Hand over where the calls of the command arrive, if anywhere; the last step.

        Raises OSError.
        """
        with self._link as link:
            if listener is not None:
                socket.send_fds(link, [GO], [listener])
                os.close(listener)

    def _in_background(self) -> None:
        # Not a child of the command: a program may wait for all its children.
        os.setsid()
        if os.fork():
            os._exit(0)
        status = 1
        try:
            os.chdir("/")
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            if self._link.recv(len(GO)) == GO:
                self._work()
            status = 0
        finally:
            os._exit(status)

    def _work(self) -> None:
        try:
            self._set_up()
            sender = Sender(for_udevd=self._for_udevd) if self._network else None
            _skip_earlier_events(self._stream)
        except (StepError, OSError) as error:
            self._link.sendall(f"{error}\n".encode())
            return
        self._link.sendall(f"{READY}\n".encode())
        with self._link as link:
            _, listeners, _, _ = socket.recv_fds(link, len(GO), 1)
        _Events(self._stream, sender, self._lives_with, self._refresh).run(listeners)


def _skip_earlier_events(stream: int) -> None:
    try:
        while os.read(stream, PIECE):
            pass
    except BlockingIOError:
        pass


class _Events:
    """What the relay does for the rest of its life."""

    def __init__(
        self, stream: int, sender: Sender | None, lives_with: int, refresh: Callable[[], None]
    ) -> None:
        self._stream = stream
        self._sender = sender
        self._lives_with = lives_with
        self._refresh = refresh
        self._handlers = handlers(refresh)
        self._text = ""

    def run(self, listeners: Sequence[int]) -> None:
        """Serve until the command or the machine has ended."""
        poll = select.poll()
        for descriptor in (self._stream, self._lives_with, *listeners):
            poll.register(descriptor, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if self._lives_with in ready:
                return
            for listener in listeners:
                if ready.get(listener, 0) & select.POLLIN:
                    seccomp.answer(listener, self._handlers)
            if self._stream in ready and not self._read():
                return

    def _read(self) -> bool:
        """Pass on what has happened; return False at the end of the stream."""
        try:
            piece = os.read(self._stream, PIECE)
        except BlockingIOError:
            return True
        if not piece:
            return False
        self._refresh()
        whole, separator, self._text = (self._text + piece.decode()).rpartition("\n\n")
        if self._sender is not None:
            for event in parse_stream(whole + separator):
                self._sender.send(event)
        return True

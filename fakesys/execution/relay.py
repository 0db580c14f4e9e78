"""A small process beside the command that hears of the fake's device events.

With every event it sees to it that the joined `/sys` is true; in a private network it passes
the events on to netlink. It reads the `uevents` file like any client, so a device's whole
folder is to be seen before its `add` is sent.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from pathlib import Path

from fakesys.execution.netlink import Sender, parse_stream
from fakesys.execution.syscalls import StepError

STREAM = "sys/kernel/debug/fakesys/uevents"
PIECE = 1 << 16
READY = b"r"


def start(mount: Path, *, lives_with: int, refresh: Callable[[], None], network: bool) -> None:
    """Start it; events that happen after the return are heard. Raises StepError, OSError.

    `lives_with`: a pidfd; the relay ends with the process behind it. `refresh`: called with
    every event. `network`: this process is in a network of its own, where events are sent.
    """
    stream = os.open(mount / STREAM, os.O_RDONLY | os.O_NONBLOCK)
    sender = Sender() if network else None
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _in_background(stream, sender, lives_with, writer, refresh)
    os.waitpid(child, 0)
    for descriptor in (stream, writer, lives_with):
        os.close(descriptor)
    if sender is not None:
        sender.close()
    with os.fdopen(reader, "rb") as pipe:
        if pipe.read() != READY:
            raise StepError("the relay of device events did not start")


def _in_background(
    stream: int,
    sender: Sender | None,
    lives_with: int,
    writer: int,
    refresh: Callable[[], None],
) -> None:
    # Not a child of the command: a program that waits for all its children must not meet it.
    os.setsid()
    if os.fork():
        os._exit(0)
    status = 1
    try:
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        _skip_the_past(stream)
        os.write(writer, READY)
        os.close(writer)
        _relay(stream, sender, lives_with, refresh)
        status = 0
    finally:
        os._exit(status)


def _skip_the_past(stream: int) -> None:
    try:
        while os.read(stream, PIECE):
            pass
    except BlockingIOError:
        pass


def _relay(
    stream: int, sender: Sender | None, lives_with: int, refresh: Callable[[], None]
) -> None:
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    poll.register(lives_with, select.POLLIN)
    text = ""
    while True:
        if any(descriptor == lives_with for descriptor, _ in poll.poll()):
            return
        try:
            piece = os.read(stream, PIECE)
        except BlockingIOError:
            continue
        if not piece:
            return
        refresh()
        whole, separator, text = (text + piece.decode()).rpartition("\n\n")
        if sender is not None:
            for event in parse_stream(whole + separator):
                sender.send(event)

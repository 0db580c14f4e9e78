"""A process beside the command that reads the uevents of the simulated machine.

After each event it brings the joined `/sys` in line; in a private network it also sends the event
on netlink. It reads the file `uevents` like any client, so the directory of a device exists before
its `add` is sent.
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
    """Start the relay; it reads every event that happens after the return.

    `lives_with` is a pidfd: the relay ends with its process. `refresh` is called after each event.
    `network`: this process has a network of its own, on which events are sent. Raises StepError,
    OSError.
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
        _skip_earlier_events(stream)
        os.write(writer, READY)
        os.close(writer)
        _relay(stream, sender, lives_with, refresh)
        status = 0
    finally:
        os._exit(status)


def _skip_earlier_events(stream: int) -> None:
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

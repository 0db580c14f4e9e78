"""What the simulated kernel offers to every subsystem."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import ClassVar, NamedTuple

from fakesys.core.clock import Clock
from fakesys.core.devices import Devices
from fakesys.core.events import Bus, LogLine


class Caller(NamedTuple):
    """The process that made the present system call; pid 0 is the machine itself."""

    pid: int
    uid: int
    gid: int


MACHINE = Caller(pid=0, uid=0, gid=0)


class Kernel:
    """Bus, clock, driver core, random numbers, and the caller of the present system call."""

    # Not saved: the caller belongs to the system call in which the machine was saved.
    UNSAVED: ClassVar = {"caller": lambda: MACHINE}

    def __init__(self, seed: int = 1) -> None:
        self.bus = Bus()
        self.clock = Clock()
        self.devices = Devices(self.bus)
        self.random = random.Random(seed)
        self.caller = MACHINE
        # Called by the transport with the caller of each request; None while no model needs it.
        self.on_request: Callable[[Caller], None] | None = None

    def log(self, text: str) -> None:
        """Emit one line of the kernel log."""
        self.bus.emit(LogLine(text))

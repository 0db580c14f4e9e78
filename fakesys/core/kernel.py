"""What the simulated kernel offers to every subsystem."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Annotated, NamedTuple

from msgspec import Meta

from fakesys.core.clock import Clock, SavedClock
from fakesys.core.devices import Devices
from fakesys.core.events import Bus, LogLine
from fakesys.core.saved import U32, Saved, check

# Words of the Mersenne Twister, and the version of its state in `random.Random`.
_WORDS = 624
_VERSION = 3


class Caller(NamedTuple):
    """The process that made the present system call; pid 0 is the machine itself."""

    pid: int
    uid: int
    gid: int


MACHINE = Caller(pid=0, uid=0, gid=0)


class Begun(NamedTuple):
    """When a system call has begun, and who made it: a reset makes another kernel meanwhile."""

    at_ns: int
    caller: Caller


class SavedRandom(Saved, frozen=True):
    """The state of the generator. `index`: the word that is next; `gauss`: a number kept back."""

    words: Annotated[tuple[U32, ...], Meta(min_length=_WORDS, max_length=_WORDS)]
    index: Annotated[int, Meta(ge=0, le=_WORDS)]
    gauss: float | None


class SavedKernel(Saved, frozen=True):
    """Time and chance."""

    clock: SavedClock
    random: SavedRandom


class Kernel:
    """Bus, clock, driver core, random numbers, and the caller of the present system call."""

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

    def saved(self) -> SavedKernel:
        """Return what a snapshot holds of time and chance; models save their timers."""
        _, state, gauss = self.random.getstate()
        *words, index = state
        chance = SavedRandom(words=tuple(words), index=index, gauss=gauss)
        return SavedKernel(clock=self.clock.saved(), random=chance)

    def restore(self, saved: SavedKernel) -> None:
        """Take over time and chance of a snapshot; no timer is left. Raises BadSnapshotError."""
        chance = saved.random
        check(any(chance.words), "the random generator is at rest")
        self.clock.restore(saved.clock)
        self.random.setstate((_VERSION, (*chance.words, chance.index), chance.gauss))

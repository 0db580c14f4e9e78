"""Full garbage collections while no request comes, and memory that goes back to the system.

Python begins a full collection when the number of objects has grown by a quarter, whatever waits.
It looks at every object of the models: with many VMs or listed devices that takes up to some
tenths of a second.

Python counts objects, not bytes: a VM that is destroyed leaves few objects in circles, but large
ones. So the memory of the process is looked at too, and when it has grown a collection takes its
turn between two requests; the more objects live, and the longer a collection takes for that, the
more it must have grown.

The C library gives each of the first threads a heap of its own, and keeps in every heap what was
freed below something that lives. The threads of long calls take turns, so one heap serves all.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import time
from collections.abc import Iterator
from contextlib import contextmanager

# Objects live through so many collections of the new ones before the idle time is used, and
# before Python may begin a full collection, which it does then at its usual growth.
DUE, OVERDUE = 10, 100
# Without a request for so long, the next one is not expected at once.
IDLE_SECONDS = 0.05
# While requests come, a collection is due to growth by so much where few objects live. With n times
# as many it takes n times as long, and needs n * n times the growth. How long the last one took
# says less: that grows with the garbage. The process looks at its memory so often.
GROWN_BYTES = 2 << 20
FEW_OBJECTS = 50_000
LOOK_SECONDS = 1.0
# malloc.h of the GNU C library. A fixed threshold: else the texts of the whole machine, once freed,
# raise it, and later ones come from the heap.
M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8
MAPPED_BYTES = 256 << 10


@contextmanager
def without_collections() -> Iterator[None]:
    """Collect nothing in the block, whose objects nearly all stay: it would only take time."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def keep_what_exists() -> None:
    """Never look at the objects of now again, and collect from here on."""
    gc.freeze()
    gc.enable()


def leave_to_idle_time() -> None:
    """Let Python begin full collections rarely, for a process that calls `collect`."""
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, OVERDUE)


def keep_one_heap() -> None:
    """Let all threads allocate from one heap, and map large texts apart from it."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)


def is_due() -> bool:
    """Return whether there may be something to collect."""
    return gc.get_count()[2] > DUE


def collect() -> None:
    """Collect everything, and give free memory back to the system."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def resident_bytes() -> int:
    """Return how much memory this process has."""
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * mmap.PAGESIZE


def living_objects() -> int:
    """Return how many objects a full collection looks at."""
    return len(gc.get_objects())


class Collector:
    """Collects in time: when the process is idle, or has grown although requests come."""

    def __init__(self) -> None:
        self._look_at = 0.0
        # Memory after the last collection, and by how much it has to grow for the next one.
        self._kept: int | None = None
        self._growth = GROWN_BYTES

    def is_urgent(self) -> bool:
        """Return whether the process has grown by so much that a collection is worth its time."""
        now = time.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + LOOK_SECONDS
        resident = resident_bytes()
        if self._kept is None:
            self._kept = resident
        return resident > self._kept + self._growth

    def collect(self) -> None:
        """Collect everything now."""
        collect()
        times = max(1.0, living_objects() / FEW_OBJECTS)
        self._growth = int(GROWN_BYTES * times * times)
        self._kept = resident_bytes()

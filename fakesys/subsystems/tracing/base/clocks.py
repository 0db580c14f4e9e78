"""The trace clocks, all derived from simulated time. Like kernel/trace/trace.c:trace_clocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from errno import EINVAL

from fakesys.core.clock import Clock
from fakesys.core.errors import KernelError

# A tick of the counter of the simulated CPU: 2.5 GHz.
TSC_NUMERATOR, TSC_DENOMINATOR = 5, 2
# International atomic time at the start of the machine, 2024-01-01 plus 37 leap seconds.
TAI_START_NS = (1_704_067_200 + 37) * 1_000_000_000
TICK_NS = 10_000_000

NAMES = (
    "local",
    "global",
    "counter",
    "uptime",
    "perf",
    "mono",
    "mono_raw",
    "boot",
    "tai",
    "x86-tsc",
)
# Clocks that do not count nanoseconds; `trace` prints their stamps as plain numbers.
NOT_NS = frozenset(("counter", "uptime", "x86-tsc"))


class Clocks:
    """The clocks by name.

    Two events never get the same stamp, although simulated time may not advance between them:
    readers merge the CPUs by stamp, and equal stamps would be shown in the order of the CPUs.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # The newest stamp that was given out, and how often `counter` was read.
        self.last_ns = -1
        self.events = 0
        self._read: Mapping[str, Callable[[], int]] = dict.fromkeys(NAMES, self._now) | {
            "counter": self._count,
            "uptime": self._ticks,
            "tai": self._tai,
            "x86-tsc": self._tsc,
        }

    def reader(self, name: str) -> Callable[[], int]:
        """Return the function that reads a clock. Raises EINVAL for an unknown name."""
        if name not in self._read:
            raise KernelError(EINVAL, f"{name!r} is no clock ({', '.join(NAMES)})")
        return self._read[name]

    def _now(self) -> int:
        now, last = self._clock.now_ns, self.last_ns
        self.last_ns = now = now if now > last else last + 1
        return now

    def _count(self) -> int:
        self.events += 1
        return self.events

    def _ticks(self) -> int:
        return self._clock.now_ns // TICK_NS

    def _tai(self) -> int:
        return self._now() + TAI_START_NS

    def _tsc(self) -> int:
        return self._now() * TSC_NUMERATOR // TSC_DENOMINATOR


def stamp_text(stamp: int, *, in_ns: bool) -> str:
    """Return a time stamp as `stats` prints it: seconds and microseconds, or a plain number."""
    if not in_ns:
        return str(stamp)
    micro = (stamp + 500) // 1000
    return f"{micro // 1_000_000:5}.{micro % 1_000_000:06}"

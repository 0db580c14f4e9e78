"""The trace clocks, all made from the simulated time. Like kernel/trace/trace.c:trace_clocks."""

from __future__ import annotations

import itertools
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
# Clocks that count something else than nanoseconds; `trace` prints them as plain numbers.
NOT_NS = frozenset(("counter", "uptime", "x86-tsc"))


class Clocks:
    """What each name reads."""

    def __init__(self, clock: Clock) -> None:
        counter = itertools.count(1)

        def now() -> int:
            return clock.now_ns

        self._read: Mapping[str, Callable[[], int]] = dict.fromkeys(NAMES, now) | {
            "counter": lambda: next(counter),
            "uptime": lambda: clock.now_ns // TICK_NS,
            "tai": lambda: clock.now_ns + TAI_START_NS,
            "x86-tsc": lambda: clock.now_ns * TSC_NUMERATOR // TSC_DENOMINATOR,
        }

    def reader(self, name: str) -> Callable[[], int]:
        """What reads this clock. Raises EINVAL."""
        if name not in self._read:
            raise KernelError(EINVAL, f"{name!r} is no clock ({', '.join(NAMES)})")
        return self._read[name]


def stamp_text(stamp: int, *, in_ns: bool) -> str:
    """A time stamp as `stats` prints it."""
    if not in_ns:
        return str(stamp)
    micro = (stamp + 500) // 1000
    return f"{micro // 1_000_000:5}.{micro % 1_000_000:06}"

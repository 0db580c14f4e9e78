"""What counters gain per second."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping


class Rates:
    """The last readings of counters, over at least `window` seconds as soon as there are so many.

    Times are those of the readings, not of the frames: a large machine is read less often.
    """

    def __init__(self, window: float) -> None:
        self._window = window
        self._readings: deque[tuple[float, Mapping[str, int]]] = deque()

    def note(self, at: float, counters: Mapping[str, int]) -> None:
        """Add a reading, unless it is the last one again."""
        if self._readings and self._readings[-1][0] >= at:
            return
        self._readings.append((at, counters))
        while len(self._readings) > 2 and at - self._readings[1][0] >= self._window:
            self._readings.popleft()

    @property
    def seconds(self) -> float:
        """The time between the readings that are compared."""
        return self._readings[-1][0] - self._readings[0][0] if self._readings else 0.0

    def of(self, name: str) -> float | None:
        """Return the gain per second; None before there are two readings.

        A reading has no counters that are 0. A counter that has become smaller is one of another
        VM of the same name: None too.
        """
        if self.seconds == 0.0:
            return None
        before, now = (self._readings[place][1].get(name, 0) for place in (0, -1))
        if now < before:
            return None
        return (now - before) / self.seconds

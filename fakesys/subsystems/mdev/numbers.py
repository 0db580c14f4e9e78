"""Numbers that are given out and taken back."""

from __future__ import annotations

import heapq
from collections.abc import Set


class Numbers:
    """A pool of numbers from 0, like an IDA (lib/idr.c, v6.1): the smallest free one is next."""

    def __init__(self) -> None:
        self._freed: list[int] = []
        self._next = 0

    def take(self) -> int:
        """Take the smallest free number."""
        if self._freed:
            return heapq.heappop(self._freed)
        self._next += 1
        return self._next - 1

    def give_back(self, number: int) -> None:
        """Free a number that was taken."""
        heapq.heappush(self._freed, number)

    @property
    def end(self) -> int:
        """The number above all that were ever taken."""
        return self._next

    def restore(self, end: int, taken: Set[int]) -> None:
        """Have these numbers taken, and all others below `end` freed."""
        self._next = end
        self._freed = [number for number in range(end) if number not in taken]

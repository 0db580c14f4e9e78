"""Queues in the order in which something happened to them, as rows of one adapter each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class QueueRow(NamedTuple):
    """Queues of one adapter that followed each other by ascending domain."""

    apid: int
    mask: int


class QueueOrder:
    """Queues in order, each at most once; like a klist of the driver core (lib/klist.c, v6.1).

    order = QueueOrder()
    order.append(4, 0b11)
    order.append(5, 0b01)
    order.remove(4, 0b01)
    order.rows()    # [QueueRow(4, 0b10), QueueRow(5, 0b01)]
    """

    def __init__(self, rows: Iterable[tuple[int, int]] = ()) -> None:
        self._next = 0
        self._rows: dict[int, QueueRow] = {}
        # The numbers of the rows of each adapter.
        self._of: dict[int, list[int]] = {}
        for apid, mask in rows:
            self.append(apid, mask)

    def append(self, apid: int, mask: int) -> None:
        """Put queues at the end. Precondition: none of them is in the order."""
        if not mask:
            return
        self._rows[self._next] = QueueRow(apid, mask)
        self._of.setdefault(apid, []).append(self._next)
        self._next += 1

    def remove(self, apid: int, mask: int) -> None:
        """Take queues out; those that are not in the order do not matter."""
        left = []
        for number in self._of.get(apid, ()):
            kept = self._rows[number].mask & ~mask
            if kept:
                self._rows[number] = QueueRow(apid, kept)
                left.append(number)
            else:
                del self._rows[number]
        self._of[apid] = left

    def rows(self) -> list[QueueRow]:
        """Return all queues, first ones first."""
        return list(self._rows.values())

    def rows_of(self, apid: int) -> Sequence[QueueRow]:
        """Return the queues of one adapter, first ones first."""
        return [self._rows[number] for number in self._of.get(apid, ())]

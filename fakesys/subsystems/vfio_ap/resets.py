"""Resets of the queues that are bound to vfio_ap, and the answers that were not normal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fakesys.subsystems.ap_bus.hardware import Hardware
from fakesys.subsystems.ap_bus.queues.answers import NORMAL
from fakesys.subsystems.vfio_ap.assignments import Assignments


class QueueResets:
    """Resets queues and knows which of them answered their last reset badly.

    `bound`: the driver's domains per adapter. A failed reset never stops an operation.
    """

    def __init__(
        self, hardware: Hardware, bound: Sequence[int], assignments: Assignments[Any]
    ) -> None:
        self._hardware = hardware
        self._bound = bound
        self._assignments = assignments
        # Answer other than NORMAL -> mask of domains per adapter.
        self._bad: dict[int, list[int]] = {}

    def reset(self, queues: Mapping[int, int]) -> None:
        """Reset those of these queues (adapter -> domains) that are bound."""
        for apid, wanted in queues.items():
            mask = wanted & self._bound[apid]
            if mask:
                self.reset_row(apid, mask)

    def reset_row(self, apid: int, mask: int) -> None:
        """Reset queues of one adapter, which turns their interrupts off.

        Like vfio_ap_ops.c:vfio_ap_mdev_reset_queue (v6.1).
        """
        answers = self._hardware.zeroize(apid, mask)
        for rc in answers:
            if rc != NORMAL:
                self._bad.setdefault(rc, [0] * 256)
        for rc, rows in self._bad.items():
            rows[apid] = rows[apid] & ~mask | answers.get(rc, 0)
        for holder in self._assignments.holders_of(apid, mask):
            holder.forget_interrupts(apid, mask)

    def forget(self, apid: int, mask: int) -> None:
        """Forget the answers of queues that leave the driver."""
        for rows in self._bad.values():
            rows[apid] &= ~mask

    def passable(self, bad_answers: Collection[int]) -> Sequence[int]:
        """Return the bound domains per adapter whose last reset has none of these answers."""
        rows = [self._bad[rc] for rc in bad_answers if rc in self._bad]
        if not rows:
            return self._bound
        return [bound & ~_union(rows, apid) for apid, bound in enumerate(self._bound)]

    @property
    def bad(self) -> Mapping[int, Sequence[int]]:
        """The answers other than the normal one that were seen, with the domains per adapter."""
        return self._bad

    def restore(self, bad: Mapping[int, Mapping[int, int]]) -> None:
        """Know these bad answers: answer -> adapter -> mask of domains."""
        self._bad = {rc: [rows.get(apid, 0) for apid in range(256)] for rc, rows in bad.items()}

    def state(self) -> dict[str, Any]:
        """Return the bad answers as plain data: answer -> adapter -> mask."""
        return {
            f"{rc:02x}": {f"{apid:02x}": hex(mask) for apid, mask in enumerate(rows) if mask}
            for rc, rows in sorted(self._bad.items())
        }


def _union(rows: Sequence[Sequence[int]], apid: int) -> int:
    mask = 0
    for row in rows:
        mask |= row[apid]
    return mask

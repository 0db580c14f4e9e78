"""Which mediated device holds which APQN: the one table that driver and devices share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from fakesys.core.text import ALL_IDS, ids
from fakesys.subsystems.ap_bus.apqn import Apqn
from fakesys.subsystems.vfio_ap.policy import NOTHING, Masks


class Holder(Protocol):
    """What the table needs of a mediated device. Only the table writes `matrix`."""

    matrix: Masks

    @property
    def uuid(self) -> str:
        """Its name."""

    def forget_interrupts(self, apid: int, mask: int) -> None:
        """Forget the interrupts of queues that were reset."""


H = TypeVar("H", bound=Holder)


class Assignments(Generic[H]):
    """The mediated devices and the queues of their matrices.

    `holders`: the devices by UUID, oldest first. No queue is in two matrices; a caller of `give`
    makes sure of that by `sharer`. Control domains are in no table: devices may share them.
    """

    def __init__(self) -> None:
        self.holders: dict[str, H] = {}
        # Mask of domains per adapter: the union of all matrices.
        self._assigned = [0] * 256

    def add(self, holder: H) -> None:
        """Add a device whose matrix is empty."""
        self.holders[holder.uuid] = holder

    def remove(self, holder: H) -> None:
        """Remove a device and free its queues."""
        self.give(holder, NOTHING)
        del self.holders[holder.uuid]

    def give(self, holder: H, new: Masks) -> None:
        """Replace the matrix of a device.

        Precondition: the new queues belong neither to the host nor to another device.
        """
        old = holder.matrix
        for apid in ids(old.apm | new.apm):
            self._assigned[apid] = self._assigned[apid] & ~old.row(apid) | new.row(apid)
        holder.matrix = new

    def sharer(self, masks: Masks, own: H | None = None) -> H | None:
        """Return another device than `own` that has a queue of these masks; None without one.

        Of several it is the newest, as new devices are put at the head of the kernel's list. Like
        vfio_ap_ops.c:vfio_ap_mdev_verify_no_sharing (v6.1).
        """
        mine = own.matrix if own else NOTHING
        for apid in ids(masks.apm):
            others = self._assigned[apid] & (ALL_IDS & ~mine.row(apid))
            if others & masks.aqm:
                return self._newest_with(masks, own)
        return None

    def is_assigned(self, apqn: Apqn) -> bool:
        """Return whether a queue is in a matrix."""
        return bool(self._assigned[apqn.apid] >> apqn.apqi & 1)

    def holders_of(self, apid: int, mask: int) -> list[H]:
        """Return the devices that have any of these domains of an adapter, oldest first."""
        if not self._assigned[apid] & mask:
            return []
        return [holder for holder in self.holders.values() if holder.matrix.row(apid) & mask]

    def _newest_with(self, masks: Masks, own: H | None) -> H:
        return next(
            holder
            for holder in reversed(self.holders.values())
            if holder is not own and holder.matrix.apm & masks.apm and holder.matrix.aqm & masks.aqm
        )


def common_queues(one: Masks, other: Masks) -> Iterator[Apqn]:
    """Yield the queues that are in both matrices, ascending."""
    for apid in ids(one.apm & other.apm):
        for apqi in ids(one.aqm & other.aqm):
            yield Apqn(apid, apqi)

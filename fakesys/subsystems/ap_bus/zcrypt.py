"""The module behind `cex4queue`: the host's own use of queues. It never refuses a mask change."""

from __future__ import annotations

from collections.abc import Mapping

from fakesys.subsystems.ap_bus.card import ApCard
from fakesys.subsystems.ap_bus.hardware import Lpar


class Zcrypt:
    """The host's module: queues are online when probed; requests fail when a queue leaves."""

    def __init__(self, cards: Mapping[int, ApCard]) -> None:
        self._cards = cards

    def in_use(self, apmask: int, aqmask: int) -> bool:
        """Return False: the host's drivers have no such callback."""
        return False

    def queues_bound(self, apid: int, mask: int) -> None:
        """Set the queues online and initiate them.

        Like zcrypt_cex4.c:zcrypt_cex4_queue_probe (v6.1).
        """
        card = self._cards[apid]
        card.offline &= ~mask
        card.start(mask)

    def queues_leaving(self, apid: int, mask: int) -> None:
        """End pending requests with EAGAIN."""
        self._cards[apid].flush(mask)

    def config_changed(self, new: Lpar, old: Lpar) -> None:
        """Do nothing: the scan makes and removes the devices."""

    def scan_complete(self, new: Lpar, old: Lpar) -> None:
        """Do nothing."""

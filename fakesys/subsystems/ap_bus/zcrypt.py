"""The module behind `cex4queue`: the host's own use of queues. It never objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fakesys.subsystems.ap_bus.hardware import Lpar

if TYPE_CHECKING:
    from fakesys.subsystems.ap_bus.bus import ApBus


class Zcrypt:
    """Queues of the host: online when probed, their requests end when they leave."""

    def __init__(self, bus: ApBus) -> None:
        self._bus = bus

    def in_use(self, apmask: int, aqmask: int) -> bool:
        """The host's drivers have no such callback."""
        return False

    def queues_bound(self, apid: int, mask: int) -> None:
        """Like zcrypt_cex4.c:zcrypt_cex4_queue_probe (v6.1): each begins online."""
        card = self._bus.cards[apid]
        card.offline &= ~mask
        card.start(mask)

    def queues_leaving(self, apid: int, mask: int) -> None:
        """Pending requests end with EAGAIN."""
        self._bus.cards[apid].flush(mask)

    def config_changed(self, new: Lpar, old: Lpar) -> None:
        """Nothing to do: the devices follow in the scan."""

    def scan_complete(self, new: Lpar, old: Lpar) -> None:
        """Nothing to do."""

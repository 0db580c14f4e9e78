"""The drivers of the AP bus: which queues each has, and what it wants to be told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from fakesys.core.text import format_mask
from fakesys.subsystems.ap_bus.hardware import Lpar

if TYPE_CHECKING:
    from fakesys.subsystems.ap_bus.bus import ApBus


class QueueOwner(Protocol):
    """The module behind a queue driver. Masks are domains of one adapter."""

    def in_use(self, apmask: int, aqmask: int) -> bool:
        """Does it object to the host taking all these adapters' queues in these domains?"""

    def queues_bound(self, apid: int, mask: int) -> None:
        """Its probe: these queues are bound from now on."""

    def queues_leaving(self, apid: int, mask: int) -> None:
        """Its remove: these queues, still bound, are about to be taken away."""

    def config_changed(self, new: Lpar, old: Lpar) -> None:
        """A scan begins and finds other masks of the machine."""

    def scan_complete(self, new: Lpar, old: Lpar) -> None:
        """That scan ends: all new queues are bound."""


class CardDriver:
    """The driver of cards of type CEX4 and newer: `cex4card`."""

    name = "cex4card"
    module = "zcrypt_cex4"

    def __init__(self, bus: ApBus) -> None:
        self.bus = bus
        self.bound = 0


class QueueDriver:
    """A driver of queues of type CEX4 and newer.

    `takes_host_queues`: those that both masks give to the host (AP_DRIVER_FLAG_DEFAULT); else
    the others. `bound`: mask of domains per adapter.
    """

    def __init__(
        self, bus: ApBus, name: str, module: str, owner: QueueOwner, *, takes_host_queues: bool
    ) -> None:
        self.bus = bus
        self.name = name
        self.module = module
        self.owner = owner
        self.takes_host_queues = takes_host_queues
        self.bound = [0] * 256

    def fits(self, host_row: int) -> int:
        """The domains whose queues this driver may take; `host_row`: those of the host."""
        return host_row if self.takes_host_queues else ~host_row

    def state(self) -> dict[str, str]:
        """The queues that it has, by adapter."""
        rows = enumerate(self.bound)
        return {f"{apid:02x}": format_mask(mask) for apid, mask in rows if mask}

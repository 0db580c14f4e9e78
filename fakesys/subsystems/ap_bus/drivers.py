"""The drivers of the AP bus: which devices each has, and the module behind it."""

from __future__ import annotations

from typing import Protocol

from fakesys.core.devices import Devices
from fakesys.core.text import format_mask
from fakesys.subsystems.ap_bus.hardware import Lpar
from fakesys.subsystems.ap_bus.policy import CEX4
from fakesys.subsystems.ap_bus.queues.order import QueueOrder

# Cards and queues of older types have no driver here.
OLDEST_TYPE_WITH_DRIVER = CEX4
ZCRYPT_MODULE = "zcrypt_cex4"
HOST_QUEUE_DRIVER = "cex4queue"


class QueueOwner(Protocol):
    """The module behind a queue driver. Masks are domains of one adapter."""

    def in_use(self, apmask: int, aqmask: int) -> bool:
        """Return whether the module refuses to give these adapters' domains to the host."""

    def queues_bound(self, apid: int, mask: int) -> None:
        """Probe: take over queues that were just bound."""

    def queues_leaving(self, apid: int, mask: int) -> None:
        """Remove: give up queues, which are bound until this returns."""

    def facilities_changed(self) -> None:
        """React to other facilities of the machine, as if it had been booted with them."""

    def config_changed(self, new: Lpar, old: Lpar) -> None:
        """React to other masks of the machine, at the beginning of a scan."""

    def scan_complete(self, new: Lpar, old: Lpar) -> None:
        """React to other masks of the machine, at the end of a scan: new queues are bound."""


class DriverBus(Protocol):
    """What the files of a driver need of its bus."""

    @property
    def devices(self) -> Devices:
        """The driver core, which sends uevents."""

    def bind(self, driver: CardDriver | QueueDriver, name: str) -> None:
        """Bind a device by its name. Raises ENODEV, EBUSY."""

    def unbind(self, driver: CardDriver | QueueDriver, name: str) -> None:
        """Take a device, by its name, from the driver. Raises ENODEV."""


class CardDriver:
    """The driver of cards of type CEX4 and newer. `order`: its cards, in the order of binding.

    `registered`: whether its module is loaded.
    """

    name = "cex4card"
    module = ZCRYPT_MODULE

    def __init__(self, bus: DriverBus) -> None:
        self.bus = bus
        self.registered = True
        self.order: list[int] = []

    @property
    def bound(self) -> int:
        """Its cards, as a mask of adapters."""
        mask = 0
        for apid in self.order:
            mask |= 1 << apid
        return mask


class QueueDriver:
    """A driver of queues of type CEX4 and newer.

    `takes_host_queues`: it takes the queues that both masks give to the host
    (AP_DRIVER_FLAG_DEFAULT); otherwise all others. `bound`: mask of domains per adapter. `order`:
    the same queues in the order of binding.
    """

    def __init__(
        self,
        bus: DriverBus,
        name: str,
        module: str,
        owner: QueueOwner,
        *,
        takes_host_queues: bool,
    ) -> None:
        self.bus = bus
        self.name = name
        self.module = module
        self.owner = owner
        self.takes_host_queues = takes_host_queues
        self.bound = [0] * 256
        self.order = QueueOrder()

    def take(self, apid: int, mask: int) -> None:
        """Have these queues. Precondition: no driver has one of them."""
        self.bound[apid] |= mask
        self.order.append(apid, mask)

    def drop(self, apid: int, mask: int) -> None:
        """Have these queues no longer."""
        self.bound[apid] &= ~mask
        self.order.remove(apid, mask)

    def fits(self, host_domains: int) -> int:
        """Return the domains of an adapter whose queues this driver may take.

        `host_domains`: those that the masks give to the host. The result may exceed 256 bits.
        """
        return host_domains if self.takes_host_queues else ~host_domains

    def has(self, apid: int, apqi: int) -> bool:
        """Return whether a queue is bound to this driver."""
        return bool(self.bound[apid] >> apqi & 1)

    def state(self) -> dict[str, str]:
        """Return the bound queues as plain data: adapter -> mask of domains."""
        rows = enumerate(self.bound)
        return {f"{apid:02x}": format_mask(mask) for apid, mask in rows if mask}

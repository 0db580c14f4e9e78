"""What the module vfio_ap and its mediated devices share. Knows neither of them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from fakesys.core.kernel import Kernel
from fakesys.subsystems.ap_bus.hardware import Hardware
from fakesys.subsystems.ap_bus.state import BusState
from fakesys.subsystems.vfio_ap.policy import Filtering, FilterName, Masks, VfioApPolicy


class RemovePolicy(StrEnum):
    """What `remove` of a device with a guest does: refuse, wait, or detach the guest."""

    EBUSY = "ebusy"
    BLOCK = "block"
    REQUEST = "request"


class VfioApState:
    """Policy, settings and views of the AP bus, like struct ap_matrix_dev (v6.1).

    `bound`: the domains per adapter that the driver vfio_ap has. `attached`: the UUIDs of the
    mediated devices that are open for a guest, in the order in which they were opened.
    """

    def __init__(
        self, kernel: Kernel, bus: BusState, policy: VfioApPolicy, bound: Sequence[int]
    ) -> None:
        self.kernel = kernel
        self.bus = bus
        self.policy = policy
        self.bound = bound
        self.filter = FilterName.ADAPTER
        self.remove_policy = RemovePolicy.EBUSY
        self.attached: list[str] = []

    @property
    def hardware(self) -> Hardware:
        """The hardware that queues are reset on."""
        return self.bus.hardware

    @property
    def filtering(self) -> Filtering:
        """The way in which the guest's part of a matrix is found."""
        return self.policy.filters[self.filter]

    @property
    def lpar(self) -> Masks:
        """The machine's masks as of the last scan."""
        lpar = self.bus.lpar
        return Masks(lpar.adapters, lpar.domains, lpar.control_domains)

"""What the module vfio_ap and its mediated devices share. Knows neither of them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from fakesys.core.kernel import Kernel
from fakesys.subsystems.ap_bus.hardware import Hardware, Lpar
from fakesys.subsystems.ap_bus.state import BusState
from fakesys.subsystems.vfio_ap.messages import VfioApMessages
from fakesys.subsystems.vfio_ap.policy import NOTHING, Filtering, FilterName, Masks, VfioApPolicy


class RemovePolicy(StrEnum):
    """What `remove` of a device with a guest does: refuse, wait, or detach the guest."""

    EBUSY = "ebusy"
    BLOCK = "block"
    REQUEST = "request"


class VfioApState:
    """Policy, settings and views of the AP bus, like struct ap_matrix_dev (v6.1).

    `bound`: the domains per adapter that the driver vfio_ap has. `attached`: the UUIDs of the
    mediated devices that are open for a guest, in the order in which they were opened. `messages`:
    what the module says in `debug/s390dbf`.
    """

    def __init__(
        self,
        kernel: Kernel,
        bus: BusState,
        policy: VfioApPolicy,
        bound: Sequence[int],
        messages: VfioApMessages,
    ) -> None:
        self.kernel = kernel
        self.messages = messages
        self.bus = bus
        self.policy = policy
        self.bound = bound
        self.filter = FilterName.ADAPTER
        # What a user chose; None: what the kernel does.
        self.chosen_policy: RemovePolicy | None = None
        self.attached: list[str] = []
        # What PQAP(QCI) answered last: when the module was loaded, or when its masks changed.
        self.info = NOTHING

    @property
    def hardware(self) -> Hardware:
        """The hardware that queues are reset on."""
        return self.bus.hardware

    @property
    def filtering(self) -> Filtering:
        """The way in which the guest's part of a matrix is found."""
        return self.policy.filters[self.filter]

    @property
    def remove_policy(self) -> RemovePolicy:
        """What happens at the removal of a device that is in use."""
        return self.chosen_policy or RemovePolicy(self.policy.in_use)

    @property
    def lpar(self) -> Masks:
        """The machine's masks as the module knows them."""
        return self.info if self.policy.follows_machine else masks_of(self.bus.lpar)

    def query(self) -> None:
        """Ask the machine for its masks, at the load of the module; without PQAP(QCI) it has none.

        Like vfio_ap_drv.c:vfio_ap_matrix_dev_create (v6.1).
        """
        self.info = masks_of(self.hardware.lpar) if self.hardware.qci else NOTHING


def masks_of(lpar: Lpar) -> Masks:
    """Return the machine's masks."""
    return Masks(lpar.adapters, lpar.domains, lpar.control_domains)

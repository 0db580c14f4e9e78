"""One mediated device: what is assigned, what of it the guest gets, and how both change."""

from __future__ import annotations

from errno import EADDRINUSE, EADDRNOTAVAIL, EFAULT, ENODEV
from typing import TYPE_CHECKING, Any

from fakesys.core.errors import KernelError
from fakesys.core.events import Touched
from fakesys.core.text import format_mask, ids
from fakesys.core.waiters import Waiters
from fakesys.subsystems.ap_bus.apqn import Apqn
from fakesys.subsystems.vfio_ap.guest import LAST_ISC, Guest
from fakesys.subsystems.vfio_ap.policy import NOTHING, Masks

if TYPE_CHECKING:
    from fakesys.subsystems.mdev.model import Mdev
    from fakesys.subsystems.vfio_ap.driver import VfioAp


class MatrixMdev:
    """A matrix of adapters and domains. `matrix`: assigned; `guest_masks`: the guest's share."""

    def __init__(self, module: VfioAp, mdev: Mdev) -> None:
        self._module = module
        self.mdev = mdev
        self.matrix = NOTHING
        self.guest_masks = NOTHING
        self.guest: Guest | None = None
        # Woken when the guest lets go.
        self.released = Waiters()
        self.max_apid = module.hardware.max_adapter_id
        self.max_apqi = module.hardware.max_domain_id
        self.interrupts: dict[Apqn, int] = {}

    @property
    def uuid(self) -> str:
        """Its name."""
        return self.mdev.uuid

    @property
    def visible_guest_masks(self) -> Masks:
        """The guest's share. Raises ENODEV unless a guest with AP instructions is attached."""
        if self.guest is None or not self.guest.ap:
            raise KernelError(ENODEV, f"{self.uuid} has no guest with AP instructions")
        return self.guest_masks

    def assign_adapter(self, apid: int) -> None:
        """Raises ENODEV, EADDRNOTAVAIL, EADDRINUSE. Like vfio_ap_ops.c:assign_adapter_store."""
        self._check_id(apid, self.max_apid)
        self._assign(self.matrix._replace(apm=self.matrix.apm | 1 << apid))

    def assign_domain(self, apqi: int) -> None:
        """Raises ENODEV, EADDRNOTAVAIL, EADDRINUSE. Like vfio_ap_ops.c:assign_domain_store."""
        self._check_id(apqi, self.max_apqi)
        self._assign(self.matrix._replace(aqm=self.matrix.aqm | 1 << apqi))

    def unassign_adapter(self, apid: int) -> None:
        """Raises ENODEV. Like vfio_ap_ops.c:unassign_adapter_store (v6.1)."""
        self._check_id(apid, self.max_apid)
        if self.matrix.apm >> apid & 1:
            self._unassign(Masks(1 << apid, 0, 0))

    def unassign_domain(self, apqi: int) -> None:
        """Raises ENODEV. Like vfio_ap_ops.c:unassign_domain_store (v6.1)."""
        self._check_id(apqi, self.max_apqi)
        if self.matrix.aqm >> apqi & 1:
            self._unassign(Masks(0, 1 << apqi, 0))

    def assign_control_domain(self, domain: int) -> None:
        """Raises ENODEV. Like vfio_ap_ops.c:assign_control_domain_store (v6.1)."""
        self._check_id(domain, self.max_apqi)
        bit = 1 << domain
        if self.matrix.adm & bit:
            return
        self._set_matrix(self.matrix._replace(adm=self.matrix.adm | bit))
        if not self._module.policy.follows_machine or self._module.host.adm & bit:
            self.guest_masks = self.guest_masks._replace(adm=self.guest_masks.adm | bit)

    def unassign_control_domain(self, domain: int) -> None:
        """Raises ENODEV. Like vfio_ap_ops.c:unassign_control_domain_store (v6.1)."""
        self._check_id(domain, self.max_apqi)
        if self.matrix.adm >> domain & 1:
            self._unassign(Masks(0, 0, 1 << domain))

    def configure(self, new: Masks) -> None:
        """Assign exactly this. Raises EADDRNOTAVAIL, EADDRINUSE, ENODEV in this order.

        Like vfio_ap_ops.c:ap_config_store (v6.12).
        """
        self._refuse_taken(new)
        if new.apm >> (self.max_apid + 1) or (new.aqm | new.adm) >> (self.max_apqi + 1):
            raise KernelError(ENODEV, "an ID is above the maximum of this device")
        old = self.matrix
        self._unassign(Masks(old.apm & ~new.apm, old.aqm & ~new.aqm, old.adm & ~new.adm))
        self._set_matrix(new)
        self.refilter()

    def refilter(self) -> None:
        """What the guest gets follows from what is assigned, bound and the machine's."""
        module = self._module
        before = self.guest_masks
        self.guest_masks = module.filtering.run(self.matrix, before, module.host, module.passable())
        dropped = before.apm & self.matrix.apm & ~self.guest_masks.apm
        if module.policy.resets_filtered and dropped:
            module.reset(self._queues(Masks(dropped, self.matrix.aqm, 0)))

    def plug(self, apid: int, mask: int) -> None:
        """Queues of the matrix were bound."""
        module = self._module
        now = module.filtering.plug(self.matrix, self.guest_masks, apid, mask, module.driver.bound)
        if now is None:
            self.refilter()
        else:
            self.guest_masks = now

    def unplug_adapter(self, apid: int) -> None:
        """An adapter leaves the guest because one of its queues does."""
        self.guest_masks = self.guest_masks._replace(apm=self.guest_masks.apm & ~(1 << apid))

    def unplug(self, gone: Masks) -> None:
        """What the machine took away leaves the guest."""
        now = self.guest_masks
        self.guest_masks = Masks(now.apm & ~gone.apm, now.aqm & ~gone.aqm, now.adm & ~gone.adm)

    def open(self, guest: Guest) -> None:
        """A guest attaches."""
        self.guest = guest
        self._module.attached[self.uuid] = self
        if self._module.policy.guest_decides:
            self.refilter()

    def close(self) -> None:
        """The guest detaches; every queue is reset."""
        self.guest = None
        del self._module.attached[self.uuid]
        self._module.reset(self._queues(self.matrix))
        self.interrupts.clear()
        self.released.wake()

    def reset(self) -> None:
        """All bound queues of the matrix are reset."""
        self._module.reset(self._queues(self.matrix))

    def enable_interrupts(self, apqn: Apqn, isc: int) -> None:
        """Raises ENODEV for answer 01, EFAULT for 06 and 08. Like vfio_ap_ops.c:handle_pqap."""
        self._own_queue(apqn)
        if not 0 <= isc <= LAST_ISC:
            answer = self._module.policy.isc_failure
            raise KernelError(EFAULT, f"answer {answer:02x}: there is no subclass {isc}")
        self.interrupts[apqn] = isc
        self._module.hardware.set_irq(apqn.apid, 1 << apqn.apqi, on=True)

    def disable_interrupts(self, apqn: Apqn) -> None:
        """Raises ENODEV for answer 01."""
        self._own_queue(apqn)
        self.interrupts.pop(apqn, None)
        self._module.hardware.set_irq(apqn.apid, 1 << apqn.apqi, on=False)

    def forget_interrupts(self, apid: int, mask: int) -> None:
        """These queues were reset."""
        if self.interrupts:
            for apqn in [q for q in self.interrupts if q.apid == apid and mask >> q.apqi & 1]:
                del self.interrupts[apqn]

    def state(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "guest": self.guest.name if self.guest else None,
            "guest_masks": [format_mask(mask) for mask in self.guest_masks],
            "interrupts": {str(apqn): self.interrupts[apqn] for apqn in sorted(self.interrupts)},
            "matrix": [format_mask(mask) for mask in self.matrix],
            "max_apid": self.max_apid,
            "max_apqi": self.max_apqi,
        }

    def _check_id(self, number: int, highest: int) -> None:
        if number > highest:
            raise KernelError(ENODEV, f"{number} is above the maximum of {highest}")

    def _assign(self, new: Masks) -> None:
        if new == self.matrix and not self._module.policy.repeats_assign:
            return
        self._refuse_taken(new)
        self._set_matrix(new)
        self.refilter()

    def _refuse_taken(self, new: Masks) -> None:
        for apid in ids(new.apm):
            host = self._module.bus.owned_by_host(apid, new.aqm)
            if host:
                taken = Apqn(apid, ids(host)[0])
                raise KernelError(EADDRNOTAVAIL, f"{taken} is the host's by apmask and aqmask")
        other = self._module.sharer(new, self)
        if other is not None:
            self._module.log_sharing(self, new, other)
            raise KernelError(EADDRINUSE, f"{other.uuid} has queues of the new matrix")

    def _unassign(self, gone: Masks) -> None:
        old = self.guest_masks
        lost = self._queues(Masks(old.apm & gone.apm, old.aqm, 0))
        lost = _joined(lost, self._queues(Masks(old.apm, old.aqm & gone.aqm, 0)))
        now = self.matrix
        self._set_matrix(Masks(now.apm & ~gone.apm, now.aqm & ~gone.aqm, now.adm & ~gone.adm))
        self.unplug(gone)
        if self._module.policy.resets_unassigned:
            self._module.reset(lost)
        self._forget_lost_interrupts()

    def _forget_lost_interrupts(self) -> None:
        for apqn in [q for q in self.interrupts if not self.matrix.has(*q)]:
            del self.interrupts[apqn]

    def _set_matrix(self, new: Masks) -> None:
        self._module.give(self.matrix, new)
        self.matrix = new
        self._module.kernel.bus.emit(Touched(self.mdev, ("matrix", "control_domains")))

    def _queues(self, masks: Masks) -> dict[int, int]:
        return dict.fromkeys(ids(masks.apm), masks.aqm) if masks.aqm else {}

    def _own_queue(self, apqn: Apqn) -> None:
        bound = self._module.driver.bound[apqn.apid] >> apqn.apqi & 1
        if not self.matrix.has(*apqn) or not bound:
            raise KernelError(ENODEV, f"answer 01: {apqn} is not a bound queue of {self.uuid}")


def _joined(one: dict[int, int], other: dict[int, int]) -> dict[int, int]:
    return {apid: one.get(apid, 0) | other.get(apid, 0) for apid in {**one, **other}}

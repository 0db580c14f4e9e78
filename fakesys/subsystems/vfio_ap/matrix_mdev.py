"""One mediated device: what is assigned to it, what of that the guest gets, how both change.

Like struct ap_matrix_mdev and its attributes in vfio_ap_ops.c (v6.1).
"""

from __future__ import annotations

from errno import EADDRINUSE, EADDRNOTAVAIL, EBUSY, EFAULT, EIO, ENODEV
from typing import Any

from fakesys.core.errors import KernelError
from fakesys.core.text import format_mask, ids
from fakesys.subsystems.ap_bus.apqn import Apqn
from fakesys.subsystems.ap_bus.queues.answers import NORMAL, NOT_AVAILABLE
from fakesys.subsystems.mdev.device import Mdev
from fakesys.subsystems.vfio_ap.assignments import Assignments, common_queues
from fakesys.subsystems.vfio_ap.guest import LAST_ISC, Guest
from fakesys.subsystems.vfio_ap.policy import NOTHING, Masks
from fakesys.subsystems.vfio_ap.resets import QueueResets
from fakesys.subsystems.vfio_ap.state import VfioApState


class MatrixMdev:
    """A matrix of adapters and domains that a guest may use.

    `matrix`: what is assigned, written by `Assignments` only. `guest_masks`: what a guest gets of
    it. `guest`: the one that the device is open for. `max_apid`, `max_apqi`: the machine's maxima
    when the device was created.
    `interrupts`: queue -> interruption subclass (ISC), where the guest turned interrupts on.
    """

    def __init__(
        self,
        mdev: Mdev,
        module: VfioApState,
        assignments: Assignments[MatrixMdev],
        resets: QueueResets,
    ) -> None:
        self.mdev = mdev
        self._module = module
        self._assignments = assignments
        self._resets = resets
        self.matrix = NOTHING
        self.guest_masks = NOTHING
        self.guest: Guest | None = None
        self.max_apid = module.hardware.highest_adapter
        self.max_apqi = module.hardware.highest_domain
        self.interrupts: dict[Apqn, int] = {}

    @property
    def uuid(self) -> str:
        """Its name."""
        return self.mdev.uuid

    @property
    def visible_guest_masks(self) -> Masks:
        """What the guest gets. Raises ENODEV unless one with AP instructions is attached."""
        if self.guest is None or not self.guest.ap:
            raise KernelError(ENODEV, f"{self.uuid} has no guest with AP instructions")
        return self.guest_masks

    def require_no_guest(self) -> None:
        """Refuse while a guest has the device, with AP instructions or not. Raises EBUSY."""
        if self.guest is not None:
            raise KernelError(EBUSY, f"{self.uuid} is open for {self.guest.name}")

    def assign_adapter(self, apid: int) -> None:
        """Assign an adapter with all assigned domains.

        Raises ENODEV above the maximum, EADDRNOTAVAIL when a new queue cannot be assigned,
        EADDRINUSE when another device has one of the new matrix. Like
        vfio_ap_ops.c:assign_adapter_store (v6.1).
        """
        self._check_id(apid, self.max_apid)
        self._assign(Masks(1 << apid, self.matrix.aqm, 0))

    def assign_domain(self, apqi: int) -> None:
        """Assign a domain with all assigned adapters; otherwise like `assign_adapter`.

        Like vfio_ap_ops.c:assign_domain_store (v6.1).
        """
        self._check_id(apqi, self.max_apqi)
        self._assign(Masks(self.matrix.apm, 1 << apqi, 0))

    def unassign_adapter(self, apid: int) -> None:
        """Unassign an adapter, also from a running guest. Raises ENODEV above the maximum.

        Like vfio_ap_ops.c:unassign_adapter_store (v6.1).
        """
        self._check_id(apid, self.max_apid)
        if self.matrix.apm >> apid & 1:
            self._unassign(Masks(1 << apid, 0, 0))

    def unassign_domain(self, apqi: int) -> None:
        """Unassign a domain, also from a running guest. Raises ENODEV above the maximum.

        Like vfio_ap_ops.c:unassign_domain_store (v6.1).
        """
        self._check_id(apqi, self.max_apqi)
        if self.matrix.aqm >> apqi & 1:
            self._unassign(Masks(0, 1 << apqi, 0))

    def assign_control_domain(self, domain: int) -> None:
        """Assign a control domain, which other devices may have, too. Raises ENODEV.

        Like vfio_ap_ops.c:assign_control_domain_store (v6.1).
        """
        self._check_id(domain, self.max_apqi)
        bit = 1 << domain
        if self.matrix.adm & bit:
            return
        self._set_matrix(self.matrix._replace(adm=self.matrix.adm | bit))
        policy = self._module.policy
        if not policy.following.matrix:
            return
        if not policy.follows_machine or self._module.lpar.adm & bit:
            self.guest_masks = self.guest_masks._replace(adm=self.guest_masks.adm | bit)

    def unassign_control_domain(self, domain: int) -> None:
        """Unassign a control domain. Raises ENODEV above the maximum.

        Like vfio_ap_ops.c:unassign_control_domain_store (v6.1).
        """
        self._check_id(domain, self.max_apqi)
        if self.matrix.adm >> domain & 1:
            self._unassign(Masks(0, 0, 1 << domain))

    def configure(self, new: Masks) -> None:
        """Replace the whole matrix. Raises EADDRNOTAVAIL, EADDRINUSE, ENODEV in this order.

        Like vfio_ap_ops.c:ap_config_store (v6.12).
        """
        self._refuse_taken(new, new)
        if new.apm >> (self.max_apid + 1) or (new.aqm | new.adm) >> (self.max_apqi + 1):
            raise KernelError(ENODEV, "an ID is above the maximum of this device")
        old = self.matrix
        self._unassign(Masks(old.apm & ~new.apm, old.aqm & ~new.aqm, old.adm & ~new.adm))
        self._set_matrix(new)
        self.refilter()

    def refilter(self) -> None:
        """Compute what the guest gets from what is assigned, bound and the machine's.

        Like vfio_ap_ops.c:vfio_ap_mdev_filter_matrix (v6.1).
        """
        module = self._module
        before = self.guest_masks
        bound = self._resets.passable(module.policy.bad_resets)
        now = module.filtering.run(self.matrix, before, module.lpar, bound)
        self.guest_masks = now
        dropped = before.apm & self.matrix.apm & module.lpar.apm & ~now.apm
        if module.policy.resets_filtered and dropped:
            self._resets.reset(_queues(Masks(dropped, now.aqm, 0)))

    def refilter_control_domains(self) -> None:
        """Give the guest the assigned control domains that the machine has.

        Like vfio_ap_ops.c:vfio_ap_mdev_filter_cdoms (v6.1).
        """
        adm = self.matrix.adm & self._module.lpar.adm
        self.guest_masks = self.guest_masks._replace(adm=adm)

    def plug(self, apid: int, mask: int) -> None:
        """Give the guest those queues of the matrix that were just bound, if the policy allows."""
        module = self._module
        now = module.filtering.plug(self.matrix, self.guest_masks, apid, mask, module.bound)
        if now is None:
            self.refilter()
        else:
            self.guest_masks = now

    def unplug_adapter(self, apid: int) -> None:
        """Take an adapter from the guest because one of its queues leaves."""
        self.guest_masks = self.guest_masks._replace(apm=self.guest_masks.apm & ~(1 << apid))

    def unplug(self, gone: Masks) -> None:
        """Take from the guest what the machine or the user took away."""
        now = self.guest_masks
        self.guest_masks = Masks(now.apm & ~gone.apm, now.aqm & ~gone.aqm, now.adm & ~gone.adm)

    def open(self, guest: Guest) -> None:
        """Open the device for a guest. Precondition: it is open for none."""
        self.guest = guest
        self._module.attached.append(self.uuid)
        if not self._module.policy.following.matrix:
            self.guest_masks = self.matrix
        elif self._module.policy.guest_decides:
            self.refilter()

    def close(self) -> None:
        """Close the device: reset every queue, and finish what waits for this."""
        self.guest = None
        if not self._module.policy.following.matrix:
            self.guest_masks = NOTHING
        self._module.attached.remove(self.uuid)
        self.reset()
        self.interrupts.clear()
        self.mdev.bus.let_go(self.mdev)

    def reset(self) -> None:
        """Reset the queues of the matrix."""
        self._resets.reset(_queues(self.matrix))

    def reset_for_user(self) -> None:
        """Reset the queues of the matrix by VFIO_DEVICE_RESET. Raises EBUSY, EIO, ENODEV."""
        self._resets.reset_for_user(_queues(self.matrix))

    def enable_interrupts(self, apqn: Apqn, isc: int) -> None:
        """Turn interrupts of a queue on, with an interruption subclass.

        Raises ENODEV for the answer 01, EFAULT for 06 and 08, EIO for the answers of a queue that
        does not work. Like vfio_ap_ops.c:handle_pqap, vfio_ap_irq_enable (v6.1).
        """
        self._own_queue(apqn)
        if not 0 <= isc <= LAST_ISC:
            answer = self._module.policy.isc_failure
            self._module.messages.isc_refused(apqn, isc)
            raise KernelError(EFAULT, f"answer {answer:02x}: there is no subclass {isc}")
        answer = next(iter(self._module.hardware.by_answer(apqn.apid, 1 << apqn.apqi)))
        if answer != NORMAL:
            self._refuse_interrupts(apqn, isc, answer)
        self.interrupts[apqn] = isc
        self._module.hardware.set_irq(apqn.apid, 1 << apqn.apqi, on=True)

    def disable_interrupts(self, apqn: Apqn) -> None:
        """Turn interrupts of a queue off. Raises ENODEV for the answer 01."""
        self._own_queue(apqn)
        self.interrupts.pop(apqn, None)
        self._module.hardware.set_irq(apqn.apid, 1 << apqn.apqi, on=False)

    def forget_interrupts(self, apid: int, mask: int) -> None:
        """Forget the interrupts of queues that were reset."""
        if self.interrupts:
            for apqn in [q for q in self.interrupts if q.apid == apid and mask >> q.apqi & 1]:
                del self.interrupts[apqn]

    def state(self) -> dict[str, Any]:
        """Return the device as plain data."""
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

    def _assign(self, added: Masks) -> None:
        """Assign an adapter with all domains, or the other way round."""
        old, policy = self.matrix, self._module.policy
        new = Masks(old.apm | added.apm, old.aqm | added.aqm, old.adm)
        if new == old and not policy.repeats_assign:
            return
        self._refuse_taken(new, added)
        self._set_matrix(new)
        if policy.following.matrix:
            self.refilter()

    def _refuse_taken(self, new: Masks, added: Masks) -> None:
        module = self._module
        why = module.policy.unavailable(added, module.bus.host_domains, module.bound)
        if why:
            raise KernelError(EADDRNOTAVAIL, why)
        other = self._assignments.sharer(new, self)
        if other is not None:
            if module.policy.logs_refusals:
                self._log_sharing(new, other)
            raise KernelError(EADDRINUSE, f"{other.uuid} has queues of the new matrix")

    def _log_sharing(self, new: Masks, other: MatrixMdev) -> None:
        for apqn in common_queues(new, other.matrix):
            self._module.kernel.log(
                f"vfio_ap_mdev {self.uuid}: Userspace may not assign queue {apqn} to mdev: "
                f"already assigned to {other.uuid}"
            )

    def _unassign(self, gone: Masks) -> None:
        old = self.guest_masks
        lost = _queues(Masks(old.apm & gone.apm, old.aqm, 0))
        lost = _joined(lost, _queues(Masks(old.apm, old.aqm & gone.aqm, 0)))
        now = self.matrix
        self._set_matrix(Masks(now.apm & ~gone.apm, now.aqm & ~gone.aqm, now.adm & ~gone.adm))
        if self._module.policy.following.matrix:
            self.unplug(gone)
        if self._module.policy.resets_unassigned:
            self._resets.reset(lost)
        self._forget_lost_interrupts()

    def _forget_lost_interrupts(self) -> None:
        for apqn in [q for q in self.interrupts if not self.matrix.has(*q)]:
            del self.interrupts[apqn]

    def _set_matrix(self, new: Masks) -> None:
        self._assignments.give(self, new)

    def _refuse_interrupts(self, apqn: Apqn, isc: int, answer: int) -> None:
        """Forget the interrupts of a queue that refuses them. Raises ENODEV, EIO."""
        code = f"apqn {apqn.apid:02x}{apqn.apqi:02x}: response: {answer:02x}"
        self._module.kernel.log(f"vfio_ap_irq_enable: {code}")
        self._module.messages.interrupts_refused(apqn, isc, answer)
        self.interrupts.pop(apqn, None)
        errno = ENODEV if answer == NOT_AVAILABLE else EIO
        raise KernelError(errno, f"answer {answer:02x} of {apqn}")

    def _own_queue(self, apqn: Apqn) -> None:
        bound = self._module.bound[apqn.apid] >> apqn.apqi & 1
        if not self.matrix.has(*apqn) or not bound:
            self._module.messages.not_bound(apqn)
            raise KernelError(ENODEV, f"answer 01: {apqn} is not a bound queue of {self.uuid}")


def _queues(masks: Masks) -> dict[int, int]:
    """Return the queues of these masks: adapter -> mask of domains."""
    return dict.fromkeys(ids(masks.apm), masks.aqm) if masks.aqm else {}


def _joined(one: dict[int, int], other: dict[int, int]) -> dict[int, int]:
    return {apid: one.get(apid, 0) | other.get(apid, 0) for apid in {**one, **other}}

"""The interrupts of all VMs in a snapshot: what `Apicv` owns."""

from __future__ import annotations

from fakesys.core.saved import U32, Saved, check, check_range
from fakesys.core.scheduling.resched import cond_resched_killable
from fakesys.subsystems.apicv.model import Apicv
from fakesys.subsystems.apicv.saved.vm import SavedApicVm, restore_vm, save_vm
from fakesys.subsystems.apicv.state.params import module_of


class SavedApicv(Saved, frozen=True):
    """All VMs in the order of their creation. `last_vm_id`: AVIC id that the last VM got."""

    last_vm_id: U32
    vms: list[SavedApicVm]


def save(apicv: Apicv) -> SavedApicv:
    """Return what a snapshot holds of the interrupts of all VMs."""
    return SavedApicv(
        last_vm_id=apicv.last_vm_id, vms=[save_vm(apicv.of(vm)) for vm in apicv.kvm.vms]
    )


def restore(saved: SavedApicv, apicv: Apicv) -> None:
    """Make the interrupts of VMs whose register and memory were restored.

    Raises BadSnapshotError.
    """
    vms = apicv.kvm.vms
    check(len(saved.vms) == len(vms), f"interrupts of {len(saved.vms)} VMs, not of {len(vms)}")
    end = 1 << apicv.policy.vm_id_bits
    apicv.last_vm_id = check_range(saved.last_vm_id, end, "the last AVIC id")
    avic = module_of(apicv.kvm.params).avic
    ids = [check_range(found.vm_id, end, "an AVIC id") for found in saved.vms if avic]
    check(0 not in ids and len(set(ids)) == len(ids), "AVIC ids of VMs are not different")
    check(avic or not any(found.vm_id for found in saved.vms), "a VM without AVIC has an AVIC id")
    for found, vm in zip(saved.vms, vms, strict=True):
        cond_resched_killable()
        restore_vm(found, apicv, vm)

"""Page faults that are resolved without the MMU lock. Like mmu.c:fast_page_fault (v6.1)."""

from __future__ import annotations

from enum import Enum

from fakesys.subsystems.kvm_mmu.events.sptes import FastPageFault, FastPageFaultRetry
from fakesys.subsystems.kvm_mmu.mmu.set_spte import SpteSetter
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.sptes import spte_address
from fakesys.subsystems.kvm_mmu.shadow.vcpu import VcpuMmu
from fakesys.subsystems.kvm_mmu.shadow.walk import (
    PF_PRESENT,
    PF_RSVD,
    PF_WRITE,
    ShadowEntry,
    ShadowWalker,
)
from fakesys.subsystems.kvm_mmu.slots.memslots import Memslot

_ERROR_MASK = PF_PRESENT | PF_WRITE | PF_RSVD


class RetPf(Enum):
    """How a fault ended: RET_PF_*, and two outcomes that the kernel has no such name for."""

    RETRY = "retry"
    EMULATE = "emulate"
    FIXED = "fixed"
    SPURIOUS = "spurious"
    # The guest's own tables do not allow the access: the guest gets the fault.
    GUEST = "guest"
    # -EFAULT: the host has no memory there.
    FAILED = "failed"


# RET_PF_INVALID, RET_PF_FIXED, RET_PF_SPURIOUS follow one another in every kernel.
FAST_RESULTS = {None: 0, RetPf.FIXED: 1, RetPf.SPURIOUS: 2}


def is_write_to_present(error: int) -> bool:
    """Return whether the error code says that a present spte did not allow a write."""
    return error & _ERROR_MASK == PF_PRESENT | PF_WRITE


class FastFaults:
    """Gives W back to sptes that lost it to dirty logging or write protection."""

    def __init__(self, arch: MmuArch, walker: ShadowWalker, setter: SpteSetter) -> None:
        self._arch = arch
        self._walker = walker
        self._setter = setter

    def handle(self, vcpu: VcpuMmu, address: int, error: int, slot: Memslot) -> RetPf | None:
        """Make the spte writable if its bits allow that; return None if the slow path must.

        Precondition: `is_write_to_present(error)`.
        """
        entry = self._walker.last(vcpu, address)
        row, index, level = entry
        sptes = self._arch.sptes
        if not sptes.present(row) >> index & 1:
            return None
        leaf = sptes.leaf(row)
        bit = 1 << index
        old = self._setter.value(row, index)
        result = None
        if leaf.writable & bit:
            result = RetPf.SPURIOUS
        elif not leaf.is_readonly(bit) and not (level > 1 and slot.logs_dirty):
            leaf.writable |= bit
            leaf.dirty |= bit
            self._arch.mark_dirty(slot, address >> 12, locked=False)
            result = RetPf.FIXED
        self._trace_fast_page_fault(vcpu, address, error, entry, old, result)
        sptes.pack(row)
        if result is not None:
            vcpu.stats.pf_fast += 1
        return result

    def _trace_fast_page_fault(
        self,
        vcpu: VcpuMmu,
        address: int,
        error: int,
        entry: ShadowEntry,
        old: int,
        result: RetPf | None,
    ) -> None:
        bus = self._arch.bus
        sptep = spte_address(entry.row, entry.spte_index)
        if FastPageFault in bus.wanted:
            bus.emit(
                FastPageFault(
                    vcpu_id=vcpu.id,
                    cr2_or_gpa=address,
                    error_code=self._arch.policy.traced_code(error),
                    sptep=sptep,
                    old_spte=old,
                    new_spte=self._setter.value(entry.row, entry.spte_index),
                    ret=self._arch.policy.ret_pf_invalid + FAST_RESULTS[result],
                )
            )
        if FastPageFaultRetry in bus.wanted:
            bus.emit(
                FastPageFaultRetry(
                    vcpu_id=vcpu.id,
                    gva=address,
                    cr2_or_gpa=address,
                    error_code=self._arch.policy.traced_code(error),
                    sptep=sptep,
                    old_spte=old,
                    new_spte=self._setter.value(entry.row, entry.spte_index),
                    retry=result is not None,
                )
            )

"""Runs of page faults of one kind with the TDP MMU, while events are recorded.

Pages that one table of level 1 lacks fault one after the other in the same way; what they have in
common is found out once. The events, counters and sptes are those of the faults one by one.
"""

from __future__ import annotations

from fakesys.subsystems.kvm_mmu.events.sptes import KvmMmuSpteRequested
from fakesys.subsystems.kvm_mmu.guest.bulk_tdp import TdpBlocks
from fakesys.subsystems.kvm_mmu.guest.translation import FINAL
from fakesys.subsystems.kvm_mmu.guest.vcpu_run import Guest
from fakesys.subsystems.kvm_mmu.shadow.sptes import ENTRIES
from fakesys.subsystems.kvm_mmu.shadow.vcpu import VcpuMmu
from fakesys.subsystems.kvm_mmu.shadow.walk import PF_USER, PF_WRITE
from fakesys.subsystems.kvm_mmu.slots.memslots import Memslot
from fakesys.subsystems.kvm_mmu.tdp.mmu import TdpMmu
from fakesys.subsystems.kvm_mmu.tdp.tables import Directory, Huge, entry_address
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory

# Others are let in after so many faults.
MOST = 64


class TracedFaults:
    """Handles runs of faults of a vCPU that accesses page after page."""

    def __init__(self, memory: VmMemory, vcpu: VcpuMmu, guest: Guest, tdp: TdpMmu) -> None:
        self._arch = memory.arch
        self._memory = memory
        self._vcpu = vcpu
        self._guest = guest
        self._tdp = tdp
        self._blocks = TdpBlocks(memory, vcpu)

    def access(self, gfn: int, npages: int, *, write: bool) -> int:
        """Let up to `npages` pages from `gfn` fault; return how many, 0 if they must go singly."""
        vcpu = self._vcpu
        if vcpu.requests or not vcpu.roots or vcpu.as_id or self._arch.ring is not None:
            return 0
        if not self._guest.vcpu_run.in_guest:
            return 0
        entry = self._tdp.walker.last(vcpu, gfn << 12)
        slot = self._memory.slots.find(gfn)
        directory, index = entry.table, entry.entry_index
        if entry.level != 1 or slot is None or not isinstance(directory, Directory):
            return 0
        leaf = directory.leaf(index)
        count = min(npages, MOST, ENTRIES - (gfn & 511))
        present = leaf.present >> (gfn & 511) & (1 << count) - 1
        if present:
            count = (present & -present).bit_length() - 1
        if leaf.mmio or count < 2 or not self._blocks.is_resident(slot, gfn, count):
            directory.pack(index)
            return 0
        self._fault(slot, gfn, count, directory.page + 1 + index, write=write)
        mask = (1 << count) - 1 << (gfn & 511)
        leaf.present |= mask
        leaf.writable |= mask
        directory.pack(index)
        self._arch.sptes.count(1, count)
        vcpu.stats.pf_taken += count
        vcpu.stats.pf_fixed += count
        return count

    def _fault(self, slot: Memslot, first: int, count: int, page: int, *, write: bool) -> None:
        """Leave the guest for each page, tell how it is mapped, and enter again."""
        run, changes = self._guest.vcpu_run, self._tdp.changes
        values, trace_set_spte = changes.values, self._tdp.mapper.trace_set_spte
        bus, wanted = self._arch.bus, self._arch.bus.wanted
        rip = self._guest.registers.rip
        error = PF_USER | (PF_WRITE if write else 0) | (FINAL if self._guest.is_hardware else 0)
        for gfn in range(first, first + count):
            run.page_fault(rip, gfn << 12, error, nested=True)
            pfn = values.pfn(0, gfn)
            spte = values.page(Huge.WRITABLE, pfn)
            if KvmMmuSpteRequested in wanted:
                bus.emit(KvmMmuSpteRequested(gfn=gfn, pfn=pfn, level=1))
            self._arch.mark_dirty(slot, gfn)
            changes.trace(0, gfn, 1, values.empty, spte)
            trace_set_spte(gfn, 1, spte, entry_address(page, gfn & 511))
            run.enter()

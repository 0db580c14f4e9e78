"""Page faults with the TDP MMU. Like mmu.c:kvm_mmu_page_fault, direct_page_fault (v6.1)."""

from __future__ import annotations

from fakesys.subsystems.kvm_mmu.events.sptes import FastPageFault, KvmMmuSpteRequested
from fakesys.subsystems.kvm_mmu.mmu.fast_page_fault import FAST_RESULTS, RetPf, is_write_to_present
from fakesys.subsystems.kvm_mmu.mmu.faultin import HostFaults
from fakesys.subsystems.kvm_mmu.mmu.faults import NO_SLOT_PFN, count_outcome
from fakesys.subsystems.kvm_mmu.mmu.mmio import Mmio
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.role import ALL_ACCESS
from fakesys.subsystems.kvm_mmu.shadow.vcpu import VcpuMmu
from fakesys.subsystems.kvm_mmu.shadow.walk import PF_FETCH, PF_RSVD
from fakesys.subsystems.kvm_mmu.slots.memslots import AddressSpaces, Memslot
from fakesys.subsystems.kvm_mmu.tdp.mapping import Goal, TdpMapper
from fakesys.subsystems.kvm_mmu.tdp.tables import Directory, Huge, entry_address
from fakesys.subsystems.kvm_mmu.tdp.values import SpteValues, W
from fakesys.subsystems.kvm_mmu.tdp.walker import TdpEntry, TdpWalker


class TdpFaults:
    """The page fault handler of a VM with the TDP MMU."""

    def __init__(
        self,
        arch: MmuArch,
        spaces: AddressSpaces,
        *,
        walker: TdpWalker,
        values: SpteValues,
        mapper: TdpMapper,
        mmio: Mmio,
        host: HostFaults,
    ) -> None:
        self._arch = arch
        self._spaces = spaces
        self._walker = walker
        self._values = values
        self._mapper = mapper
        self._mmio = mmio
        self._host = host

    def page_fault(self, vcpu: VcpuMmu, address: int, error: int) -> RetPf:
        """Handle a fault and count its outcome. `address`: guest physical."""
        if error & PF_RSVD and self._is_mmio(vcpu, address):
            return RetPf.EMULATE
        vcpu.stats.pf_taken += 1
        result = self._page_fault(vcpu, address, error)
        count_outcome(vcpu.stats, result)
        return result

    def _is_mmio(self, vcpu: VcpuMmu, address: int) -> bool:
        if self._mmio.match_gpa(vcpu, address):
            return True
        spte = self._walker.mmio(self._walker.last(vcpu, address))
        return bool(spte) and self._mmio.handle_spte(vcpu, spte, address >> 12, 0)

    def _page_fault(self, vcpu: VcpuMmu, address: int, error: int) -> RetPf:
        gfn = address >> 12
        slot = self._spaces.memslots[vcpu.as_id].find(gfn)
        if slot is not None and is_write_to_present(error):
            fast = self._fast(vcpu, address, error, slot)
            if fast is not None:
                return fast
        writable = self._host.fault_in(slot, gfn, error)
        if isinstance(writable, RetPf):
            return writable
        mmio = 0
        if slot is None:
            self._mmio.cache_info(vcpu, 0, gfn)
            if not self._arch.knobs.mmio_caching:
                return RetPf.EMULATE
            mmio = self._mmio.new_spte(vcpu, gfn, ALL_ACCESS)
        asked = 1 if slot is None else slot.max_level(gfn)
        level = 1 if error & PF_FETCH and self._arch.nx_huge_pages else asked
        self._trace_requested(vcpu, slot, gfn, level)
        goal = Goal(vcpu, gfn, slot, level, asked, mmio, writable)
        return self._mapper.map(self._walker.root(vcpu), goal)

    def _fast(self, vcpu: VcpuMmu, address: int, error: int, slot: Memslot) -> RetPf | None:
        """Give W back without the lock. Like mmu.c:fast_page_fault (v6.1)."""
        entry = self._walker.last(vcpu, address)
        bits = self._walker.bits(entry)
        if not bits:
            return None
        old = new = self._value(vcpu, entry, address >> 12)
        result = None
        if bits & Huge.WRITABLE:
            result = RetPf.SPURIOUS
        elif not bits & (Huge.READ_ONLY | Huge.PROTECTED) and not (
            entry.level > 1 and slot.logs_dirty
        ):
            self._make_writable(entry)
            self._arch.mark_dirty(slot, address >> 12, locked=False)
            new, result = old | W, RetPf.FIXED
        self._trace_fast(vcpu, address, error, entry, old, new, result)
        if result is not None:
            vcpu.stats.pf_fast += 1
        return result

    def _value(self, vcpu: VcpuMmu, entry: TdpEntry, gfn: int) -> int:
        if entry.level == 1 and isinstance(entry.table, Directory):
            return self._values.leaf(vcpu.as_id, entry.table, entry.entry_index, entry.place, gfn)
        base = gfn & -(1 << 9 * (entry.level - 1))
        return self._values.entry(vcpu.as_id, entry.table, entry.entry_index, base)

    def _make_writable(self, entry: TdpEntry) -> None:
        table = entry.table
        if entry.level > 1:
            if isinstance(table, Directory):
                table.state[entry.entry_index] |= Huge.WRITABLE
            else:
                bits = table.entries[entry.entry_index]
                assert isinstance(bits, int)
                table.entries[entry.entry_index] = bits | Huge.WRITABLE
            return
        assert isinstance(table, Directory)
        table.leaf(entry.entry_index).writable |= 1 << entry.place
        table.pack(entry.entry_index)

    def _trace_fast(
        self,
        vcpu: VcpuMmu,
        address: int,
        error: int,
        entry: TdpEntry,
        old: int,
        new: int,
        result: RetPf | None,
    ) -> None:
        if FastPageFault not in self._arch.bus.wanted:
            return
        page = entry.table.page + (1 + entry.entry_index if entry.level == 1 else 0)
        place = entry.place if entry.level == 1 else entry.entry_index
        self._arch.bus.emit(
            FastPageFault(
                vcpu_id=vcpu.id,
                cr2_or_gpa=address,
                error_code=self._arch.policy.traced_code(error),
                sptep=entry_address(page, place),
                old_spte=old,
                new_spte=new,
                ret=self._arch.policy.ret_pf_invalid + FAST_RESULTS[result],
            )
        )

    def _trace_requested(self, vcpu: VcpuMmu, slot: Memslot | None, gfn: int, level: int) -> None:
        if KvmMmuSpteRequested in self._arch.bus.wanted:
            pfn = NO_SLOT_PFN if slot is None else self._values.pfn(vcpu.as_id, gfn)
            self._arch.bus.emit(KvmMmuSpteRequested(gfn=gfn, pfn=pfn, level=level))

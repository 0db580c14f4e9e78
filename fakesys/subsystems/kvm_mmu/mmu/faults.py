"""Page faults: from an address that the tables do not allow to an spte, or to emulation.

The order of effects is that of arch/x86/kvm/mmu/mmu.c:direct_page_fault, direct_map and
paging_tmpl.h:page_fault, fetch (v6.1); 5.4 has the same in other functions.
"""

from __future__ import annotations

from typing import NamedTuple

from fakesys.subsystems.kvm.stats import VcpuStats
from fakesys.subsystems.kvm_mmu.events.sptes import KvmMmuSpteRequested
from fakesys.subsystems.kvm_mmu.mmu.direct_map import DirectMap
from fakesys.subsystems.kvm_mmu.mmu.fast_page_fault import FastFaults, RetPf, is_write_to_present
from fakesys.subsystems.kvm_mmu.mmu.faultin import HostFaults
from fakesys.subsystems.kvm_mmu.mmu.get_page import PageFinder
from fakesys.subsystems.kvm_mmu.mmu.guest_walker import GuestWalk, GuestWalker
from fakesys.subsystems.kvm_mmu.mmu.mmio import Mmio
from fakesys.subsystems.kvm_mmu.mmu.prefetch import Prefetch
from fakesys.subsystems.kvm_mmu.mmu.roots import Roots
from fakesys.subsystems.kvm_mmu.mmu.set_spte import SpteSetter
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.links import ShadowLinks
from fakesys.subsystems.kvm_mmu.shadow.pages import NONE
from fakesys.subsystems.kvm_mmu.shadow.role import ACCESS_SHIFT, ALL_ACCESS, SMM, WRITE
from fakesys.subsystems.kvm_mmu.shadow.vcpu import Paging, VcpuMmu
from fakesys.subsystems.kvm_mmu.shadow.walk import PF_RSVD, PF_WRITE, ShadowEntry, ShadowWalker
from fakesys.subsystems.kvm_mmu.slots.memslots import AddressSpaces, Memslot

# KVM_PFN_NOSLOT
NO_SLOT_PFN = 1 << 63


def count_outcome(stats: VcpuStats, result: RetPf, *, fixed: bool = True) -> None:
    """Count how a fault ended; `fixed`: also if it was fixed."""
    if result is RetPf.FIXED and fixed:
        stats.pf_fixed += 1
    elif result is RetPf.EMULATE:
        stats.pf_emulate += 1
    elif result is RetPf.SPURIOUS:
        stats.pf_spurious += 1


class _Fault(NamedTuple):
    """One fault on its way to an spte; `struct kvm_page_fault` (v6.1).

    `access`: what the guest's tables allow. `host_writable`: the host may write to the page.
    """

    vcpu: VcpuMmu
    error: int
    gfn: int
    slot: Memslot | None
    access: int
    host_writable: bool


class PageFaults:
    """The page fault handler of a VM."""

    def __init__(
        self,
        arch: MmuArch,
        links: ShadowLinks,
        spaces: AddressSpaces,
        *,
        shadow_walker: ShadowWalker,
        guest_walker: GuestWalker,
        finder: PageFinder,
        roots: Roots,
        direct_map: DirectMap,
        setter: SpteSetter,
        prefetch: Prefetch,
        mmio: Mmio,
        host: HostFaults,
    ) -> None:
        self._arch = arch
        self._pages = arch.pages
        self._links = links
        self._spaces = spaces
        self._shadow_walker = shadow_walker
        self._guest_walker = guest_walker
        self._finder = finder
        self._roots = roots
        self._direct_map = direct_map
        self._setter = setter
        self._prefetch = prefetch
        self._mmio = mmio
        self._host = host
        self._fast = FastFaults(arch, shadow_walker, setter)

    def page_fault(self, vcpu: VcpuMmu, address: int, error: int) -> RetPf:
        """Handle a fault and count its outcome. Like mmu.c:kvm_mmu_page_fault (v6.1).

        `address`: guest physical with TDP and in real mode, else guest virtual. `error`: from
        `ShadowWalker.error_code`. Precondition: `Roots.enter` was called for the vCPU.
        """
        if error & PF_RSVD and self._is_mmio(vcpu, address):
            return RetPf.EMULATE
        stats = vcpu.stats
        stats.pf_taken += 1
        if vcpu.paging is Paging.LONG:
            result = self._shadow_page_fault(vcpu, address, error & ~PF_RSVD)
        else:
            result = self._direct_page_fault(vcpu, address, error)
        count_outcome(stats, result, fixed=self._arch.policy.counts_by_outcome)
        return result

    def _is_mmio(self, vcpu: VcpuMmu, address: int) -> bool:
        if self._arch.policy.asks_mmio_cache and self._is_cached(vcpu, address):
            return True
        row, index, _ = self._shadow_walker.last(vcpu, address)
        traced = address if vcpu.paging is Paging.LONG else 0
        return self._mmio.handle_page_fault(vcpu, row, index, traced)

    def _is_cached(self, vcpu: VcpuMmu, address: int) -> bool:
        """Return whether it is the MMIO page of last time. Like mmu.c:mmio_info_in_cache."""
        if vcpu.paging is Paging.LONG:
            return self._mmio.match_gva(vcpu, address) is not None
        return self._mmio.match_gpa(vcpu, address)

    def _direct_page_fault(self, vcpu: VcpuMmu, address: int, error: int) -> RetPf:
        gfn = address >> 12
        slot = self._spaces.memslots[vcpu.as_id].find(gfn)
        if self._is_write_tracked(gfn, error):
            return RetPf.EMULATE
        if slot is not None and is_write_to_present(error):
            result = self._fast.handle(vcpu, address, error, slot)
            if result is not None:
                return result
        ready = self._prepare(vcpu, 0, error, gfn, slot, ALL_ACCESS)
        if isinstance(ready, RetPf):
            return ready
        asked = self._direct_map.max_mapping_level(slot, gfn, 3)
        split = self._direct_map.split_level(asked, error)
        goal = 1 if split else asked
        self._trace_spte_requested(slot, gfn, goal)
        counted = split if vcpu.paging is Paging.TDP else 0
        first = self._shadow_walker.first(vcpu, address)
        return self._map(ready, self._direct_map.descend(first, gfn, goal, ALL_ACCESS, counted))

    def _shadow_page_fault(self, vcpu: VcpuMmu, address: int, error: int) -> RetPf:
        walk = self._guest_walker.walk(vcpu.cr3, address, error)
        if walk is None:
            vcpu.stats.pf_guest += 1
            return RetPf.GUEST
        gfn = walk.gfn
        slot = self._spaces.memslots[vcpu.as_id].find(gfn)
        if self._is_write_tracked(gfn, error):
            return RetPf.EMULATE
        ready = self._prepare(vcpu, address, error, gfn, slot, walk.access)
        if isinstance(ready, RetPf):
            return ready
        entry = self._fetch(vcpu, address, walk)
        # Only now: tables that were just shadowed may forbid a large page.
        asked = self._direct_map.max_mapping_level(slot, gfn, walk.level)
        split = self._direct_map.split_level(asked, error)
        goal = 1 if split else asked
        self._trace_spte_requested(slot, gfn, goal)
        return self._map(ready, self._direct_map.descend(entry, gfn, goal, walk.access, split))

    def _prepare(
        self, vcpu: VcpuMmu, gva: int, error: int, gfn: int, slot: Memslot | None, access: int
    ) -> _Fault | RetPf:
        """Get the host page and room for tables; a RetPf ends the fault here."""
        writable = self._host.fault_in(slot, gfn, error)
        if isinstance(writable, RetPf):
            return writable
        if slot is None:
            self._mmio.cache_info(vcpu, gva, gfn)
            if not self._arch.knobs.mmio_caching:
                return RetPf.EMULATE
        if not self._roots.make_available():
            return RetPf.RETRY
        return _Fault(vcpu, error, gfn, slot, access, writable)

    def _fetch(self, vcpu: VcpuMmu, address: int, walk: GuestWalk) -> ShadowEntry:
        """Shadow the guest's tables that the walk went through. Like paging_tmpl.h:fetch."""
        row, index, level = self._shadow_walker.first(vcpu, address)
        base = self._arch.policy.base_role | self._pages.role[row] & SMM
        while level > walk.level:
            self._pages.write_flooding_count[row] = 0
            child = self._links.child(row, index)
            if child == NONE:
                access = walk.table_access[level - 1] << ACCESS_SHIFT
                child = self._finder.get_page(walk.tables[level - 1], base | level - 1 | access)
                if child in self._links.unsync_below:
                    self._roots.sync_children(child)
                self._links.link(row, index, child)
            row, level = child, level - 1
            index = address >> 3 + 9 * level & 511
        return ShadowEntry(row, index, level)

    def _map(self, fault: _Fault, entry: ShadowEntry) -> RetPf:
        """Set the spte that the fault asks for, and its neighbours."""
        if not self._arch.policy.counts_by_outcome:
            fault.vcpu.stats.pf_fixed += 1
        row, index, level = entry
        gfn = fault.gfn >> 9 * (level - 1) << 9 * (level - 1)
        if fault.slot is None:
            return self._map_mmio(fault, entry, gfn)
        writable, access = fault.host_writable, fault.access
        if level == 1 and writable and self._prefetch.prefetch_group(fault.slot, row, index):
            return RetPf.FIXED
        if not writable:
            access &= ~WRITE
        changed, write_protected = self._setter.set_spte(
            fault.slot, row, index, gfn, access, host_writable=writable
        )
        if not changed and not write_protected:
            return RetPf.SPURIOUS
        if level == 1:
            self._prefetch.prefetch_neighbours(row, index)
        return RetPf.EMULATE if write_protected and fault.error & PF_WRITE else RetPf.FIXED

    def _map_mmio(self, fault: _Fault, entry: ShadowEntry, gfn: int) -> RetPf:
        row, index, _ = entry
        fault.vcpu.stats.pf_mmio_spte_created += 1
        self._mmio.mark_spte(row, index, gfn, fault.access)
        if self._arch.policy.mmio_set_spte_event:
            self._setter.trace_set_spte(row, index, gfn, self._mmio.value(row, index))
        return RetPf.EMULATE

    def _is_write_tracked(self, gfn: int, error: int) -> bool:
        """Return whether the write must be emulated. Like mmu.c:page_fault_handle_page_track."""
        return is_write_to_present(error) and self._links.write_tracking.is_write_tracked(gfn)

    def _trace_spte_requested(self, slot: Memslot | None, gfn: int, level: int) -> None:
        if KvmMmuSpteRequested not in self._arch.bus.wanted:
            return
        pfn = NO_SLOT_PFN if slot is None else self._setter.pfn(slot, gfn)
        self._arch.bus.emit(KvmMmuSpteRequested(gfn=gfn, pfn=pfn, level=level))

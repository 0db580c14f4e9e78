"""Page faults: from an address that may not be accessed to an spte, or to emulation.

The order of effects is that of arch/x86/kvm/mmu/mmu.c:direct_page_fault, direct_map and
paging_tmpl.h:page_fault, fetch (v6.1); 5.4 has the same in other functions.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from fakesys.subsystems.kvm_mmu.events import catalog as trace
from fakesys.subsystems.kvm_mmu.ops.mmio import Mmio, spte_address
from fakesys.subsystems.kvm_mmu.ops.prefetch import Prefetch
from fakesys.subsystems.kvm_mmu.ops.roots import Paging, Roots, VcpuMmu
from fakesys.subsystems.kvm_mmu.ops.set_spte import SpteSetter
from fakesys.subsystems.kvm_mmu.ops.walker import (
    PF_FETCH,
    PF_PRESENT,
    PF_RSVD,
    PF_USER,
    PF_WRITE,
    Walk,
    Walker,
)
from fakesys.subsystems.kvm_mmu.shadow.arch import Kit
from fakesys.subsystems.kvm_mmu.shadow.links import Tree
from fakesys.subsystems.kvm_mmu.shadow.pages import NONE
from fakesys.subsystems.kvm_mmu.shadow.role import (
    ACCESS_SHIFT,
    ALL_ACCESS,
    DIRECT,
    EXEC,
    LEVEL_MASK,
    USER,
    WRITE,
    access_of,
    role_word,
)
from fakesys.subsystems.kvm_mmu.shadow.sptes import EMPTY, ENTRIES, FULL_RW, MIXED
from fakesys.subsystems.kvm_mmu.slots.memslots import Memslot, Memslots

# KVM_PFN_NOSLOT
NO_SLOT_PFN = 1 << 63


MOST_LEVELS = 5
_FAST_MASK = PF_PRESENT | PF_WRITE | PF_RSVD


class RetPf(Enum):
    """How a fault ended: RET_PF_*, and two outcomes that have no such name."""

    RETRY = "retry"
    EMULATE = "emulate"
    FIXED = "fixed"
    SPURIOUS = "spurious"
    # The guest's own tables do not allow it: the guest gets the fault.
    GUEST = "guest"
    # -EFAULT: the host has nothing there.
    FAILED = "failed"


# RET_PF_INVALID, RET_PF_FIXED, RET_PF_SPURIOUS follow one another in every kernel.
_FAST_RESULTS = {None: 0, RetPf.FIXED: 1, RetPf.SPURIOUS: 2}


class Entry(NamedTuple):
    """A place in the shadow tables."""

    row: int
    place: int
    level: int


class Faults:
    """What a vCPU may access, and what happens when it may not."""

    def __init__(
        self,
        kit: Kit,
        tree: Tree,
        roots: Roots,
        slots: Memslots,
        walker: Walker,
        mmio: Mmio,
        setter: SpteSetter,
        prefetch: Prefetch,
    ) -> None:
        self._kit = kit
        self._pages = kit.pages
        self._tree = tree
        self._roots = roots
        self._slots = slots
        self._walker = walker
        self._mmio = mmio
        self._setter = setter
        self._prefetch = prefetch
        self._base = kit.policy.base_role

    def allows(self, vcpu: VcpuMmu, address: int, error: int) -> bool:
        """What the processor does: use the tables as they are, and set A and D in the spte."""
        row, index, _ = self.lookup(vcpu, address)
        state = self._pages.leaf[row]
        if state != MIXED:
            return state == FULL_RW or (state != EMPTY and not error & PF_WRITE)
        leaf = self._kit.sptes.leaves[row]
        bit = 1 << index
        if not leaf.present & bit:
            return False
        if error & PF_WRITE and not leaf.writable & bit:
            return False
        if (error & PF_FETCH and leaf.no_exec & bit) or (error & PF_USER and leaf.no_user & bit):
            return False
        if not leaf.accessed & bit:
            leaf.accessed |= bit
            self._kit.sptes.settle(row)
        return True

    def error_code(self, vcpu: VcpuMmu, address: int, error: int) -> int:
        """The error code of a fault there, with P and RSVD."""
        row, index, _ = self.lookup(vcpu, address)
        if self._kit.sptes.present(row) >> index & 1:
            return error | PF_PRESENT
        if self._mmio.is_marked(row, index):
            return error | PF_PRESENT | PF_RSVD
        return error

    def lookup(self, vcpu: VcpuMmu, address: int) -> Entry:
        """The last entry for an address: a leaf spte or one that is not present."""
        roots = vcpu.roots
        if len(roots) == 1:
            row, level = roots[0], 4
        else:
            row, level = roots[address >> 30 & 3], 2
        kids = self._tree.kids
        shift = 3 + 9 * level
        while True:
            index = address >> shift & 511
            below = kids.get(row)
            if below is None or below[index] == NONE:
                return Entry(row, index, level)
            row = below[index]
            level -= 1
            shift -= 9

    def page_fault(self, vcpu: VcpuMmu, address: int, error: int) -> RetPf:
        """Handle a fault. Like mmu.c:kvm_mmu_page_fault (v6.1)."""
        if error & PF_RSVD:
            row, index, _ = self.lookup(vcpu, address)
            shown = 0 if vcpu.paging is not Paging.LONG else address
            if self._mmio.hit(vcpu, row, index, shown):
                return RetPf.EMULATE
        stats = vcpu.stats
        stats.pf_taken += 1
        if vcpu.paging is Paging.LONG:
            result = self._shadow(vcpu, address, error & ~PF_RSVD)
        else:
            result = self._direct(vcpu, address, error)
        if result is RetPf.FIXED and self._kit.policy.counts_by_outcome:
            stats.pf_fixed += 1
        elif result is RetPf.EMULATE:
            stats.pf_emulate += 1
        elif result is RetPf.SPURIOUS:
            stats.pf_spurious += 1
        return result

    def make_table(self, vcpu: VcpuMmu, gfn: int) -> int:
        """The table of level 1 for a gfn with TDP, made if need be; NONE if pages are short."""
        if not self._roots.make_available():
            return NONE
        return self._descend(self._start(vcpu, gfn << 12), gfn, 1, ALL_ACCESS).row

    def has_table(self, gfn: int) -> bool:
        """Is there a table of level 1 for a gfn with TDP, maybe one that nothing points to?"""
        role = role_word(self._base, 1, direct=True)
        return self._pages.find(gfn & -ENTRIES, role) != NONE

    def maps_small(self, slot: Memslot, gfn: int) -> bool:
        """Would a fault map just 4 KiB?"""
        return self._goal_level(slot, gfn, 3) == 1

    def _direct(self, vcpu: VcpuMmu, address: int, error: int) -> RetPf:
        gfn = address >> 12
        slot = self._slots.find(gfn)
        if self._is_write_tracked(gfn, error):
            return RetPf.EMULATE
        if slot is not None and error & _FAST_MASK == PF_PRESENT | PF_WRITE:
            fast = self._fast(vcpu, address, error, slot)
            if fast is not None:
                return fast
        writable = self._fault_in(slot, gfn, error)
        if isinstance(writable, RetPf):
            return writable
        if slot is None:
            self._mmio.remember(vcpu, 0, gfn)
            if not self._kit.knobs.mmio_caching:
                return RetPf.EMULATE
        if not self._roots.make_available():
            return RetPf.RETRY
        asked = self._goal_level(slot, gfn, 3)
        split = self._split_level(asked, error)
        goal = 1 if split else asked
        self._tell_requested(slot, gfn, goal)
        noted = split if vcpu.paging is Paging.TDP else 0
        entry = self._descend(self._start(vcpu, address), gfn, goal, ALL_ACCESS, noted)
        return self._finish(vcpu, slot, entry, gfn, ALL_ACCESS, error, writable)

    def _shadow(self, vcpu: VcpuMmu, address: int, error: int) -> RetPf:
        walk = self._walker.walk(vcpu.cr3, address, error)
        if walk is None:
            vcpu.stats.pf_guest += 1
            return RetPf.GUEST
        gfn = walk.gfn
        slot = self._slots.find(gfn)
        if self._is_write_tracked(gfn, error):
            return RetPf.EMULATE
        writable = self._fault_in(slot, gfn, error)
        if isinstance(writable, RetPf):
            return writable
        if slot is None:
            self._mmio.remember(vcpu, address, gfn)
            if not self._kit.knobs.mmio_caching:
                return RetPf.EMULATE
        if not self._roots.make_available():
            return RetPf.RETRY
        entry = self._fetch(vcpu, address, walk)
        # Only now: tables that were just shadowed may forbid a large page.
        asked = self._goal_level(slot, gfn, walk.level)
        split = self._split_level(asked, error)
        goal = 1 if split else asked
        self._tell_requested(slot, gfn, goal)
        entry = self._descend(entry, gfn, goal, walk.access, split)
        return self._finish(vcpu, slot, entry, gfn, walk.access, error, writable)

    def _fetch(self, vcpu: VcpuMmu, address: int, walk: Walk) -> Entry:
        """Shadow the guest's tables that the walk went through."""
        row, index, level = self._start(vcpu, address)
        while level > walk.level:
            self._pages.flood[row] = 0
            child = self._tree.child(row, index)
            if child == NONE:
                access = walk.table_access[level - 1] << ACCESS_SHIFT
                child = self._tree.get_page(walk.tables[level - 1], self._base | level - 1 | access)
                if child in self._tree.unsync_below:
                    self._roots.sync_children(child)
                self._tree.link(row, index, child)
            row, level = child, level - 1
            index = address >> 3 + 9 * level & 511
        return Entry(row, index, level)

    def _split_level(self, asked: int, error: int) -> int:
        """For a fetch that must not map a large page: up to which level the tables that it makes
        count as splits; else 0. Like mmu.c:kvm_mmu_hugepage_adjust (v6.1).
        """
        if not self._kit.nx_huge_pages or not error & PF_FETCH:
            return 0
        rules = self._kit.policy.nx
        return MOST_LEVELS if rules is not None and rules.counts_all else asked

    def _descend(self, entry: Entry, gfn: int, goal: int, access: int, split: int = 0) -> Entry:
        """Make direct tables down to the level that will hold the spte.

        `split`: of entries up to this level, the tables made here are noted as splits.
        """
        row, index, level = entry
        tree, pages = self._tree, self._pages
        role = self._base | DIRECT | access << ACCESS_SHIFT
        while level > goal or (level > 1 and self._kit.nx_huge_pages):
            pages.flood[row] = 0
            child = tree.child(row, index)
            if level == goal:
                # Like mmu.c:disallowed_hugepage_adjust: what is below may be executable.
                if child == NONE:
                    break
                goal -= 1
            if child != NONE and access_of(pages.role[child]) != access:
                # Like mmu.c:validate_direct_spte: the guest's large page changed its access.
                tree.unlink(row, index)
                self._kit.flush_remote_tlbs()
                child = NONE
            if child == NONE:
                shift = 9 * (level - 1)
                child = tree.get_page(gfn >> shift << shift, role | level - 1)
                tree.link(row, index, child)
                if level <= split:
                    self._kit.note_split(child)
            row, level = child, level - 1
            index = gfn >> 9 * (level - 1) & 511
        return Entry(row, index, level)

    def _finish(
        self,
        vcpu: VcpuMmu,
        slot: Memslot | None,
        entry: Entry,
        gfn: int,
        access: int,
        error: int,
        writable: bool,
    ) -> RetPf:
        row, index, level = entry
        if not self._kit.policy.counts_by_outcome:
            vcpu.stats.pf_fixed += 1
        base = gfn >> 9 * (level - 1) << 9 * (level - 1)
        if slot is None:
            vcpu.stats.pf_mmio_spte_created += 1
            self._mmio.mark(row, index, base, access)
            if self._kit.policy.mmio_set_spte_event:
                self._setter.tell(row, index, base, self._mmio.value(row, index))
            return RetPf.EMULATE
        if level == 1 and writable and self._prefetch.whole_group(slot, row, index):
            return RetPf.FIXED
        if not writable:
            access &= ~WRITE
        changed, protected = self._setter.set(slot, row, index, base, access, writable=writable)
        if not changed and not protected:
            return RetPf.SPURIOUS
        if level == 1:
            self._prefetch.around(row, index)
        return RetPf.EMULATE if protected and error & PF_WRITE else RetPf.FIXED

    def _fast(self, vcpu: VcpuMmu, address: int, error: int, slot: Memslot) -> RetPf | None:
        """Give W back without the lock, as far as the spte allows. Like mmu.c:fast_page_fault."""
        row, index, level = self.lookup(vcpu, address)
        sptes = self._kit.sptes
        if not sptes.present(row) >> index & 1:
            return None
        leaf = sptes.leaf(row)
        bit = 1 << index
        old = self._setter.value(row, index)
        result = None
        if leaf.writable & bit:
            result = RetPf.SPURIOUS
        elif not (leaf.sealed | leaf.host_ro) & bit and not (level > 1 and slot.logs_dirty):
            leaf.writable |= bit
            leaf.dirty |= bit
            slot.mark_dirty(address >> 12)
            result = RetPf.FIXED
        self._tell_fast(vcpu, address, error, Entry(row, index, level), old, result)
        sptes.settle(row)
        if result is not None:
            vcpu.stats.pf_fast += 1
        return result

    def _fault_in(self, slot: Memslot | None, gfn: int, error: int) -> bool | RetPf:
        """The host page behind a gfn: may it be written? Like mmu.c:kvm_faultin_pfn (v6.1)."""
        if slot is None:
            return True
        if slot.read_only and error & PF_WRITE:
            return RetPf.EMULATE
        if slot.invalid:
            return RetPf.RETRY
        if slot.memory is None or not slot.backed(gfn):
            return RetPf.FAILED
        page = slot.page(gfn)
        read_only = slot.memory.is_read_only(page)
        if read_only and error & PF_WRITE:
            return RetPf.FAILED
        if slot.memory.gone:
            slot.memory.touch(page)
        return not (slot.read_only or read_only)

    def _goal_level(self, slot: Memslot | None, gfn: int, highest: int) -> int:
        """How large a page the host, the slot and the guest's tables allow."""
        if slot is None or highest == 1 or slot.memory is None or not slot.memory.thp:
            return 1
        if slot.logs_dirty or not slot.fits_large(gfn) or self._tree.tracked.forbids(gfn, 2):
            return 1
        return 2 if slot.memory.is_large(slot.page(gfn & -512)) else 1

    def _is_write_tracked(self, gfn: int, error: int) -> bool:
        """Like mmu.c:page_fault_handle_page_track."""
        if error & _FAST_MASK != PF_PRESENT | PF_WRITE:
            return False
        return self._tree.tracked.is_tracked(gfn)

    def _start(self, vcpu: VcpuMmu, address: int) -> Entry:
        if len(vcpu.roots) == 1:
            return Entry(vcpu.roots[0], address >> 39 & 511, 4)
        return Entry(vcpu.roots[address >> 30 & 3], address >> 21 & 511, 2)

    def _tell_requested(self, slot: Memslot | None, gfn: int, level: int) -> None:
        if trace.KvmMmuSpteRequested not in self._kit.bus.wanted:
            return
        pfn = NO_SLOT_PFN if slot is None else self._setter.pfn(slot, gfn)
        self._kit.bus.emit(trace.KvmMmuSpteRequested(gfn=gfn, pfn=pfn, level=level))

    def _tell_fast(
        self,
        vcpu: VcpuMmu,
        address: int,
        error: int,
        entry: Entry,
        old: int,
        result: RetPf | None,
    ) -> None:
        bus = self._kit.bus
        sptep = spte_address(entry.row, entry.place)
        if trace.FastPageFault in bus.wanted:
            bus.emit(
                trace.FastPageFault(
                    vcpu_id=vcpu.id,
                    cr2_or_gpa=address,
                    error_code=error,
                    sptep=sptep,
                    old_spte=old,
                    new_spte=self._setter.value(entry.row, entry.place),
                    ret=self._kit.policy.ret_pf_invalid + _FAST_RESULTS[result],
                )
            )
        if trace.FastPageFaultRetry in bus.wanted:
            bus.emit(
                trace.FastPageFaultRetry(
                    vcpu_id=vcpu.id,
                    gva=address,
                    cr2_or_gpa=address,
                    error_code=error,
                    sptep=sptep,
                    old_spte=old,
                    new_spte=self._setter.value(entry.row, entry.place),
                    retry=result is not None,
                )
            )


__all__ = ["EXEC", "LEVEL_MASK", "USER", "Entry", "Faults", "RetPf"]

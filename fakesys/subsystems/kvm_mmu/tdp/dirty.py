"""Dirty logging by write protection, and large leaves that are split for it or come back after it.

Follows tdp_mmu.c:kvm_tdp_mmu_wrprot_slot, kvm_tdp_mmu_clear_dirty_pt_masked,
kvm_tdp_mmu_try_split_huge_pages, kvm_tdp_mmu_zap_collapsible_sptes (v6.1).
"""

from __future__ import annotations

from fakesys.core.scheduling.resched import cond_resched
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.sptes import ALL, ENTRIES, set_bits
from fakesys.subsystems.kvm_mmu.slots.memslots import Memslot
from fakesys.subsystems.kvm_mmu.tdp.changes import Changes
from fakesys.subsystems.kvm_mmu.tdp.mapping import TdpMapper
from fakesys.subsystems.kvm_mmu.tdp.tables import (
    ABSENT,
    FULL_PROTECTED,
    FULL_RW,
    HUGE,
    Directory,
    Huge,
    TdpRoot,
    TdpTables,
    Upper,
)
from fakesys.subsystems.kvm_mmu.tdp.values import W
from fakesys.subsystems.kvm_mmu.tdp.zap import mask_of

# Each state of an entry without W.
_PROTECTED = bytes(
    FULL_PROTECTED if state == FULL_RW else state & ~Huge.WRITABLE if state & HUGE else state
    for state in range(256)
)


class TdpDirty:
    """What dirty logging does to the TDP MMU."""

    def __init__(
        self, arch: MmuArch, tables: TdpTables, changes: Changes, mapper: TdpMapper
    ) -> None:
        self._arch = arch
        self._tables = tables
        self._changes = changes
        self._values = changes.values
        self._mapper = mapper
        rules = arch.policy.tdp
        assert rules is not None
        self._rules = rules

    def protect(self, slot: Memslot) -> None:
        """Take W from every leaf that maps a slot."""
        first, last = slot.base_gfn, slot.end_gfn - 1
        for root in self._tables.valid(slot.as_id):
            for gfn, upper, index in list(root.directories(first, last)):
                cond_resched()
                entry = upper.entries[index]
                if isinstance(entry, Directory):
                    self._protect_below(root, entry, gfn, first, last)
                elif entry_bits(entry) & Huge.WRITABLE:
                    bits = entry_bits(entry)
                    self._trace_w(root, gfn, 3, self._values.huge(root.as_id, bits, gfn))
                    upper.entries[index] = bits & ~Huge.WRITABLE

    def _protect_below(
        self, root: TdpRoot, directory: Directory, base: int, first: int, last: int
    ) -> None:
        whole = first <= base and base + ENTRIES * ENTRIES - 1 <= last
        if whole and not self._changes.is_traced:
            directory.state = bytearray(directory.state.translate(_PROTECTED))
            for leaf in directory.leaves.values():
                leaf.writable = 0
            for index in list(directory.leaves):
                directory.pack(index)
            return
        for index in range(max(first - base, 0) >> 9, min(last - base >> 9, ENTRIES - 1) + 1):
            state = directory.state[index]
            gfn = base + (index << 9)
            if state & HUGE and state & Huge.WRITABLE:
                self._trace_w(root, gfn, 2, self._values.huge(root.as_id, state, gfn))
                directory.state[index] = state & ~Huge.WRITABLE
            elif directory.is_table(index):
                self._protect_mask(root, directory, index, gfn, mask_of(gfn, first, last))
            cond_resched()

    def protect_pages(self, slot: Memslot, first: int, mask: int) -> None:
        """Take W from page `first` + N of a slot for each bit N; large leaves stay."""
        gfn = slot.base_gfn + first
        for root in self._tables.valid(slot.as_id):
            for block in range(gfn >> 9, (gfn + mask.bit_length() - 1 >> 9) + 1):
                start = block << 9
                below = mask >> start - gfn if start >= gfn else mask << gfn - start
                found = self._table(root, start)
                if found is not None:
                    self._protect_mask(root, *found, start, below & ALL)

    def _table(self, root: TdpRoot, gfn: int) -> tuple[Directory, int] | None:
        """Return directory and index of the table of level 1 for a gfn."""
        upper = root.top.entries.get(gfn >> 27)
        if not isinstance(upper, Upper):
            return None
        directory = upper.entries.get(gfn >> 18 & 511)
        index = gfn >> 9 & 511
        if not isinstance(directory, Directory) or not directory.is_table(index):
            return None
        return directory, index

    def _protect_mask(
        self, root: TdpRoot, directory: Directory, index: int, gfn: int, mask: int
    ) -> None:
        state = directory.state[index]
        if state == FULL_PROTECTED:
            return
        if state == FULL_RW and mask == ALL and not self._changes.is_traced:
            directory.state[index] = FULL_PROTECTED
            return
        leaf = directory.leaf(index)
        gone = leaf.writable & mask
        if self._changes.is_traced:
            for place in set_bits(gone):
                old = self._values.leaf(root.as_id, directory, index, place, gfn + place)
                self._trace_w(root, gfn + place, 1, old)
        leaf.writable &= ~gone
        directory.pack(index)

    def _trace_w(self, root: TdpRoot, gfn: int, level: int, old: int) -> None:
        self._changes.trace(root.as_id, gfn, level, old, old & ~W)

    def split(self, slot: Memslot, first: int, npages: int) -> None:
        """Split the large leaves that map some pages of a slot."""
        low = slot.base_gfn + first
        high = low + npages - 1
        for root in self._tables.valid(slot.as_id):
            for gfn, upper, index in list(root.directories(low, high)):
                cond_resched()
                entry = upper.entries[index]
                if not isinstance(entry, Directory):
                    entry = self._mapper.split_level_3(root, upper, index, gfn)
                self._split_below(root, entry, gfn, low, high)

    def _split_below(
        self, root: TdpRoot, directory: Directory, base: int, low: int, high: int
    ) -> None:
        for index in range(max(low - base, 0) >> 9, min(high - base >> 9, ENTRIES - 1) + 1):
            if directory.state[index] & HUGE:
                cond_resched()
                self._mapper.split_level_2(root, directory, index, base + (index << 9))

    def protect_large(self, slot: Memslot, first: int) -> None:
        """Take W from a large leaf for good. Like kvm_tdp_mmu_write_protect_gfn."""
        gfn = slot.base_gfn + first
        for root in self._tables.valid(slot.as_id):
            upper = root.top.entries.get(gfn >> 27)
            entry = upper.entries.get(gfn >> 18 & 511) if isinstance(upper, Upper) else None
            if isinstance(entry, int) and isinstance(upper, Upper):
                self._trace_protected(root, gfn >> 18 << 18, 3, entry)
                upper.entries[gfn >> 18 & 511] = entry & ~Huge.WRITABLE | Huge.PROTECTED
            elif isinstance(entry, Directory) and entry.state[gfn >> 9 & 511] & HUGE:
                index = gfn >> 9 & 511
                self._trace_protected(root, gfn & -ENTRIES, 2, entry.state[index])
                entry.state[index] = entry.state[index] & ~Huge.WRITABLE | Huge.PROTECTED

    def _trace_protected(self, root: TdpRoot, gfn: int, level: int, bits: int) -> None:
        old = self._values.huge(root.as_id, bits, gfn)
        new = self._values.huge(root.as_id, bits & ~Huge.WRITABLE | Huge.PROTECTED, gfn)
        self._changes.trace(root.as_id, gfn, level, old, new)

    def zap_collapsible(self, slot: Memslot) -> None:
        """Zap tables that a large leaf could replace now, with a flush each."""
        for root in self._tables.valid(slot.as_id):
            for gfn, upper, index in list(root.directories(slot.base_gfn, slot.end_gfn - 1)):
                cond_resched()
                entry = upper.entries[index]
                if isinstance(entry, Directory):
                    self._collapse(root, upper, index, entry, gfn, slot)

    def _collapse(
        self,
        root: TdpRoot,
        upper: Upper,
        index: int,
        directory: Directory,
        base: int,
        slot: Memslot,
    ) -> None:
        if slot.base_gfn <= base and slot.max_level(base) == 3:
            self._trace_gone(root, base, 3, self._values.table(directory.page))
            self._changes.take_down(root.as_id, directory, base, 2, shared=True)
            del upper.entries[index]
            self._arch.flush_remote_tlbs()
            return
        for place in range(ENTRIES):
            gfn = base + (place << 9)
            if not slot.base_gfn <= gfn < slot.end_gfn or not directory.is_table(place):
                continue
            if slot.max_level(gfn) < 2:
                continue
            cond_resched()
            self._trace_gone(root, gfn, 2, self._values.table(directory.page + 1 + place))
            self._changes.take_down_leaf(root.as_id, directory, place, gfn, shared=True)
            directory.leaves.pop(place, None)
            directory.state[place] = ABSENT
            self._arch.flush_remote_tlbs()

    def _trace_gone(self, root: TdpRoot, gfn: int, level: int, old: int) -> None:
        values = self._values
        new = values.empty if self._rules.zaps_in_one_step else values.removed
        self._changes.trace(root.as_id, gfn, level, old, new)


def entry_bits(entry: object) -> int:
    """Return the bits of a large leaf of level 3, 0 for a table."""
    return entry if isinstance(entry, int) else 0

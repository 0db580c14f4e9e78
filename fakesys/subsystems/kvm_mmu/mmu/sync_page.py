"""Synchronizing a shadow page with the guest's table that it shadows."""

from __future__ import annotations

from fakesys.subsystems.kvm_mmu.mmu.guest_walker import (
    ACCESSED,
    ADDRESS,
    DIRTY,
    PRESENT,
    entry_access,
)
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.role import DIRECT, WRITE, access_of
from fakesys.subsystems.kvm_mmu.shadow.sptes import Leaf, set_bits
from fakesys.subsystems.kvm_mmu.slots.guest_memory import GuestMemory


class PageSyncer:
    """Reads guest tables of level 1 again. Like paging_tmpl.h:sync_page (v6.1)."""

    def __init__(self, arch: MmuArch, memory: GuestMemory) -> None:
        self._arch = arch
        self._memory = memory

    def sync(self, row: int) -> bool:
        """Drop or change sptes whose guest entry changed; return whether TLBs must be flushed."""
        leaf = self._arch.sptes.leaf(row)
        table = self._arch.pages.gfn[row] << 12
        flush = False
        for index in set_bits(leaf.present):
            entry = self._memory.entry(table + index * 8)
            if entry is None or not self._still_maps(leaf, index, entry):
                self._arch.sptes.drop(row, 1 << index)
                flush = True
                continue
            flush |= self._update(row, leaf, index, entry)
        return flush

    def _still_maps(self, leaf: Leaf, index: int, entry: int) -> bool:
        assert leaf.gfns is not None
        if entry & (PRESENT | ACCESSED) != PRESENT | ACCESSED:
            return False
        return leaf.gfns[index] == (entry & ADDRESS) >> 12

    def _update(self, row: int, leaf: Leaf, index: int, entry: int) -> bool:
        assert leaf.gfns is not None
        bit = 1 << index
        access = access_of(self._arch.pages.role[row]) & entry_access(entry)
        if not entry & DIRTY:
            access &= ~WRITE
        had_w = bool(leaf.writable & bit)
        if (
            access & WRITE
            and not leaf.host_readonly & bit
            and (had_w or self._is_free(leaf.gfns[index]))
        ):
            leaf.writable |= bit
            leaf.dirty |= bit
            leaf.mmu_readonly &= ~bit
        else:
            leaf.writable &= ~bit
            leaf.dirty &= ~bit
            leaf.mmu_readonly |= bit
        # Made again as if prefetched: the guest has not used it in this form.
        leaf.accessed &= ~bit
        return had_w and not leaf.writable & bit

    def _is_free(self, gfn: int) -> bool:
        """Return whether no shadowed table lies in the page."""
        pages = self._arch.pages
        return all(pages.role[row] & DIRECT for row in pages.at(gfn))

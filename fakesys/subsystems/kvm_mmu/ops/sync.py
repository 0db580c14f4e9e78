"""Bringing a page up to date with the guest's table that it shadows."""

from __future__ import annotations

from fakesys.subsystems.kvm_mmu.ops.walker import (
    ACCESSED,
    ADDRESS,
    DIRTY,
    PRESENT,
    GuestMemory,
    entry_access,
)
from fakesys.subsystems.kvm_mmu.shadow.arch import Kit
from fakesys.subsystems.kvm_mmu.shadow.links import Tree
from fakesys.subsystems.kvm_mmu.shadow.role import DIRECT, WRITE, access_of
from fakesys.subsystems.kvm_mmu.shadow.sptes import Leaf, bits


class Syncer:
    """Reads tables of level 1 again. Like paging_tmpl.h:sync_page (v6.1)."""

    def __init__(self, kit: Kit, tree: Tree, memory: GuestMemory) -> None:
        self._kit = kit
        self._tree = tree
        self._memory = memory
        tree.sync = self.sync

    def sync(self, row: int) -> bool:
        """Drop or change the sptes whose entry changed; must translations be flushed?"""
        leaf = self._kit.sptes.leaf(row)
        table = self._kit.pages.gfn[row] << 12
        flush = False
        for index in bits(leaf.present):
            entry = self._memory.entry(table + index * 8)
            if entry is None or not self._still_maps(leaf, index, entry):
                self._kit.sptes.drop(row, 1 << index)
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
        access = access_of(self._kit.pages.role[row]) & entry_access(entry)
        if not entry & DIRTY:
            access &= ~WRITE
        had_w = bool(leaf.writable & bit)
        if access & WRITE and not leaf.host_ro & bit and (had_w or self._is_free(leaf.gfns[index])):
            leaf.writable |= bit
            leaf.dirty |= bit
            leaf.sealed &= ~bit
        else:
            leaf.writable &= ~bit
            leaf.dirty &= ~bit
            leaf.sealed |= bit
        # Made again as if prefetched: the guest has not used it in this form.
        leaf.accessed &= ~bit
        return had_w and not leaf.writable & bit

    def _is_free(self, gfn: int) -> bool:
        """Is the page no table that is shadowed?"""
        pages = self._kit.pages
        return all(pages.role[row] & DIRECT for row in pages.at(gfn))

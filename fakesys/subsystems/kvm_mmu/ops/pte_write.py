"""The guest writes to one of its tables by an instruction that KVM emulates."""

from __future__ import annotations

from fakesys.subsystems.kvm_mmu.ops.zap import Zapper
from fakesys.subsystems.kvm_mmu.shadow.arch import Kit
from fakesys.subsystems.kvm_mmu.shadow.links import Tree
from fakesys.subsystems.kvm_mmu.shadow.pages import NONE
from fakesys.subsystems.kvm_mmu.shadow.role import DIRECT, level_of

ENTRY_SIZE = 8
# write_flooding_count at which a page is taken for no table any more.
FLOODED = 3


class PteWriter:
    """Keeps shadow pages true when the guest's table changes. Like mmu.c:kvm_mmu_pte_write."""

    def __init__(self, kit: Kit, tree: Tree, zapper: Zapper) -> None:
        self._kit = kit
        self._tree = tree
        self._zapper = zapper

    def wrote(self, gpa: int, data: bytes) -> None:
        """`data` was written there, within one page."""
        kit = self._kit
        if not self._tree.tracked.indirect:
            return
        kit.stats.mmu_pte_write += 1
        zapped: list[int] = []
        flush = False
        for row in kit.pages.at(gpa >> 12):
            if kit.pages.role[row] & DIRECT:
                continue
            if self._is_flooded(row, gpa & 0xFFF, len(data)):
                self._zapper.prepare(row, zapped)
                kit.stats.mmu_flooded += 1
            else:
                flush |= self._forget(row, gpa >> 3 & 511, any(data))
        if zapped:
            self._zapper.commit(zapped)
        elif flush:
            kit.flush_remote_tlbs()

    def _forget(self, row: int, index: int, nonzero: bool) -> bool:
        """Clear the spte of the entry that was written; was it present?"""
        if nonzero and level_of(self._kit.pages.role[row]) > 1:
            self._kit.stats.mmu_pde_zapped += 1
        if self._tree.child(row, index) != NONE:
            self._tree.unlink(row, index)
            return True
        return self._kit.sptes.drop(row, 1 << index) > 0

    def _is_flooded(self, row: int, offset: int, size: int) -> bool:
        """Like mmu.c:detect_write_misaligned, detect_write_flooding."""
        misaligned = (offset ^ offset + size - 1) & -ENTRY_SIZE or size < 4
        if misaligned and (offset % ENTRY_SIZE or size != 1):
            return True
        pages = self._kit.pages
        if level_of(pages.role[row]) == 1:
            return False
        pages.flood[row] += 1
        return pages.flood[row] >= FLOODED

"""Guest writes to its page tables by instructions that KVM emulates."""

from __future__ import annotations

from fakesys.subsystems.kvm_mmu.mmu.zap import Zapper
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.links import ShadowLinks
from fakesys.subsystems.kvm_mmu.shadow.pages import NONE
from fakesys.subsystems.kvm_mmu.shadow.role import DIRECT, level_of

ENTRY_SIZE = 8
# write_flooding_count at which a page no longer counts as a table.
FLOODED = 3


class PteWriter:
    """Keeps shadow pages consistent when the guest's table changes.

    Like mmu.c:kvm_mmu_pte_write.
    """

    def __init__(self, arch: MmuArch, links: ShadowLinks, zapper: Zapper) -> None:
        self._arch = arch
        self._links = links
        self._zapper = zapper

    def pte_write(self, gpa: int, data: bytes) -> None:
        """Handle that `data` was written at `gpa`, within one page."""
        arch = self._arch
        if not self._links.write_tracking.indirect_shadow_pages:
            return
        arch.stats.mmu_pte_write += 1
        zapped: list[int] = []
        flush = False
        for row in arch.pages.at(gpa >> 12):
            if arch.pages.role[row] & DIRECT:
                continue
            if self._is_flooded(row, gpa & 0xFFF, len(data)):
                self._zapper.prepare(row, zapped)
                arch.stats.mmu_flooded += 1
            else:
                flush |= self._forget(row, gpa >> 3 & 511, any(data))
        if zapped:
            self._zapper.commit(zapped)
        elif flush:
            arch.flush_remote_tlbs()

    def _forget(self, row: int, index: int, nonzero: bool) -> bool:
        """Clear the spte of the entry that was written; return whether it was present."""
        if nonzero and level_of(self._arch.pages.role[row]) > 1:
            self._arch.stats.mmu_pde_zapped += 1
        if self._links.child(row, index) != NONE:
            self._links.unlink(row, index)
            return True
        return self._arch.sptes.drop(row, 1 << index) > 0

    def _is_flooded(self, row: int, offset: int, size: int) -> bool:
        """Return whether the page no longer behaves like a table and is to be zapped.

        Like mmu.c:detect_write_misaligned, detect_write_flooding.
        """
        misaligned = (offset ^ offset + size - 1) & -ENTRY_SIZE or size < 4
        if misaligned and (offset % ENTRY_SIZE or size != 1):
            return True
        pages = self._arch.pages
        if level_of(pages.role[row]) == 1:
            return False
        pages.write_flooding_count[row] += 1
        return pages.write_flooding_count[row] >= FLOODED

"""Direct tables: which page size a fault may map, and the tables down to that level.

Follows mmu.c:direct_map, kvm_mmu_max_mapping_level, kvm_mmu_hugepage_adjust (v6.1).
"""

from __future__ import annotations

from fakesys.subsystems.kvm_mmu.mmu.get_page import PageFinder
from fakesys.subsystems.kvm_mmu.mmu.roots import Roots
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.links import ShadowLinks
from fakesys.subsystems.kvm_mmu.shadow.pages import NONE
from fakesys.subsystems.kvm_mmu.shadow.role import (
    ACCESS_SHIFT,
    ALL_ACCESS,
    DIRECT,
    LEVEL_MASK,
    SMM,
    access_of,
    role_word,
)
from fakesys.subsystems.kvm_mmu.shadow.sptes import ENTRIES
from fakesys.subsystems.kvm_mmu.shadow.vcpu import VcpuMmu
from fakesys.subsystems.kvm_mmu.shadow.walk import PF_FETCH, ShadowEntry, ShadowWalker
from fakesys.subsystems.kvm_mmu.slots.memslots import Memslot

# PT64_ROOT_MAX_LEVEL
MAX_LEVEL = 5


class DirectMap:
    """Makes direct tables below a root or below a table that shadows a guest's large page."""

    def __init__(
        self,
        arch: MmuArch,
        links: ShadowLinks,
        finder: PageFinder,
        roots: Roots,
        walker: ShadowWalker,
    ) -> None:
        self._arch = arch
        self._pages = arch.pages
        self._links = links
        self._finder = finder
        self._roots = roots
        self._walker = walker
        self._base = arch.policy.base_role

    def max_mapping_level(self, slot: Memslot | None, gfn: int, highest: int) -> int:
        """Return the largest page size that the host, the slot and shadowed tables allow."""
        if slot is None or highest == 1:
            return 1
        level = slot.max_level(gfn, highest)
        while level > 1 and self._links.write_tracking.disallows_lpage(gfn, level):
            level -= 1
        return level

    def split_level(self, asked: int, error: int) -> int:
        """Return up to which level new tables count as splits of a large page; 0 for none.

        Only a fetch that must not map a large page splits. Like mmu.c:kvm_mmu_hugepage_adjust
        (v6.1).
        """
        if not self._arch.nx_huge_pages or not error & PF_FETCH:
            return 0
        rules = self._arch.policy.nx
        return MAX_LEVEL if rules is not None and rules.counts_all else asked

    def descend(
        self, entry: ShadowEntry, gfn: int, goal: int, access: int, split: int = 0
    ) -> ShadowEntry:
        """Make the missing direct tables down to level `goal`; return the entry for the spte.

        `split`: new tables below entries up to this level are counted as splits. Precondition: the
        page budget was checked by `Roots.make_available`.
        """
        row, index, level = entry
        role = self._base | DIRECT | access << ACCESS_SHIFT | self._pages.role[row] & SMM
        while level > goal or (level > 1 and self._arch.nx_huge_pages):
            self._pages.write_flooding_count[row] = 0
            child = self._links.child(row, index)
            if level == goal:
                # Like mmu.c:disallowed_hugepage_adjust: what is below may be executable.
                if child == NONE:
                    break
                goal -= 1
            child = self._valid_child(row, index, child, access)
            if child == NONE:
                child = self._make_child(row, index, gfn, role | level - 1)
                if level <= split:
                    self._arch.account_nx_huge_page(child)
            row, level = child, level - 1
            index = gfn >> 9 * (level - 1) & 511
        return ShadowEntry(row, index, level)

    def make_table(self, vcpu: VcpuMmu, gfn: int) -> int:
        """Return the table of level 1 for a gfn with TDP, made if missing.

        NONE if pages are short. Precondition: the vCPU has roots loaded.
        """
        if not self._roots.make_available():
            return NONE
        return self.descend(self._walker.first(vcpu, gfn << 12), gfn, 1, ALL_ACCESS).row

    def has_table(self, gfn: int) -> bool:
        """Return whether a table of level 1 for a gfn with TDP exists, linked or not."""
        role = role_word(self._base, 1, direct=True)
        return self._pages.find(gfn & -ENTRIES, role) != NONE

    def _valid_child(self, row: int, index: int, child: int, access: int) -> int:
        """Unlink a table whose access differs. Like mmu.c:validate_direct_spte.

        That happens when the guest changed the access of its large page.
        """
        if child == NONE or access_of(self._pages.role[child]) == access:
            return child
        self._links.unlink(row, index)
        self._arch.flush_remote_tlbs()
        return NONE

    def _make_child(self, row: int, index: int, gfn: int, role: int) -> int:
        shift = 9 * (role & LEVEL_MASK)
        child = self._finder.get_page(gfn >> shift << shift, role)
        self._links.link(row, index, child)
        return child

"""Finding the shadow page of a gfn and role, or making it.

Follows mmu.c:kvm_mmu_get_page (v5.4), kvm_mmu_get_shadow_page (v6.1).
"""

from __future__ import annotations

from array import array

from fakesys.subsystems.kvm_mmu.events.pages import KvmMmuGetPage
from fakesys.subsystems.kvm_mmu.mmu.sync_page import PageSyncer
from fakesys.subsystems.kvm_mmu.mmu.zap import Zapper
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.links import NO_CHILDREN, ShadowLinks
from fakesys.subsystems.kvm_mmu.shadow.pages import ACCOUNTED, NONE, UNSYNC
from fakesys.subsystems.kvm_mmu.shadow.role import DIRECT, LEVEL_MASK, level_of
from fakesys.subsystems.kvm_mmu.shadow.sptes import ENTRIES


class PageFinder:
    """Finds shadow pages by gfn and role; makes those that are missing."""

    def __init__(
        self, arch: MmuArch, links: ShadowLinks, zapper: Zapper, syncer: PageSyncer
    ) -> None:
        self._arch = arch
        self._pages = arch.pages
        self._links = links
        self._zapper = zapper
        self._syncer = syncer

    def get_page(self, gfn: int, role: int) -> int:
        """Return the page that shadows or maps `gfn` in this role; make it if it is missing.

        A page that is out of sync is synchronized first. Precondition: the page budget was checked
        by `Roots.make_available`.
        """
        row = self._pages.find(gfn, role)
        if row == NONE:
            return self._make(gfn, role)
        if not role & DIRECT:
            if self._pages.flags[row] & UNSYNC and self._syncer.sync(row):
                self._arch.flush_remote_tlbs()
            self._pages.write_flooding_count[row] = 0
        self._trace_get_page(row, created=False)
        return row

    def make_tables(self, row: int, index: int, gfn: int, count: int) -> list[int] | None:
        """Make `count` direct tables of level 1 below neighbouring entries of a table, at once.

        Return their rows, or None if one of the tables exists, linked or not, or if a listener of
        kvm_mmu_get_page must hear of each.
        """
        if KvmMmuGetPage in self._arch.bus.wanted:
            return None
        children = self._links.children.get(row)
        if children is None:
            children = self._links.children[row] = NO_CHILDREN[:]
        role = self._pages.role[row] - 1
        span = range(gfn, gfn + count * ENTRIES, ENTRIES)
        if any(child != NONE for child in children[index : index + count]):
            return None
        if any(self._pages.find(base, role) != NONE for base in span):
            return None
        rows, collisions = self._pages.alloc_tables(gfn, count, role, row, index)
        children[index : index + count] = array("i", rows)
        self._pages.present[row] += count
        stats = self._arch.stats
        stats.mmu_cache_miss += count
        stats.max_mmu_page_hash_collisions = max(stats.max_mmu_page_hash_collisions, collisions)
        return rows

    def _make(self, gfn: int, role: int) -> int:
        arch, pages = self._arch, self._pages
        stats = arch.stats
        collisions = pages.collisions(gfn)
        if collisions > stats.max_mmu_page_hash_collisions:
            stats.max_mmu_page_hash_collisions = collisions
        stats.mmu_cache_miss += 1
        if not role & DIRECT and level_of(role) > 1:
            self._zap_unsync_pages(gfn)
        row = pages.alloc(gfn, role)
        if not role & DIRECT:
            pages.flags[row] |= ACCOUNTED
            self._links.write_tracking.account(gfn, role & LEVEL_MASK, 1)
            if arch.sptes.protect_gfn(gfn, pt_protect=True):
                arch.flush_remote_tlbs()
        self._trace_get_page(row, created=True)
        return row

    def _zap_unsync_pages(self, gfn: int) -> None:
        """Zap the unsync pages of a gfn: the guest uses what was a lower table as an upper one."""
        for row in self._pages.at(gfn):
            if self._pages.flags[row] & UNSYNC:
                self._zapper.zap_now(row)

    def _trace_get_page(self, row: int, *, created: bool) -> None:
        if KvmMmuGetPage in self._arch.bus.wanted:
            self._arch.bus.emit(KvmMmuGetPage(**self._links.fields(row), created=created))

"""The root pages of vCPUs, and the budget of shadow pages that loading roots and faults share.

Follows mmu.c:kvm_mmu_load, kvm_mmu_free_roots, make_mmu_pages_available (v6.1).
"""

from __future__ import annotations

from fakesys.subsystems.kvm_mmu.mmu.get_page import PageFinder
from fakesys.subsystems.kvm_mmu.mmu.sync_page import PageSyncer
from fakesys.subsystems.kvm_mmu.mmu.zap import Zapper
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch, Request
from fakesys.subsystems.kvm_mmu.shadow.links import ShadowLinks
from fakesys.subsystems.kvm_mmu.shadow.pages import UNSYNC
from fakesys.subsystems.kvm_mmu.shadow.role import INVALID, SMM_SHIFT, role_word
from fakesys.subsystems.kvm_mmu.shadow.vcpu import Paging, VcpuMmu
from fakesys.subsystems.kvm_mmu.slots.memslots import AddressSpaces

# KVM_MIN_FREE_MMU_PAGES, KVM_REFILL_PAGES
MIN_FREE_PAGES = 5
REFILL_PAGES = 25


class Roots:
    """Loads and frees the roots of vCPUs, and enforces the budget of shadow pages.

    `n_max`: the budget. `n_requested`: what KVM_SET_NR_MMU_PAGES asked for, 0 if it never did.
    """

    def __init__(
        self,
        arch: MmuArch,
        links: ShadowLinks,
        zapper: Zapper,
        syncer: PageSyncer,
        finder: PageFinder,
        spaces: AddressSpaces,
    ) -> None:
        self._arch = arch
        self._pages = arch.pages
        self._links = links
        self._zapper = zapper
        self._syncer = syncer
        self._finder = finder
        self._spaces = spaces
        self.n_max = 0
        self.n_requested = 0

    @property
    def available(self) -> int:
        """Number of pages that may still be made."""
        return max(0, self.n_max - self._pages.used)

    def make_available(self) -> bool:
        """Recycle pages if few are left; return whether one may be made now.

        Call it before `PageFinder.get_page`. Like mmu.c:make_mmu_pages_available.
        """
        if self.n_max - self._pages.used >= MIN_FREE_PAGES:
            return True
        if self._arch.policy.recycle_skips_roots:
            self._zapper.recycle(REFILL_PAGES - self.available)
        else:
            calls = self._zapper.recycle_until(lambda: self.available >= REFILL_PAGES)
            self._arch.stats.mmu_recycled += calls
        return self.available > 0

    def change_budget(self, goal: int) -> None:
        """Set the budget, after zapping what exceeds it. Like mmu.c:kvm_mmu_change_mmu_pages."""
        used = self._pages.used
        if used > goal:
            if self._arch.policy.recycle_skips_roots:
                self._zapper.recycle(used - goal)
            else:
                self._zapper.recycle_until(lambda: self._pages.used <= goal)
            goal = self._pages.used
        self.n_max = goal

    def enter(self, vcpu: VcpuMmu) -> bool:
        """Handle requests and load roots, until there is nothing left to do.

        Call it before each access of the guest; return False if it has no roots and must not run,
        which is a triple fault. Like x86.c:vcpu_enter_guest (v6.1). Precondition: the budget has
        room for the roots.
        """
        while vcpu.requests or not vcpu.roots:
            self._handle_requests(vcpu)
            if not vcpu.roots and not self.load(vcpu):
                return self._arch.policy.dummy_roots
        return True

    def has_root(self, vcpu: VcpuMmu) -> bool:
        """Return whether a root is loaded, be it the one that maps nothing."""
        if vcpu.roots:
            return True
        return self._arch.policy.dummy_roots and not self._is_root_visible(vcpu)

    def load(self, vcpu: VcpuMmu) -> bool:
        """Load the roots for the vCPU's paging mode. Like mmu.c:kvm_mmu_load.

        Return False if the guest's own root is in no slot.
        """
        if not self._is_root_visible(vcpu):
            return False
        self.make_available()
        for gfn, role in wanted_roots(vcpu, self._arch.policy.base_role | vcpu.as_id << SMM_SHIFT):
            row = self._finder.get_page(gfn, role)
            self._pages.root_count[row] += 1
            vcpu.roots.append(row)
        self.sync(vcpu)
        return True

    def _is_root_visible(self, vcpu: VcpuMmu) -> bool:
        """Return whether a slot has the guest's root. Like mmu.c:mmu_check_root."""
        if vcpu.paging is not Paging.LONG:
            return True
        slot = self._spaces.memslots[vcpu.as_id].find(vcpu.cr3 >> 12)
        return slot is not None and not slot.invalid

    def sync(self, vcpu: VcpuMmu) -> None:
        """Read the tables again that the guest changed. Like mmu.c:kvm_mmu_sync_roots."""
        if vcpu.paging is Paging.LONG:
            for row in vcpu.roots:
                self.sync_children(row)

    def sync_children(self, row: int) -> None:
        """Synchronize all unsync pages below a table. Like mmu.c:mmu_sync_children."""
        arch, links = self._arch, self._links
        while under := (links.unsync_under(row) if arch.unsync_pages else []):
            protected = False
            for child in under:
                protected |= arch.sptes.protect_gfn(self._pages.gfn[child], pt_protect=True)
            if protected:
                arch.flush_remote_tlbs()
            flush = False
            for child in under:
                if self._pages.flags[child] & UNSYNC:
                    links.unlink_unsync(child)
                flush |= self._syncer.sync(child)
            if flush:
                arch.flush_remote_tlbs()

    def free(self, vcpu: VcpuMmu) -> None:
        """Release all roots of a vCPU. Like mmu.c:kvm_mmu_unload."""
        rows = list(vcpu.roots)
        vcpu.roots.clear()
        self._put(rows)

    def reset(self, vcpu: VcpuMmu, paging: Paging, cr3: int) -> None:
        """Switch to another paging mode or CR3, set from user space.

        Like mmu.c:kvm_mmu_reset_context.
        """
        if vcpu.paging is paging and vcpu.cr3 == cr3:
            return
        self.free(vcpu)
        vcpu.paging = paging
        vcpu.cr3 = cr3
        vcpu.mmio = None
        if self._arch.policy.sregs_flush:
            vcpu.requests |= Request.TLB_FLUSH_GUEST

    def _put(self, rows: list[int]) -> None:
        """Drop references to roots.

        Like mmu.c:kvm_mmu_free_roots: the last one frees an invalid page.
        """
        zapped: list[int] = []
        for row in rows:
            self._pages.root_count[row] -= 1
            if not self._pages.root_count[row] and self._pages.role[row] & INVALID:
                self._zapper.prepare(row, zapped)
        self._zapper.commit(zapped)

    def _handle_requests(self, vcpu: VcpuMmu) -> None:
        asked, vcpu.requests = vcpu.requests, Request.NONE
        if asked & Request.RELOAD:
            self._reload(vcpu)
        # What the steps above asked for is asked of this vCPU too, and served with the rest.
        asked |= vcpu.requests & (Request.TLB_FLUSH | Request.TLB_FLUSH_GUEST)
        vcpu.requests &= ~(Request.TLB_FLUSH | Request.TLB_FLUSH_GUEST)
        if asked & Request.TLB_FLUSH:
            vcpu.stats.tlb_flush += 1
        if asked & Request.TLB_FLUSH_GUEST:
            vcpu.stats.tlb_flush += 1
            self.sync(vcpu)

    def _reload(self, vcpu: VcpuMmu) -> None:
        if not self._arch.policy.reload_obsolete_only:
            self.free(vcpu)
            return
        # One obsolete root of four makes all four be loaded again.
        if any(self._pages.is_stale(row) for row in vcpu.roots):
            self.free(vcpu)


def wanted_roots(vcpu: VcpuMmu, base_role: int) -> list[tuple[int, int]]:
    """Return gfn and role of each root for the paging mode of the vCPU."""
    if vcpu.paging is Paging.TDP:
        return [(0, role_word(base_role, 4, direct=True))]
    if vcpu.paging is Paging.LONG:
        return [(vcpu.cr3 >> 12, role_word(base_role, 4, direct=False))]
    return [(quarter << 18, role_word(base_role, 2, direct=True)) for quarter in range(4)]

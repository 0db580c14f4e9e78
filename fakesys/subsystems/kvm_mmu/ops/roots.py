"""A vCPU's side of the MMU: how it translates, its root pages, and what others ask of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum

from msgspec import Struct

from fakesys.subsystems.kvm.stats import VcpuStats
from fakesys.subsystems.kvm_mmu.ops.zap import Zapper
from fakesys.subsystems.kvm_mmu.shadow.arch import Kit, Request
from fakesys.subsystems.kvm_mmu.shadow.links import Tree
from fakesys.subsystems.kvm_mmu.shadow.pages import NONE, UNSYNC
from fakesys.subsystems.kvm_mmu.shadow.role import INVALID, role_word

# KVM_MIN_FREE_MMU_PAGES, KVM_REFILL_PAGES
MIN_FREE_PAGES = 5
REFILL_PAGES = 25
PREVIOUS_ROOTS = 3


class Paging(Enum):
    """What a vCPU's roots translate."""

    # Guest physical addresses: the guest's own tables are walked by the processor.
    TDP = "tdp"
    # Real mode with shadow paging: four roots of a PAE table.
    NONE = "none"
    # 64-bit guest with shadow paging.
    LONG = "long"


class MmioCache(Struct):
    """The last MMIO page: dead as soon as the memslot generation differs."""

    gva: int
    gfn: int
    generation: int


def never() -> bool:
    """A vCPU that stands in user space whenever others ask something of it."""
    return False


class VcpuMmu:
    """State of one vCPU. `roots`: rows it counts in root_count, empty when none is loaded.

    `in_guest`: does it run the guest, as far as nobody acts for it?
    """

    def __init__(
        self,
        vcpu_id: int,
        stats: VcpuStats,
        paging: Paging,
        *,
        in_guest: Callable[[], bool] = never,
    ) -> None:
        self.id = vcpu_id
        self.stats = stats
        self.paging = paging
        self.cr3 = 0
        self.roots: list[int] = []
        # (cr3, root) of the address spaces that the guest used before.
        self.previous: list[tuple[int, int]] = []
        self.requests: int = Request.NONE
        self._in_guest = in_guest
        # Its own thread is at work in the kernel: it needs no kick.
        self.acts = False
        self.mmio: MmioCache | None = None

    def in_guest(self) -> bool:
        """Must it be kicked to notice a request?"""
        return not self.acts and self._in_guest()

    def held_roots(self) -> Iterable[int]:
        """The pages that it counts in root_count."""
        yield from self.roots
        yield from (row for _, row in self.previous)


class Roots:
    """Loads and frees the roots of vCPUs; the page budget that loads and faults share."""

    def __init__(self, kit: Kit, tree: Tree, zapper: Zapper) -> None:
        self._kit = kit
        self._pages = kit.pages
        self._tree = tree
        self._zapper = zapper
        self.n_max = 0
        self.n_requested = 0

    @property
    def available(self) -> int:
        """Pages that may still be made."""
        return max(0, self.n_max - self._pages.used)

    def make_available(self) -> bool:
        """Recycle if pages are short; is there one now? Like mmu.c:make_mmu_pages_available."""
        if self.n_max - self._pages.used >= MIN_FREE_PAGES:
            return True
        if self._kit.policy.recycle_skips_roots:
            self._zapper.recycle(REFILL_PAGES - self.available)
        else:
            calls = self._zapper.recycle_until(lambda: self.available >= REFILL_PAGES)
            self._kit.stats.mmu_recycled += calls
        return self.available > 0

    def change_budget(self, goal: int) -> None:
        """Like mmu.c:kvm_mmu_change_mmu_pages."""
        used = self._pages.used
        if used > goal:
            if self._kit.policy.recycle_skips_roots:
                self._zapper.recycle(used - goal)
            else:
                self._zapper.recycle_until(lambda: self._pages.used <= goal)
            goal = self._pages.used
        self.n_max = goal

    def enter(self, vcpu: VcpuMmu) -> None:
        """Do what is requested and load roots, until nothing is left to do.

        Like x86.c:vcpu_enter_guest (v6.1). Precondition: the budget has room for the roots.
        """
        while vcpu.requests or not vcpu.roots:
            self._serve(vcpu)
            if not vcpu.roots:
                self.load(vcpu)

    def load(self, vcpu: VcpuMmu) -> None:
        """Like mmu.c:kvm_mmu_load."""
        self.make_available()
        base = self._kit.policy.base_role
        if vcpu.paging is Paging.TDP:
            wanted = [(0, role_word(base, 4, direct=True))]
        elif vcpu.paging is Paging.LONG:
            wanted = [(vcpu.cr3 >> 12, role_word(base, 4, direct=False))]
        else:
            wanted = [(quarter << 18, role_word(base, 2, direct=True)) for quarter in range(4)]
        for gfn, role in wanted:
            row = self._tree.get_page(gfn, role)
            self._pages.roots[row] += 1
            vcpu.roots.append(row)
        self.sync(vcpu)

    def sync(self, vcpu: VcpuMmu) -> None:
        """Read again the tables that the guest changed. Like mmu.c:kvm_mmu_sync_roots."""
        if vcpu.paging is Paging.LONG:
            for row in vcpu.roots:
                self.sync_children(row)

    def sync_children(self, row: int) -> None:
        """Like mmu.c:mmu_sync_children."""
        kit, tree = self._kit, self._tree
        while under := (tree.unsync_under(row) if kit.unsync_pages else []):
            protected = False
            for child in under:
                protected |= kit.sptes.protect_gfn(self._pages.gfn[child], seal=True)
            if protected:
                kit.flush_remote_tlbs()
            flush = False
            for child in under:
                if self._pages.flags[child] & UNSYNC:
                    tree.unlink_unsync(child)
                flush |= tree.sync(child)
            if flush:
                kit.flush_remote_tlbs()

    def free(self, vcpu: VcpuMmu) -> None:
        """Let go of all roots. Like mmu.c:kvm_mmu_unload."""
        rows = list(vcpu.held_roots())
        vcpu.roots.clear()
        vcpu.previous.clear()
        self._put(rows)

    def switch_cr3(self, vcpu: VcpuMmu, cr3: int) -> None:
        """The guest loads CR3; the last roots are remembered. Like mmu.c:fast_cr3_switch (v5.4)."""
        if vcpu.paging is not Paging.LONG or not vcpu.roots:
            vcpu.cr3 = cr3
            return
        vcpu.previous.insert(0, (vcpu.cr3, vcpu.roots.pop()))
        vcpu.cr3 = cr3
        for place, (known, row) in enumerate(vcpu.previous):
            if known == cr3 and not self._pages.is_stale(row):
                del vcpu.previous[place]
                vcpu.roots.append(row)
                vcpu.requests |= Request.MMU_SYNC
                break
        dropped = vcpu.previous[PREVIOUS_ROOTS:]
        del vcpu.previous[PREVIOUS_ROOTS:]
        self._put([row for _, row in dropped])

    def reset(self, vcpu: VcpuMmu, paging: Paging, cr3: int) -> None:
        """Another mode or CR3 from user space. Like mmu.c:kvm_mmu_reset_context."""
        if vcpu.paging is paging and vcpu.cr3 == cr3:
            return
        self.free(vcpu)
        vcpu.paging = paging
        vcpu.cr3 = cr3
        vcpu.mmio = None
        vcpu.requests |= Request.TLB_FLUSH_GUEST

    def _put(self, rows: list[int]) -> None:
        """Like mmu.c:kvm_mmu_free_roots: an invalid page goes with its last reference."""
        zapped: list[int] = []
        for row in rows:
            self._pages.roots[row] -= 1
            if not self._pages.roots[row] and self._pages.role[row] & INVALID:
                self._zapper.prepare(row, zapped)
        self._zapper.commit(zapped)

    def _serve(self, vcpu: VcpuMmu) -> None:
        asked, vcpu.requests = vcpu.requests, Request.NONE
        if asked & Request.RELOAD:
            self._reload(vcpu)
        if asked & Request.MMU_SYNC:
            self.sync(vcpu)
        # What the steps above asked for is asked of this vCPU too, and served with the rest.
        asked |= vcpu.requests & (Request.TLB_FLUSH | Request.TLB_FLUSH_GUEST)
        vcpu.requests &= ~(Request.TLB_FLUSH | Request.TLB_FLUSH_GUEST)
        if asked & Request.TLB_FLUSH:
            vcpu.stats.tlb_flush += 1
        if asked & Request.TLB_FLUSH_GUEST:
            vcpu.stats.tlb_flush += 1
            self.sync(vcpu)

    def _reload(self, vcpu: VcpuMmu) -> None:
        if not self._kit.policy.reload_obsolete_only:
            self.free(vcpu)
            return
        gone = [row for row in vcpu.held_roots() if self._pages.is_stale(row)]
        vcpu.previous = [(cr3, row) for cr3, row in vcpu.previous if row not in gone]
        if any(row in gone for row in vcpu.roots):
            # One obsolete root of four makes all four be loaded anew.
            gone.extend(row for row in vcpu.roots if row not in gone)
            vcpu.roots.clear()
        self._put(gone)


__all__ = ["NONE", "MmioCache", "Paging", "Roots", "VcpuMmu"]

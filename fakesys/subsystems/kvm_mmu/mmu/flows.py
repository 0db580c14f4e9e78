"""Flows that zap many pages: all of them, as before the series and after it, or those of a slot."""

from __future__ import annotations

from collections.abc import Callable

from fakesys.core.scheduling.resched import cond_resched
from fakesys.subsystems.kvm_mmu.events.pages import KvmMmuZapAllFast
from fakesys.subsystems.kvm_mmu.mmu.zap import UNLIMITED, Flow, Step, Zapper, lock_uncontended
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch, Request
from fakesys.subsystems.kvm_mmu.shadow.pages import NONE
from fakesys.subsystems.kvm_mmu.shadow.policy import ZapFlow
from fakesys.subsystems.kvm_mmu.shadow.role import DIRECT, INVALID
from fakesys.subsystems.kvm_mmu.slots.memslots import Memslot


class ZapAll(Flow):
    """The old flow: from the head to the end, and from the head again after each drop of the lock.

    Like mmu.c:kvm_mmu_zap_all (v5.3).
    """

    flow = ZapFlow.ZAP_ALL

    def __init__(
        self, arch: MmuArch, zapper: Zapper, break_wanted: Callable[[], bool] = lock_uncontended
    ) -> None:
        super().__init__(arch, zapper, break_wanted)
        # None: the walk starts again at the head, where pages made meanwhile are.
        self._position: int | None = None

    def step(self, budget: int = UNLIMITED) -> Step:
        """Zap up to `budget` pages, or until the lock is dropped."""
        if budget == UNLIMITED and not self.unfreed and self._undisturbed():
            self.zapped += self._zapper.zap_all_at_once(newest_first=True)
            return self._done()
        pages = self._pages
        while budget > 0:
            at = pages.after_head if self._position is None else self._position
            self._position, row = pages.next_older(at)
            if row == NONE:
                self._zapper.commit(self.unfreed)
                return self._done()
            if self._spares(row):
                continue
            budget -= 1
            unstable, _ = self._zap(row, self.unfreed)
            if unstable:
                self._position = None
            elif self._break_wanted():
                self._position = None
                return self._drop_lock()
        return Step.PAUSED

    def _spares(self, row: int) -> bool:
        return bool(self._pages.role[row] & INVALID and self._pages.root_count[row])


class ZapFast(Flow):
    """The fast flow: a new generation, then the obsolete pages from the tail.

    Like mmu.c:kvm_mmu_zap_all_fast and kvm_zap_obsolete_pages (v5.4).
    """

    flow = ZapFlow.FAST

    def __init__(
        self, arch: MmuArch, zapper: Zapper, break_wanted: Callable[[], bool] = lock_uncontended
    ) -> None:
        super().__init__(arch, zapper, break_wanted)
        self._batch = 0
        if arch.policy.vm_zapped_list:
            self.unfreed = arch.zapped_obsolete

    def begin(self) -> None:
        """Make every page obsolete at once: O(1) in pages, O(vCPUs) for the requests."""
        arch, pages = self._arch, self._pages
        if KvmMmuZapAllFast in arch.bus.wanted:
            event = KvmMmuZapAllFast(mmu_valid_gen=pages.valid_gen, mmu_used_pages=pages.used)
            arch.bus.emit(event)
        pages.new_generation(arch.policy.next_generation(pages.valid_gen))
        if arch.policy.explicit_reload:
            arch.request_all(Request.RELOAD)

    def step(self, budget: int = UNLIMITED) -> Step:
        """Zap up to `budget` pages, or until the lock is dropped."""
        if budget == UNLIMITED and self._undisturbed() and self._all_obsolete():
            self.zapped += self._zapper.zap_all_at_once(newest_first=False)
            return self._done()
        pages, arch = self._pages, self._arch
        position = pages.before_tail
        while budget > 0:
            position, row = pages.next_newer(position)
            if row == NONE or not arch.is_obsolete(row):
                self._zapper.commit(self.unfreed)
                return self._done()
            if self._passes_over(row):
                continue
            if self._batch >= arch.policy.batch and self._break_wanted():
                return self._drop_lock()
            budget -= 1
            unstable, number = self._zap(row, self.unfreed)
            if unstable or arch.policy.batch_counts_all:
                self._batch += number
            if unstable:
                position = pages.before_tail
        return Step.PAUSED

    def _passes_over(self, row: int) -> bool:
        if not self._pages.role[row] & INVALID:
            return False
        return not self._arch.policy.skip_only_rooted or self._pages.root_count[row] > 0

    def _all_obsolete(self) -> bool:
        _, newest = self._pages.next_older(self._pages.after_head)
        return newest == NONE or self._arch.is_obsolete(newest)

    def _drop_lock(self) -> Step:
        if self._arch.policy.commit_on_break:
            self._zapper.commit(self.unfreed)
        self._batch = 0
        return super()._drop_lock()


class ZapMmio(ZapAll):
    """The old flow for a wrap of the MMIO generation: only pages that have had MMIO sptes.

    Like mmu.c:__kvm_mmu_zap_all with `mmio_only` (v5.3).
    """

    def _undisturbed(self) -> bool:
        return False

    def _spares(self, row: int) -> bool:
        cond_resched()
        return super()._spares(row) or not self._arch.sptes.is_mmio_cached(row)


class ZapSlot(Flow):
    """Only what one slot has: its sptes, and the pages of its gfns, in the order of the gfns.

    `shadowing_only`: of the pages only those that shadow tables of the guest. Like
    mmu.c:kvm_mmu_invalidate_zap_pages_in_memslot (v5.1), kvm_mmu_zap_memslot (v6.12).
    """

    flow = ZapFlow.SLOT

    def __init__(
        self,
        arch: MmuArch,
        zapper: Zapper,
        break_wanted: Callable[[], bool],
        slot: Memslot,
        *,
        shadowing_only: bool,
    ) -> None:
        super().__init__(arch, zapper, break_wanted)
        self._slot = slot
        self._shadowing_only = shadowing_only
        self._gfn = slot.base_gfn
        self._flush = False

    def begin(self) -> None:
        """Drop the sptes of the slot."""
        slot = self._slot
        dropped = self._arch.sptes.drop_range(slot.base_gfn, slot.npages, slot.as_id)
        self._flush = dropped > 0

    def step(self, budget: int = UNLIMITED) -> Step:
        """Zap up to `budget` gfns that have pages, or until the lock is dropped."""
        for gfn in self._gfns():
            if budget <= 0:
                return Step.PAUSED
            budget -= 1
            self._gfn = gfn + 1
            for row in self._pages.at(gfn):
                if self._goes(row):
                    self._zap(row, self.unfreed)
            if self._break_wanted():
                self._flush_or_commit()
                return self._drop_lock()
        self._flush_or_commit()
        return self._done()

    def _gfns(self) -> list[int]:
        """Return those of the gfns to come that have pages, in order."""
        pages, end = self._pages, self._slot.end_gfn
        found = set()
        for row in pages.oldest_first():
            if self._gfn <= pages.gfn[row] < end and self._goes(row):
                found.add(pages.gfn[row])
        return sorted(found)

    def _goes(self, row: int) -> bool:
        is_direct = bool(self._pages.role[row] & DIRECT)
        return not self._pages.is_stale(row) and not (is_direct and self._shadowing_only)

    def _flush_or_commit(self) -> None:
        """Like mmu.c:kvm_mmu_remote_flush_or_zap."""
        if self.unfreed:
            self._zapper.commit(self.unfreed)
        elif self._flush:
            self._arch.flush_remote_tlbs()
        self._flush = False


FLOWS: dict[ZapFlow, type[ZapAll] | type[ZapFast]] = {
    ZapFlow.ZAP_ALL: ZapAll,
    ZapFlow.FAST: ZapFast,
}

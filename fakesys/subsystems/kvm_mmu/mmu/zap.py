"""Zapping: one page, what all flows over many pages have in common, and recycling.

A flow is an object whose `step` zaps some pages and tells whether it is done. A test or the
scheduling model of guest/race.py lets vCPUs run wherever the kernel could drop the lock.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from enum import Enum
from typing import Any

from fakesys.core.scheduling.resched import cond_resched
from fakesys.subsystems.kvm_mmu.events.pages import KvmMmuPrepareZapPage
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch, Request
from fakesys.subsystems.kvm_mmu.shadow.links import ShadowLinks
from fakesys.subsystems.kvm_mmu.shadow.pages import NONE, ON_LIST, UNSYNC, ShadowPages
from fakesys.subsystems.kvm_mmu.shadow.policy import ZapFlow
from fakesys.subsystems.kvm_mmu.shadow.role import DIRECT, INVALID, level_of
from fakesys.subsystems.kvm_mmu.shadow.sptes import ALL, EMPTY

UNLIMITED, _ROWS_AT_ONCE = 1 << 62, 1 << 15


class Step(Enum):
    """How a step of a flow ended."""

    DONE = "done"
    # The kernel drops the lock here: vCPUs that wait for it go first.
    LOCK_DROPPED = "lock dropped"
    # The budget is used up; the lock is still held.
    PAUSED = "paused"


def lock_uncontended() -> bool:
    """Answer for a lock that no vCPU waits for."""
    return False


class Zapper:
    """Takes shadow pages out of use: `prepare` for each, then `commit` to flush and free them."""

    def __init__(self, arch: MmuArch, links: ShadowLinks) -> None:
        self._arch = arch
        self._pages = arch.pages
        self._links = links

    def prepare(self, row: int, zapped: list[int]) -> tuple[bool, int]:
        """Zap a page and the unsync pages below it; append the pages to be freed to `zapped`.

        Return whether pages other than `row` left the list, so that a walk must start again, and
        how many were appended. Call `commit` afterwards. Like mmu.c:__kvm_mmu_prepare_zap_page.
        """
        arch, links, pages = self._arch, self._links, self._pages
        if KvmMmuPrepareZapPage in arch.bus.wanted:
            arch.bus.emit(KvmMmuPrepareZapPage(**links.fields(row)))
        arch.stats.mmu_shadow_zapped += 1
        number = self._zap_unsync_children(row, zapped) if arch.unsync_pages else 0
        arch.sptes.drop(row, ALL)
        arch.sptes.clear_mmio(row)
        links.unlink_children(row)
        links.unlink_parents(row)
        unstable = number > 0
        if not pages.role[row] & (INVALID | DIRECT):
            links.unaccount(row)
        if pages.flags[row] & UNSYNC:
            links.unlink_unsync(row)
        if row in arch.nx_splits:
            arch.unaccount_nx_huge_page(row)
        if pages.root_count[row]:
            self._retire_root(row)
        else:
            number += 1
            if pages.flags[row] & ON_LIST:
                pages.unlist(row)
            pages.used -= 1
            zapped.append(row)
        pages.invalidate(row)
        return unstable, number

    def commit(self, zapped: list[int]) -> None:
        """Flush once and free the pages. Like mmu.c:kvm_mmu_commit_zap_page."""
        if not zapped:
            return
        self._arch.flush_remote_tlbs()
        for row in zapped:
            self._links.forget_row(row)
            self._arch.sptes.forget_row(row)
            self._pages.free(row)
        zapped.clear()

    def zap_now(self, row: int) -> None:
        """Zap one page and free it."""
        zapped: list[int] = []
        self.prepare(row, zapped)
        self.commit(zapped)

    def recycle(self, number: int) -> int:
        """Zap `number` or more of the oldest pages but not roots; return how many were zapped.

        Like mmu.c:kvm_mmu_zap_oldest_mmu_pages (v6.1).
        """
        pages = self._pages
        zapped: list[int] = []
        total = 0
        with self._arch.mmu_lock:
            position = pages.before_tail
            while total < number:
                cond_resched()
                position, row = pages.next_newer(position)
                if row == NONE:
                    break
                if pages.root_count[row]:
                    continue
                unstable, count = self.prepare(row, zapped)
                total += count
                if unstable:
                    position = pages.before_tail
            self.commit(zapped)
        self._arch.stats.mmu_recycled += total
        return total

    def recycle_until(self, enough: Callable[[], bool]) -> int:
        """Zap from the tail, roots included, until `enough` says so; return how many calls it took.

        Ends at a root, which frees nothing. Like mmu.c:prepare_zap_oldest_mmu_page (v5.4).
        """
        zapped: list[int] = []
        calls = 0
        with self._arch.mmu_lock:
            while not enough():
                cond_resched()
                row = self._pages.oldest()
                if row == NONE or not self.prepare(row, zapped)[1]:
                    break
                calls += 1
            self.commit(zapped)
        return calls

    def can_zap_all_at_once(self) -> bool:
        """Return whether zapping in one pass has the same observable result as a walk."""
        pending = self._arch.unsync_pages or self._arch.zapped_obsolete
        return not pending and KvmMmuPrepareZapPage not in self._arch.bus.wanted

    def zap_all_at_once(self, *, newest_first: bool) -> int:
        """Zap every page on the list in one pass; return how many.

        Precondition: all pages are to go.
        """
        arch, pages = self._arch, self._pages
        if not pages.used:
            return 0
        with arch.mmu_lock:
            zapped, garbage = self._zap_all(newest_first)
        for forgotten in garbage:
            while forgotten:
                cond_resched()
                forgotten.popitem()
        return zapped

    def _zap_all(self, newest_first: bool) -> tuple[int, list[dict[int, Any]]]:
        """Return how many pages were zapped, and what takes long to free."""
        arch, pages, links = self._arch, self._pages, self._links
        # Few pages are roots, and their vCPUs know them: no walk over all pages.
        rooted = self._rooted()
        on_list = sorted((r for r in rooted if pages.flags[r] & ON_LIST), key=pages.age)
        stale = [row for row in on_list if pages.role[row] & INVALID]
        retired = [row for row in on_list if not pages.role[row] & INVALID]
        if newest_first:
            retired.reverse()
        off_list = [row for row in rooted if not pages.flags[row] & ON_LIST]
        freed = pages.used - len(rooted)
        kept = [*off_list, *stale, *retired]
        others = _rows_without(pages, kept)
        garbage = [arch.sptes.forget_all(), *links.forget_all()]
        for row in list(arch.nx_splits):
            arch.unaccount_nx_huge_page(row)
        # Those that were zapped before may still have a Leaf without sptes, which is forgotten too.
        for row in rooted:
            pages.leaf_state[row] = EMPTY
        for row in retired:
            pages.present[row] = 0
            pages.parent[row] = NONE
            self._retire_root(row)
            pages.role[row] |= INVALID
        pages.clear(kept, others)
        pages.used -= freed
        arch.stats.mmu_shadow_zapped += freed + len(retired)
        if freed:
            arch.flush_remote_tlbs()
        return freed + len(retired), garbage

    def _rooted(self) -> list[int]:
        return sorted({row for vcpu in self._arch.vcpus for row in vcpu.roots})

    def _retire_root(self, row: int) -> None:
        """Take a root out of use; it stays in memory until its vCPUs release it."""
        arch, pages = self._arch, self._pages
        by_generation = arch.policy.reload_unless_obsolete
        asked = arch.is_obsolete(row) if by_generation else pages.role[row] & INVALID
        if pages.flags[row] & ON_LIST:
            pages.unlist(row)
            if not arch.policy.roots_leave_list:
                pages.append(row)
        if not asked:
            arch.request_all(Request.RELOAD)

    def _zap_unsync_children(self, row: int, zapped: list[int]) -> int:
        """Like mmu.c:mmu_zap_unsync_children."""
        if level_of(self._pages.role[row]) == 1:
            return 0
        number = 0
        while under := self._links.unsync_under(row):
            for child in under:
                self.prepare(child, zapped)
                number += 1
        return number


def _rows_without(pages: ShadowPages, kept: list[int]) -> array[int]:
    """Return the rows of all pages but these."""
    rows, end = array("i"), len(pages.gfn)
    for start in range(0, end, _ROWS_AT_ONCE):
        cond_resched()
        rows.extend(range(start, min(start + _ROWS_AT_ONCE, end)))
    for row in sorted(set(kept), reverse=True):
        del rows[row]
    return rows


class Flow:
    """A zap of all pages that can drop the lock on its way.

    `rounds`: how often the lock was dropped. `zapped`: calls of `Zapper.prepare`. `sptes_cleared`:
    entries that were in use in those pages. `finished`: nothing is left to zap. `break_wanted`:
    whether the scheduler or a waiting vCPU wants the lock, asked only where the kernel asks.
    `about_to_zap`: called with the row of each page before it is zapped.

    Call `begin` once, then, with `mmu_lock` held, `step` until it returns `Step.DONE`:

        flow = memory.begin_zap(ZapFlow.FAST, break_wanted=lambda: True)
        while flow.step() is Step.LOCK_DROPPED:
            memory.roots.enter(vcpu)
    """

    flow: ZapFlow

    def __init__(
        self, arch: MmuArch, zapper: Zapper, break_wanted: Callable[[], bool] = lock_uncontended
    ) -> None:
        self._arch = arch
        self._pages = arch.pages
        self._zapper = zapper
        self._break_wanted = break_wanted
        self.rounds = 0
        self.zapped = 0
        self.finished = False
        self.sptes_cleared = 0
        self.about_to_zap: Callable[[int], None] | None = None
        # Pages that were zapped and are not freed yet.
        self.unfreed: list[int] = []

    def begin(self) -> None:
        """Do what happens once, under the lock, before the first page is zapped."""

    def step(self, budget: int = UNLIMITED) -> Step:
        """Zap up to `budget` pages, or until the lock is dropped."""
        raise NotImplementedError

    def _undisturbed(self) -> bool:
        return self._break_wanted is lock_uncontended and self._zapper.can_zap_all_at_once()

    def _done(self) -> Step:
        self.finished = True
        return Step.DONE

    def _zap(self, row: int, zapped: list[int]) -> tuple[bool, int]:
        cond_resched()
        if self.about_to_zap is not None:
            self.about_to_zap(row)
        self.sptes_cleared += self._pages.present[row]
        self.zapped += 1
        return self._zapper.prepare(row, zapped)

    def _drop_lock(self) -> Step:
        self.rounds += 1
        return Step.LOCK_DROPPED

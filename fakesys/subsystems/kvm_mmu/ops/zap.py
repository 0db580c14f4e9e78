"""Zapping: one page, the two flows over all pages, and recycling.

A flow is an object whose `step` zaps some pages and says whether it is done, so that a test or
the scheduling model can let vCPUs run wherever the kernel could drop the lock.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from fakesys.subsystems.kvm_mmu.events import catalog as trace
from fakesys.subsystems.kvm_mmu.shadow.arch import Kit, Request
from fakesys.subsystems.kvm_mmu.shadow.links import Tree
from fakesys.subsystems.kvm_mmu.shadow.pages import NONE, ON_LIST, UNSYNC
from fakesys.subsystems.kvm_mmu.shadow.policy import ZapFlow
from fakesys.subsystems.kvm_mmu.shadow.role import DIRECT, INVALID, level_of
from fakesys.subsystems.kvm_mmu.shadow.sptes import ALL

UNLIMITED = 1 << 62


class Step(Enum):
    """How a step of a flow ended."""

    DONE = "done"
    # The kernel drops the lock here: whoever waits for it goes first.
    LOCK_DROPPED = "lock dropped"
    # The budget is used up; the lock is still held.
    PAUSED = "paused"


def nobody_waits() -> bool:
    """The answer of a lock that no vCPU contends for."""
    return False


class Zapper:
    """Takes pages out of use."""

    def __init__(self, kit: Kit, tree: Tree) -> None:
        self._kit = kit
        self._pages = kit.pages
        self._tree = tree
        tree.zap = self.zap_now

    def prepare(self, row: int, zapped: list[int]) -> tuple[bool, int]:
        """Zap a page and what is unsync below it; pages to be freed go to `zapped`.

        Answers whether other pages than `row` left the list (a walk must begin anew), and how
        many were put on `zapped`. Like mmu.c:__kvm_mmu_prepare_zap_page.
        """
        kit, tree, pages = self._kit, self._tree, self._pages
        if trace.KvmMmuPrepareZapPage in kit.bus.wanted:
            kit.bus.emit(trace.KvmMmuPrepareZapPage(**tree.fields(row)))
        kit.stats.mmu_shadow_zapped += 1
        number = self._zap_unsync_children(row, zapped) if kit.unsync_pages else 0
        kit.sptes.drop(row, ALL)
        kit.sptes.clear_mmio(row)
        tree.unlink_children(row)
        tree.unlink_parents(row)
        unstable = number > 0
        if not pages.role[row] & (INVALID | DIRECT):
            tree.unaccount(row)
        if pages.flags[row] & UNSYNC:
            tree.unlink_unsync(row)
        if row in kit.nx_splits:
            kit.forget_split(row)
        if pages.roots[row]:
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
        self._kit.flush_remote_tlbs()
        for row in zapped:
            self._tree.forget_row(row)
            self._kit.sptes.forget_row(row)
            self._pages.free(row)
        zapped.clear()

    def zap_now(self, row: int) -> None:
        """Zap one page and free it."""
        zapped: list[int] = []
        self.prepare(row, zapped)
        self.commit(zapped)

    def recycle(self, number: int) -> int:
        """Zap `number` of the oldest pages; how many were zapped.

        Like mmu.c:kvm_mmu_zap_oldest_mmu_pages (v6.1).
        """
        pages = self._pages
        zapped: list[int] = []
        total = 0
        position = pages.before_tail
        while total < number:
            position, row = pages.next_newer(position)
            if row == NONE:
                break
            if pages.roots[row]:
                continue
            unstable, count = self.prepare(row, zapped)
            total += count
            if unstable:
                position = pages.before_tail
        self.commit(zapped)
        self._kit.stats.mmu_recycled += total
        return total

    def recycle_until(self, enough: Callable[[], bool]) -> int:
        """Zap from the tail, roots included, until `enough`; how many calls it took.

        Ends at a root, which frees nothing. Like mmu.c:prepare_zap_oldest_mmu_page (v5.4).
        """
        zapped: list[int] = []
        calls = 0
        while not enough():
            row = self._pages.oldest()
            if row == NONE or not self.prepare(row, zapped)[1]:
                break
            calls += 1
        self.commit(zapped)
        return calls

    def can_zap_all_at_once(self) -> bool:
        """Would nobody see the difference between one pass and a walk?"""
        if self._kit.unsync_pages or self._kit.zapped_obsolete:
            return False
        return trace.KvmMmuPrepareZapPage not in self._kit.bus.wanted

    def zap_all_at_once(self, *, newest_first: bool) -> int:
        """Zap every page on the list in one pass; how many. All must be due for it."""
        kit, pages = self._kit, self._pages
        if not pages.used:
            return 0
        # Few pages are roots, and their vCPUs know them: no walk over all pages.
        rooted = self._rooted()
        on_list = sorted((r for r in rooted if pages.flags[r] & ON_LIST), key=pages.age)
        stale = [row for row in on_list if pages.role[row] & INVALID]
        retired = [row for row in on_list if not pages.role[row] & INVALID]
        if newest_first:
            retired.reverse()
        off_list = [row for row in rooted if not pages.flags[row] & ON_LIST]
        freed = pages.used - len(rooted)
        kit.sptes.forget_all()
        self._tree.forget_all()
        for row in list(kit.nx_splits):
            kit.forget_split(row)
        for row in retired:
            pages.present[row] = 0
            pages.parent[row] = NONE
            pages.leaf[row] = 0
            self._retire_root(row)
            pages.role[row] |= INVALID
        pages.clear([*off_list, *stale, *retired])
        pages.used -= freed
        kit.stats.mmu_shadow_zapped += freed + len(retired)
        if freed:
            kit.flush_remote_tlbs()
        return freed + len(retired)

    def _rooted(self) -> list[int]:
        return sorted({row for vcpu in self._kit.vcpus for row in vcpu.held_roots()})

    def _retire_root(self, row: int) -> None:
        """A root stays in memory until its vCPUs let go of it."""
        kit, pages = self._kit, self._pages
        if kit.policy.reload_unless_obsolete:
            ask = not kit.is_obsolete(row)
        else:
            ask = not pages.role[row] & INVALID
        if pages.flags[row] & ON_LIST:
            pages.unlist(row)
            if not kit.policy.roots_leave_list:
                pages.append(row)
        if ask:
            kit.request_all(Request.RELOAD)

    def _zap_unsync_children(self, row: int, zapped: list[int]) -> int:
        """Like mmu.c:mmu_zap_unsync_children."""
        if level_of(self._pages.role[row]) == 1:
            return 0
        number = 0
        while under := self._tree.unsync_under(row):
            for child in under:
                self.prepare(child, zapped)
                number += 1
        return number


class Flow:
    """A zap of all pages. `rounds`: how often the lock was dropped. `zapped`: prepare calls.

    `sptes_cleared`: entries that were in use in them. `finished`: nothing is left.
    `break_wanted`: does the scheduler, or somebody who waits, want the lock? Asked only where the
    kernel asks. `about_to_zap`: hears of every page, by its row.
    """

    flow: ZapFlow

    def __init__(
        self, kit: Kit, zapper: Zapper, break_wanted: Callable[[], bool] = nobody_waits
    ) -> None:
        self._kit = kit
        self._pages = kit.pages
        self._zapper = zapper
        self._break_wanted = break_wanted
        self.rounds = 0
        self.zapped = 0
        self.finished = False
        self.sptes_cleared = 0
        self.about_to_zap: Callable[[int], None] | None = None

    def begin(self) -> None:
        """What happens once, under the lock, before the first page."""

    def step(self, budget: int = UNLIMITED) -> Step:
        """Zap up to `budget` pages, or until the lock is dropped."""
        raise NotImplementedError

    def _undisturbed(self) -> bool:
        return self._break_wanted is nobody_waits and self._zapper.can_zap_all_at_once()

    def _done(self) -> Step:
        self.finished = True
        return Step.DONE

    def _zap(self, row: int, zapped: list[int]) -> tuple[bool, int]:
        if self.about_to_zap is not None:
            self.about_to_zap(row)
        self.sptes_cleared += self._pages.present[row]
        self.zapped += 1
        return self._zapper.prepare(row, zapped)

    def _drop_lock(self) -> Step:
        self.rounds += 1
        return Step.LOCK_DROPPED


class ZapAll(Flow):
    """The old flow: from the head, to the end, from the start again whenever the lock was dropped.

    Like mmu.c:kvm_mmu_zap_all (v5.3).
    """

    flow = ZapFlow.ZAP_ALL

    def __init__(
        self, kit: Kit, zapper: Zapper, break_wanted: Callable[[], bool] = nobody_waits
    ) -> None:
        super().__init__(kit, zapper, break_wanted)
        self._list: list[int] = []
        # None: the walk begins anew at the head, where pages made meanwhile lie.
        self._position: int | None = None

    def step(self, budget: int = UNLIMITED) -> Step:
        """Zap up to `budget` pages, or until the lock is dropped."""
        if budget == UNLIMITED and not self._list and self._undisturbed():
            self.zapped += self._zapper.zap_all_at_once(newest_first=True)
            return self._done()
        pages = self._pages
        while budget > 0:
            at = pages.after_head if self._position is None else self._position
            self._position, row = pages.next_older(at)
            if row == NONE:
                self._zapper.commit(self._list)
                return self._done()
            if pages.role[row] & INVALID and pages.roots[row]:
                continue
            budget -= 1
            unstable, _ = self._zap(row, self._list)
            if unstable:
                self._position = None
            elif self._break_wanted():
                self._position = None
                return self._drop_lock()
        return Step.PAUSED


class ZapFast(Flow):
    """The fast flow: a new generation, then the obsolete pages from the tail.

    Like mmu.c:kvm_mmu_zap_all_fast and kvm_zap_obsolete_pages (v5.4).
    """

    flow = ZapFlow.FAST

    def __init__(
        self, kit: Kit, zapper: Zapper, break_wanted: Callable[[], bool] = nobody_waits
    ) -> None:
        super().__init__(kit, zapper, break_wanted)
        self._batch = 0
        self._list = kit.zapped_obsolete if kit.policy.vm_zapped_list else []

    def begin(self) -> None:
        """Make every page obsolete at once: O(1) in pages, O(vCPUs) for the requests."""
        kit, pages = self._kit, self._pages
        if trace.KvmMmuZapAllFast in kit.bus.wanted:
            event = trace.KvmMmuZapAllFast(mmu_valid_gen=pages.valid_gen, mmu_used_pages=pages.used)
            kit.bus.emit(event)
        pages.new_generation(kit.policy.next_generation(pages.valid_gen))
        if kit.policy.explicit_reload:
            kit.request_all(Request.RELOAD)

    def step(self, budget: int = UNLIMITED) -> Step:
        """Zap up to `budget` pages, or until the lock is dropped."""
        if budget == UNLIMITED and self._undisturbed() and self._all_obsolete():
            self.zapped += self._zapper.zap_all_at_once(newest_first=False)
            return self._done()
        pages, kit = self._pages, self._kit
        position = pages.before_tail
        while budget > 0:
            position, row = pages.next_newer(position)
            if row == NONE or not kit.is_obsolete(row):
                self._zapper.commit(self._list)
                return self._done()
            if self._passes_over(row):
                continue
            if self._batch >= kit.policy.batch and self._break_wanted():
                return self._drop_lock()
            budget -= 1
            unstable, number = self._zap(row, self._list)
            if unstable or kit.policy.batch_counts_all:
                self._batch += number
            if unstable:
                position = pages.before_tail
        return Step.PAUSED

    def _passes_over(self, row: int) -> bool:
        if not self._pages.role[row] & INVALID:
            return False
        return not self._kit.policy.skip_only_rooted or self._pages.roots[row] > 0

    def _all_obsolete(self) -> bool:
        _, newest = self._pages.next_older(self._pages.after_head)
        return newest == NONE or self._kit.is_obsolete(newest)

    def _drop_lock(self) -> Step:
        if self._kit.policy.commit_on_break:
            self._zapper.commit(self._list)
        self._batch = 0
        return super()._drop_lock()


FLOWS: dict[ZapFlow, type[ZapAll] | type[ZapFast]] = {
    ZapFlow.ZAP_ALL: ZapAll,
    ZapFlow.FAST: ZapFast,
}

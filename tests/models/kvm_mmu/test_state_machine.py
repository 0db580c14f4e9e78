"""Random histories of vCPUs, slots, zaps, the host and the shrinker: what must always hold.

I1 to I5 are the invariants of the fast zap: no vCPU that has reloaded reaches an obsolete page; a
new page has the new generation; the event counts 0, 1, 0, 1; it tells how many pages are used; and
along the list come first the obsolete pages, then the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fakesys.core.errors import KernelError
from fakesys.machine.kernels.mmu import MMU_KERNELS
from fakesys.subsystems.kvm_mmu.events.pages import KvmMmuGetPage, KvmMmuZapAllFast
from fakesys.subsystems.kvm_mmu.guest.page_tables import write_guest_tables
from fakesys.subsystems.kvm_mmu.mmu.zap import Flow, Step
from fakesys.subsystems.kvm_mmu.shadow.arch import Request
from fakesys.subsystems.kvm_mmu.shadow.pages import NONE, ON_LIST, UNSYNC
from fakesys.subsystems.kvm_mmu.shadow.policy import (
    K5_1,
    K5_3,
    K5_4,
    K5_4_STABLE,
    K6_1,
    K6_12,
    K6_18,
    SERIES,
    Generation,
    MmuPolicy,
    ZapFlow,
)
from fakesys.subsystems.kvm_mmu.shadow.role import INVALID, LEVEL_MASK
from fakesys.subsystems.kvm_mmu.shadow.vcpu import VcpuMmu
from fakesys.subsystems.kvm_mmu.slots.memslots import LOG_DIRTY_PAGES, Memslot
from fakesys.subsystems.kvm_mmu.vm.dirty_log import CAP_MANUAL_PROTECT
from fakesys.subsystems.kvm_mmu.vm.nx_huge_pages import recover
from fakesys.subsystems.kvm_mmu.vm.shrinker import Shrinker
from tests.long import LONG
from tests.models.kvm_mmu.rig import FIRST_TABLE, MIB, PAGE, Rig

EXAMPLES = int(os.environ.get("FAKESYS_EXAMPLES", "6"))
SLOTS = {0: (0, 64), 1: (80 * MIB, 8), 2: (1 << 30, 6)}
VCPU = st.integers(0, 2)
SLOT = st.sampled_from(list(SLOTS))
# Mostly within the slots, at times where nothing is.
ADDRESS = st.one_of(
    st.integers(0, 64 * MIB // PAGE - 1).map(lambda page: page * PAGE),
    st.integers(0, 8 * MIB // PAGE - 1).map(lambda page: 80 * MIB + page * PAGE),
    st.integers(0, 7 * MIB // PAGE - 1).map(lambda page: (1 << 30) + page * PAGE),
    st.integers(0, 40).map(lambda page: FIRST_TABLE + page * PAGE),
)
KIND = st.sampled_from("rwx")
TIMES = st.sampled_from((1, 1, 1, 7, 520))


class MmuMachine(RuleBasedStateMachine):
    """One history of one VM. A delete may drop the lock on its way: then others go on."""

    policy: MmuPolicy
    tdp: bool
    quiet: bool

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(self.policy, quiet=self.quiet, tdp=self.tdp)
        self.memory = self.rig.memory
        self.pages = self.memory.arch.pages
        self.shrinker = Shrinker()
        self.shrinker.add(self.memory.arch, self.memory.zapper)
        self.flow: Flow | None = None
        self.deleted: Memslot | None = None
        self.used_at_begin = 0
        # Slot -> gfns that were written since somebody asked.
        self.written: dict[int, set[int]] = {}
        self.generations: list[int] = []
        self.rig.bus.subscribe(KvmMmuZapAllFast, self._zapped_all)
        if not self.quiet:
            self.rig.bus.subscribe(KvmMmuGetPage, self._got_page)
        self.make_slot(0, thp=False)
        if not self.tdp:
            write_guest_tables(self.memory, regions=31)
        for number in range(3):
            self.rig.vcpu(number)
            self.rig.guests[number].set_up(real_mode=False)

    def _zapped_all(self, event: KvmMmuZapAllFast) -> None:
        self.generations.append(event.mmu_valid_gen)
        # I4
        assert event.mmu_used_pages == self.pages.used

    def _got_page(self, event: KvmMmuGetPage) -> None:
        # I2, and no look-up finds an obsolete page.
        assert event.mmu_valid_gen == self.pages.valid_gen

    @property
    def vcpus(self) -> list[VcpuMmu]:
        return list(self.memory.vcpus.values())

    # --- what happens ---

    @precondition(lambda self: self.flow is None)
    @rule(slot=SLOT, thp=st.booleans())
    def make_slot(self, slot: int, thp: bool) -> None:
        if slot in self.memory.slots.by_id:
            return
        gpa, size = SLOTS[slot]
        self.rig.slot(slot, gpa, size * MIB, name=f"m{slot}{thp}", thp=thp)

    @precondition(lambda self: self.flow is None)
    @rule(slot=SLOT)
    def toggle_log(self, slot: int) -> None:
        found = self.memory.slots.by_id.get(slot)
        if found is None:
            return
        gpa, size = SLOTS[slot]
        assert found.memory is not None
        self.rig.slot(
            slot, gpa, size * MIB, name=found.memory.name, flags=found.flags ^ LOG_DIRTY_PAGES
        )
        self.written[slot] = set()

    @precondition(lambda self: self.flow is None)
    @rule(slot=SLOT, wanted=st.lists(st.booleans(), max_size=40))
    def delete(self, slot: int, wanted: list[bool]) -> None:
        """Begin to delete a slot; who waits for the lock is what `wanted` says, in turn."""
        found = self.memory.slots.by_id.get(slot)
        if found is None:
            return
        self.used_at_begin = self.pages.used
        self.deleted = found
        self.flow = self.memory.begin_removal(found, break_wanted=_in_turn(wanted))
        self.go_on()

    @precondition(lambda self: self.flow is not None)
    @rule()
    def go_on(self) -> None:
        """The zap has the lock again."""
        assert self.deleted is not None
        if self.flow is not None:
            if self.flow.step() is Step.LOCK_DROPPED:
                return
            if isinstance(self.flow.flow.value, str) and self.policy.explicit_reload:
                # Whatever the vCPUs made meanwhile, no page is zapped that was not there before.
                assert self.flow.zapped <= self.used_at_begin
        self.flow = None
        self.memory.end_removal(self.deleted, None)
        first, npages = self.deleted.base_gfn, self.deleted.npages
        for row, mask in self.memory.arch.sptes.tables(first, npages):
            assert not self.memory.arch.sptes.present(row) & mask, "the slot is still mapped"
        self.written.pop(self.deleted.id, None)

    @rule(vcpu=VCPU, kind=KIND, address=ADDRESS, times=TIMES)
    def access(self, vcpu: int, kind: str, address: int, times: int) -> None:
        access = {"r": self.rig.read, "w": self.rig.write, "x": self.rig.fetch}[kind]
        touched = access(self.vcpus[vcpu], address, times)
        if kind == "w" and self.tdp and not touched.exits:
            self._wrote(address >> 12, times)

    def _wrote(self, gfn: int, npages: int) -> None:
        for page in range(gfn, gfn + npages):
            slot = self.memory.slots.find(page)
            if slot is not None and slot.logs_dirty:
                self.written.setdefault(slot.id, set()).add(page - slot.base_gfn)

    @rule(vcpu=VCPU, cr3=st.sampled_from((0x10000, 0x11000)))
    def set_cr3(self, vcpu: int, cr3: int) -> None:
        self.rig.guests[vcpu].set_cr3(cr3)

    @rule(vcpu=VCPU, real=st.booleans())
    def set_up(self, vcpu: int, real: bool) -> None:
        self.rig.guests[vcpu].set_up(real_mode=real)

    @rule(slot=SLOT, page=st.integers(0, 1500), npages=st.sampled_from((1, 8, 512)))
    def invalidate(self, slot: int, page: int, npages: int) -> None:
        found = self.memory.slots.by_id.get(slot)
        if found is None or found.memory is None or page + npages > found.npages:
            return
        self.memory.notifier.unmap(found.memory, page * PAGE, npages * PAGE)

    @rule(slot=SLOT, writable=st.booleans())
    def protect(self, slot: int, writable: bool) -> None:
        found = self.memory.slots.by_id.get(slot)
        if found is not None and found.memory is not None:
            self.memory.notifier.protect(found.memory, 0, 16 * PAGE, writable=writable)

    @rule(slot=SLOT)
    def get_log(self, slot: int) -> None:
        found = self.memory.slots.by_id.get(slot)
        if found is None or not found.logs_dirty:
            return
        dirty = {n for low, high in self.memory.dirty.get(slot) for n in range(low, high + 1)}
        assert self.written.get(slot, set()) <= dirty
        if not self.memory.dirty.manual:
            self.written[slot] = set()

    @rule(slot=SLOT, word=st.integers(0, 20))
    def clear_log(self, slot: int, word: int) -> None:
        found = self.memory.slots.by_id.get(slot)
        if found is None or not found.logs_dirty:
            return
        self.memory.dirty.clear(slot, word * 64, 64)
        gone = set(range(word * 64, word * 64 + 64))
        self.written[slot] = self.written.get(slot, set()) - gone

    @precondition(lambda self: self.flow is None)
    @rule(argument=st.sampled_from((0, 1)))
    def choose_log(self, argument: int) -> None:
        self.memory.enable_cap(CAP_MANUAL_PROTECT, argument)

    @rule(calls=st.integers(1, 4))
    def shrink(self, calls: int) -> None:
        for _ in range(calls):
            self.shrinker.scan()

    @rule(number=st.sampled_from((64, 70, 300)))
    def set_budget(self, number: int) -> None:
        self.memory.set_nr_mmu_pages(number)

    @precondition(lambda self: self.flow is None and self.policy.slot_zap_quirk)
    @rule()
    def zap_slots_alone(self) -> None:
        self.memory.disable_quirks(self.policy.slot_zap_quirk)

    @precondition(lambda self: self.flow is None and self.policy.nx is not None)
    @rule()
    def switch_nx_huge_pages(self) -> None:
        self.memory.arch.nx_on_host ^= True
        self.used_at_begin = self.pages.used
        self.memory.begin_zap(ZapFlow.FAST).step()

    @precondition(lambda self: self.policy.nx is not None)
    @rule(ratio=st.sampled_from((1, 2, 60)))
    def recover_large_pages(self, ratio: int) -> None:
        assert self.policy.nx is not None
        recover(self.memory, ratio, spares_logged=self.policy.nx.spares_logged)

    @precondition(lambda self: self.flow is None)
    @rule()
    def save_and_load(self) -> None:
        self.rig.reload()
        self.memory = self.rig.memory
        self.pages = self.memory.arch.pages
        self.shrinker = Shrinker()
        self.shrinker.add(self.memory.arch, self.memory.zapper)

    # --- what must hold ---

    @invariant()
    def no_large_page_can_be_executed_with_the_workaround(self) -> None:
        arch = self.memory.arch
        assert arch.stats.nx_lpage_splits == len(arch.nx_splits)
        assert not arch.nx_splits.keys() & set(self.pages._free)
        if not arch.nx_huge_pages:
            return
        for row in self.rows():
            if self.pages.role[row] & LEVEL_MASK > 1 and (present := arch.sptes.present(row)):
                assert arch.sptes.leaf(row).no_exec & present == present

    def reached(self, vcpu: VcpuMmu) -> Iterator[int]:
        """All pages that the vCPU's processor may walk through."""
        todo = list(vcpu.roots)
        while todo:
            row = todo.pop()
            yield row
            todo.extend(kid for kid in self.memory.links.children.get(row, ()) if kid != NONE)

    def rows(self) -> list[int]:
        """Pages in memory: on the list, roots off the list, zapped ones."""
        free = set(self.pages._free)
        return [row for row in range(len(self.pages.gfn)) if row not in free]

    @invariant()
    def i1_no_vcpu_reaches_an_obsolete_page(self) -> None:
        if not self.policy.explicit_reload:
            return
        for vcpu in self.vcpus:
            if not vcpu.requests & Request.RELOAD:
                assert not [row for row in self.reached(vcpu) if self.pages.is_stale(row)]

    @invariant()
    def i3_generations_alternate(self) -> None:
        if self.policy.generation is Generation.TOGGLE:
            assert self.generations == [n % 2 for n in range(len(self.generations))]
        assert all(later != earlier for earlier, later in pairwise(self.generations))

    @invariant()
    def i5_obsolete_pages_are_the_oldest(self) -> None:
        listed = self.rig.listed()
        if not self.policy.roots_leave_list:
            listed = [row for row in listed if not self._is_retired(row)]
        stale = [self.pages.gen[row] != self.pages.valid_gen for row in listed]
        assert stale == sorted(stale, reverse=True)

    def _is_retired(self, row: int) -> bool:
        return bool(self.pages.role[row] & INVALID)

    @invariant()
    def used_pages_are_the_listed_ones_and_the_roots_beside(self) -> None:
        beside = [row for row in self.rows() if not self.pages.flags[row] & ON_LIST]
        rooted = [row for row in beside if self.pages.root_count[row]]
        assert self.pages.used == len(self.rig.listed()) + len(rooted)
        assert len(self.pages) == self.pages.used + len(beside) - len(rooted)
        if self.flow is None:
            assert len(beside) == len(rooted)
            assert not self.memory.arch.zapped_obsolete

    @invariant()
    def roots_are_counted(self) -> None:
        held = [row for vcpu in self.vcpus for row in vcpu.roots]
        for row in self.rows():
            assert self.pages.root_count[row] == held.count(row)

    @invariant()
    def links_go_both_ways(self) -> None:
        links = self.memory.links
        for row, children in links.children.items():
            linked = [(index, kid) for index, kid in enumerate(children) if kid != NONE]
            for index, kid in linked:
                assert (row, index) in set(links.parents(kid))
            leaves = self.memory.arch.sptes.present(row).bit_count()
            assert self.pages.present[row] == len(linked) + leaves

    @invariant()
    def gauges_count_what_is_there(self) -> None:
        stats, sptes = self.rig.stats, self.memory.arch.sptes
        by_level = dict.fromkeys((1, 2, 3, 4), 0)
        for row in self.rig.listed():
            by_level[self.pages.role[row] & LEVEL_MASK] += sptes.present(row).bit_count()
        assert (stats.pages_4k, stats.pages_2m, stats.pages_1g) == tuple(by_level.values())[:3]
        assert stats.largepages == stats.pages_2m + stats.pages_1g
        unsync = sum(bool(self.pages.flags[row] & UNSYNC) for row in self.rig.listed())
        assert stats.mmu_unsync == self.memory.arch.unsync_pages == unsync

    @invariant()
    def nothing_is_found_that_is_obsolete_or_zapped(self) -> None:
        for row in self.rig.listed():
            found = self.pages.find(self.pages.gfn[row], self.pages.role[row])
            assert (found == row) is not self.pages.is_stale(row)
            assert found == NONE or not self.pages.is_stale(found)

    def teardown(self) -> None:
        """The VM ends: nothing is left."""
        while self.flow is not None:
            self.go_on()
        self.memory.destroy()
        assert (self.pages.used, len(self.pages), self.rig.stats.pages_4k) == (0, 0, 0)
        assert self.memory.links.write_tracking.indirect_shadow_pages == 0


def _in_turn(answers: list[bool]) -> Callable[[], bool]:
    """These answers, then no."""
    left = list(reversed(answers))
    return lambda: bool(left) and left.pop()


OFTEN = (K5_3, SERIES[4], K5_4, K5_4_STABLE, K6_1, K6_18)
# All levels, and those without one patch that may go alone or with others.
REMOVED = ("series-11-03", "series-11-07-08-09", "series-11-08", "series-11-09", "series-11-10-02")
LEVELS = (K5_1, *SERIES, *(MMU_KERNELS[name].policy for name in REMOVED))
SELDOM = (
    (*LEVELS, K6_12) if LONG else (K5_1, SERIES[1], SERIES[7], MMU_KERNELS["series-11-09"].policy)
)


@pytest.mark.parametrize("quiet", [False, True], ids=["told", "quiet"])
@pytest.mark.parametrize("tdp", [True, False], ids=["tdp", "shadow"])
@pytest.mark.parametrize("policy", [*OFTEN, *SELDOM], ids=lambda policy: policy.name)
def test_random_histories(policy: MmuPolicy, tdp: bool, quiet: bool) -> None:
    class Machine(MmuMachine):
        pass

    Machine.policy, Machine.tdp, Machine.quiet = policy, tdp, quiet
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES if policy in OFTEN or LONG else 2,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_refused_budget_changes_nothing() -> None:
    rig = Rig(K5_4)
    with pytest.raises(KernelError):
        rig.memory.set_nr_mmu_pages(1)
    assert rig.memory.roots.n_requested == 0

"""Both zap flows, page by page; what each patch of the series changes."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from fakesys.subsystems.kvm_mmu.events.pages import (
    KvmMmuGetPage,
    KvmMmuPrepareZapPage,
    KvmMmuZapAllFast,
)
from fakesys.subsystems.kvm_mmu.mmu.zap import Flow, Step
from fakesys.subsystems.kvm_mmu.shadow.arch import Request
from fakesys.subsystems.kvm_mmu.shadow.policy import (
    K5_3,
    K5_4,
    K5_4_STABLE,
    K6_1,
    K6_18,
    POLICIES,
    SERIES,
    MmuPolicy,
    ZapFlow,
)
from fakesys.subsystems.kvm_mmu.shadow.role import INVALID
from tests.models.kvm_mmu.rig import MIB, Rig, gfns


def filled(policy: MmuPolicy, tables: int = 8) -> Rig:
    """A VM with a vCPU that mapped one page in each of `tables` tables, and a second slot."""
    rig = Rig(policy)
    rig.slot(0, 0, 64 * MIB)
    rig.slot(1, 1 << 30)
    vcpu = rig.vcpu()
    rig.write(vcpu, 0, times=tables, stride=2 * MIB)
    rig.forget()
    return rig


def begin(rig: Rig, break_wanted: Callable[[], bool], flow: ZapFlow | None = None) -> Flow:
    """Begin to zap all."""
    return rig.memory.begin_zap(flow or rig.memory.arch.policy.delete_flow, break_wanted)


def always() -> bool:
    """Somebody always waits for the lock."""
    return True


def test_zap_all_goes_from_the_newest_page_to_the_oldest() -> None:
    rig = filled(K5_3)
    newest_first = [rig.pages.gfn[row] for row in reversed(rig.listed())]
    rig.delete(1)
    assert gfns(rig.told(KvmMmuPrepareZapPage)) == newest_first
    assert rig.told(KvmMmuZapAllFast) == []


def test_zap_all_fast_goes_from_the_oldest_page_to_the_newest() -> None:
    rig = filled(K5_4)
    oldest_first = [rig.pages.gfn[row] for row in rig.listed()]
    rig.delete(1)
    assert gfns(rig.told(KvmMmuPrepareZapPage)) == oldest_first


def test_zap_all_fast_prints_0_1_0_1_and_the_pages_before_the_zap() -> None:
    rig = filled(K5_4)
    used = rig.pages.used
    for _ in range(4):
        rig.delete(1)
        rig.slot(1, 1 << 30)
    told = rig.told(KvmMmuZapAllFast)
    assert [event.mmu_valid_gen for event in told] == [0, 1, 0, 1]
    # The root stays until its vCPU lets go of it.
    assert [event.mmu_used_pages for event in told] == [used, 1, 1, 1]


@pytest.mark.parametrize(
    "policy", [K5_3, *SERIES, K5_4, K5_4_STABLE, K6_1, K6_18], ids=lambda p: p.name
)
def test_one_flush_frees_all_and_the_answer_says_how_many(policy: MmuPolicy) -> None:
    rig = filled(policy)
    used = rig.pages.used
    flushes = rig.stats.remote_tlb_flush_requests
    result = rig.delete(1)
    assert result is not None
    assert result == (used, 0)
    assert rig.stats.mmu_shadow_zapped == used
    assert rig.stats.pages_4k == 0
    assert rig.pages.used == len(rig.pages) == 1
    if policy.counts_flush_requests:
        assert rig.stats.remote_tlb_flush_requests == flushes + 1


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: p.name)
def test_at_once_and_page_by_page_are_the_same(policy: MmuPolicy) -> None:
    slow, fast = filled(policy), filled(policy)
    fast.bus.wanted.clear()
    for rig in (slow, fast):
        rig.delete(1)
    assert vars_of(slow) == vars_of(fast)
    for rig in (slow, fast):
        (vcpu,) = rig.memory.vcpus.values()
        rig.write(vcpu, 0, times=8, stride=2 * MIB)
    assert vars_of(slow) == vars_of(fast)


def vars_of(rig: Rig) -> object:
    """Everything that can be seen of a VM."""
    pages = rig.pages
    rows = [
        (pages.gfn[r], pages.role[r], pages.gen[r], pages.root_count[r], pages.present[r])
        for r in rig.listed()
    ]
    names = list(rig.stats.__slots__)
    requests = [vcpu.requests for vcpu in rig.memory.vcpus.values()]
    return rows, pages.used, [getattr(rig.stats, name) for name in names], requests


def test_the_batch_quirk_never_drops_the_lock_of_direct_pages() -> None:
    rig = filled(K5_4, tables=30)
    flow = begin(rig, always)
    assert flow.step() is Step.DONE
    assert flow.rounds == 0


@pytest.mark.parametrize("policy", [K5_4_STABLE, K6_1, K6_18], ids=lambda p: p.name)
def test_with_the_fix_the_lock_is_dropped_after_every_ten_pages(policy: MmuPolicy) -> None:
    rig = filled(policy, tables=30)
    flow = begin(rig, always)
    steps = [flow.zapped]
    while flow.step() is Step.LOCK_DROPPED:
        steps.append(flow.zapped)
    sizes = [after - before for before, after in itertools.pairwise(steps)]
    assert sizes[1:] == [10] * len(sizes[1:])
    # The root does not count: it is not freed yet.
    assert sizes[0] == 11
    assert flow.rounds <= flow.zapped // 10 + 1


def test_zap_all_begins_anew_at_the_head_after_each_lock_drop() -> None:
    rig = filled(K5_3)
    flow = begin(rig, always)
    assert flow.step() is Step.LOCK_DROPPED
    (vcpu,) = rig.memory.vcpus.values()
    rig.fault(vcpu, 60 * MIB)
    newest = rig.pages.gfn[rig.listed()[-1]]
    rig.forget()
    flow.step()
    assert gfns(rig.told(KvmMmuPrepareZapPage)) == [newest]


def test_zap_all_fast_ends_although_a_vcpu_makes_a_page_in_every_pause() -> None:
    rig = filled(K5_4_STABLE, tables=30)
    (vcpu,) = rig.memory.vcpus.values()
    used = rig.pages.used
    flow = begin(rig, always)
    while flow.step() is Step.LOCK_DROPPED:
        rig.write(vcpu, 0, times=30, stride=2 * MIB)
    assert flow.zapped == used
    # All that is left was made during the zap: as many pages as before, none of them obsolete.
    assert rig.pages.used == used
    assert all(rig.pages.gen[row] == rig.pages.valid_gen for row in rig.listed())


def test_zap_all_goes_on_for_ever_while_a_vcpu_makes_a_page_in_every_pause() -> None:
    rig = filled(K5_3)
    (vcpu,) = rig.memory.vcpus.values()
    flow = begin(rig, always)
    for _ in range(500):
        assert flow.step() is Step.LOCK_DROPPED
        rig.write(vcpu, 0, times=8, stride=2 * MIB)
    assert not flow.finished


def test_a_budget_pauses_under_the_lock() -> None:
    rig = filled(K5_4)
    flow = begin(rig, always)
    assert flow.step(budget=3) is Step.PAUSED
    assert (flow.zapped, flow.rounds) == (3, 0)
    assert flow.step() is Step.DONE


# One test per row of spec/mmu.md 6.4.


def test_01_the_generation_counts_and_the_lock_is_dropped_after_any_page() -> None:
    rig = filled(SERIES[0])
    flow = begin(rig, iter([False, True, False] + [False] * 50).__next__)
    assert rig.pages.valid_gen == 1
    # No explicit request: the first rooted page asks for it.
    (vcpu,) = rig.memory.vcpus.values()
    assert vcpu.requests & Request.RELOAD == 0
    assert flow.step() is Step.LOCK_DROPPED
    assert flow.zapped == 1
    assert vcpu.requests & Request.RELOAD
    assert flow.step() is Step.DONE
    rig.delete(1)
    assert rig.pages.valid_gen == 2


def test_01_any_invalid_page_is_passed_over_11_only_rooted_ones() -> None:
    for policy, passes in ((SERIES[9], True), (SERIES[10], False)):
        rig = filled(policy)
        row = rig.listed()[-1]
        rig.pages.invalidate(row)
        rig.delete(1)
        assert (row in rig.listed()) is passes, policy.name


def test_02_an_invalid_page_is_obsolete() -> None:
    for policy, obsolete in ((SERIES[0], False), (SERIES[1], True)):
        rig = filled(policy)
        row = rig.listed()[0]
        rig.pages.invalidate(row)
        assert rig.memory.arch.is_obsolete(row) is obsolete, policy.name


def test_03_the_wrap_of_the_mmio_generation_uses_the_fast_flow() -> None:
    for policy, fast in ((SERIES[1], False), (SERIES[2], True)):
        rig = Rig(policy, wrap_gen=(1 << 19) - 2)
        rig.slot(0)
        assert bool(rig.told(KvmMmuZapAllFast)) is fast, policy.name


def test_06_the_lock_is_considered_after_ten_pages_only() -> None:
    for policy, step, zapped in ((SERIES[4], Step.LOCK_DROPPED, 0), (SERIES[5], Step.DONE, 11)):
        rig = filled(policy)
        assert rig.pages.used == 11
        flow = begin(rig, always)
        assert flow.step() is step, policy.name
        assert flow.zapped == zapped, policy.name


def test_07_a_lock_drop_no_longer_flushes_and_the_reload_is_asked_for_at_once() -> None:
    for policy, left_in_memory, asked in ((SERIES[5], 5, False), (SERIES[6], 17, True)):
        rig = Rig(policy, tdp=False)
        vcpu = rig.shadowed()
        assert (rig.pages.used, rig.stats.mmu_unsync) == (17, 12)
        flow = begin(rig, always)
        assert bool(vcpu.requests & Request.RELOAD) is asked, policy.name
        # The zap of the root takes the 12 unsync tables below it along: more than a batch.
        assert flow.step() is Step.LOCK_DROPPED
        assert (flow.zapped, rig.pages.used) == (1, 5)
        assert len(rig.pages) == left_in_memory, policy.name
        assert bool(vcpu.requests & Request.TLB_FLUSH) is not asked, policy.name


def test_08_zapped_pages_wait_on_a_list_of_the_vm() -> None:
    for policy, waiting in ((SERIES[6], 0), (SERIES[7], 2), (K5_4, 2), (K6_18, 0)):
        rig = filled(policy)
        begin(rig, always, ZapFlow.FAST).step(budget=3)
        assert len(rig.memory.arch.zapped_obsolete) == waiting, policy.name


def test_09_a_rooted_page_that_is_obsolete_asks_for_no_reload() -> None:
    for policy, asked in ((SERIES[7], True), (SERIES[8], False)):
        rig = filled(policy)
        (vcpu,) = rig.memory.vcpus.values()
        flow = begin(rig, always)
        vcpu.requests = Request.NONE
        flow.step(budget=1)
        assert bool(vcpu.requests & Request.RELOAD) is asked, policy.name


def test_10_the_generation_toggles() -> None:
    for policy, expected in ((SERIES[8], [1, 2, 3]), (SERIES[9], [1, 0, 1])):
        rig = filled(policy)
        found = []
        for _ in range(3):
            rig.delete(1)
            found.append(rig.pages.valid_gen)
            rig.slot(1, 1 << 30)
        assert found == expected, policy.name


def test_an_invalid_root_leaves_the_list_from_6_1_on() -> None:
    for policy, listed in ((K5_4, True), (K6_1, False)):
        rig = filled(policy)
        (root,) = rig.memory.vcpus[0].roots
        rig.delete(1)
        assert rig.pages.role[root] & INVALID
        assert (root in rig.listed()) is listed, policy.name


def test_an_invalid_root_is_zapped_again_with_its_last_reference() -> None:
    rig = filled(K5_4)
    rig.delete(1)
    rig.forget()
    rig.write(rig.memory.vcpus[0], 0)
    first = rig.told(KvmMmuPrepareZapPage)[0]
    assert (first.gfn, first.root_count, bool(first.role & INVALID)) == (0, 0, True)


def test_5_4_loads_all_roots_anew_6_1_only_obsolete_ones() -> None:
    for policy, told in ((K5_4, 1), (K6_1, 0)):
        rig = filled(policy)
        rig.memory.arch.request_all(Request.RELOAD)
        rig.write(rig.memory.vcpus[0], 0)
        assert len(rig.told(KvmMmuGetPage)) == told, policy.name


def test_recycling_in_6_1_skips_roots_and_counts_pages() -> None:
    rig = filled(K6_1, tables=30)
    rig.memory.set_nr_mmu_pages(64)
    rig.write(rig.memory.vcpus[0], 0, times=32, stride=2 * MIB)
    used = rig.pages.used
    rig.memory.roots.n_max = used + 4
    rig.forget()
    rig.fault(rig.memory.vcpus[0], 3 * MIB + 4096 * 100)
    told = rig.told(KvmMmuPrepareZapPage)
    assert len(told) == rig.stats.mmu_recycled == 21
    assert all(event.root_count == 0 for event in told)


def test_recycling_in_5_4_ends_at_a_root() -> None:
    rig = filled(K5_4, tables=30)
    rig.memory.roots.n_max = rig.pages.used + 4
    rig.fault(rig.memory.vcpus[0], 3 * MIB + 4096 * 100)
    told = rig.told(KvmMmuPrepareZapPage)
    # The oldest page is the root: it frees nothing, and that ends the loop.
    assert [event.root_count for event in told] == [1]
    assert rig.stats.mmu_recycled == 0


def test_a_smaller_budget_zaps_the_oldest_pages() -> None:
    rig = filled(K6_1, tables=32)
    rig.slot(2, 2 << 30, 128 * MIB)
    rig.write(rig.memory.vcpus[0], 2 << 30, times=64, stride=2 * MIB)
    used = rig.pages.used
    rig.memory.set_nr_mmu_pages(64)
    assert rig.pages.used == 64
    assert rig.stats.mmu_recycled == used - 64


@pytest.mark.parametrize("policy", [K5_4, K6_1], ids=lambda policy: policy.name)
def test_a_root_that_was_zapped_before_has_no_sptes_after_a_zap_in_one_pass(
    policy: MmuPolicy,
) -> None:
    rig = Rig(policy, tdp=False)
    rig.slot(0, 0, 64 * MIB, thp=True)
    vcpu, late = rig.vcpu(0), rig.vcpu(1)
    for guest in rig.guests.values():
        guest.set_up(real_mode=True)
    rig.read(late, 2 * MIB, times=3, stride=2 * MIB)
    for _ in range(2):
        rig.slot(1, 1 << 30, 4 * MIB)
        rig.delete(1)
        # The second time no event is wanted, so that all pages go at once.
        rig.bus.wanted.clear()
        rig.read(vcpu, 2 * MIB)
    rig.reload()
    assert not rig.read(rig.memory.vcpus[1], 4 * MIB).exits

"""Faults with TDP: large pages, short budgets, many accesses at once against single ones."""

from __future__ import annotations

from errno import EFAULT, EINVAL, ENOMEM

import pytest

from fakesys.core.errors import KernelError
from fakesys.subsystems.kvm.events.guest import KvmPageFault
from fakesys.subsystems.kvm.events.run import KvmUserspaceExit
from fakesys.subsystems.kvm_mmu.events.sptes import FastPageFault
from fakesys.subsystems.kvm_mmu.events.walk import CheckMmioSpte
from fakesys.subsystems.kvm_mmu.guest.exits import Exit
from fakesys.subsystems.kvm_mmu.guest.programs import MAX_STEPS
from fakesys.subsystems.kvm_mmu.mmu.fast_page_fault import RetPf
from fakesys.subsystems.kvm_mmu.shadow.policy import K5_4, K6_1, K6_18, POLICIES, MmuPolicy
from fakesys.subsystems.kvm_mmu.shadow.walk import PF_PRESENT, PF_WRITE
from fakesys.subsystems.kvm_mmu.slots.host import USER_SPACE_END, HostSpace
from fakesys.subsystems.kvm_mmu.slots.memslots import LOG_DIRTY_PAGES, READONLY, Region
from fakesys.subsystems.kvm_mmu.vm.shrinker import Shrinker
from tests.models.kvm_mmu.rig import MIB, PAGE, Rig


def seen(rig: Rig) -> object:
    """What a bulk access and single ones must agree in."""
    pages, sptes = rig.pages, rig.memory.arch.sptes
    rows = [(pages.gfn[r], pages.role[r], pages.present[r], sptes.present(r)) for r in rig.listed()]
    logs = [bytes(slot.dirty or b"") for slot in rig.memory.slots.in_order]
    stats = [getattr(rig.stats, name) for name in rig.stats.__slots__]
    vcpus = [
        [getattr(vcpu.stats, name) for name in vcpu.stats.__slots__]
        for vcpu in rig.memory.vcpus.values()
    ]
    return sorted(rows), logs, stats, vcpus


def both(policy: MmuPolicy = K6_1) -> tuple[Rig, Rig]:
    """Nobody listens to the first, so that it takes blocks; to the second everybody does."""
    return Rig(policy, quiet=True), Rig(policy)


def test_many_tables_at_once() -> None:
    bulk, single = both()
    for rig in (bulk, single):
        rig.slot(0, 0, 64 * MIB)
        vcpu = rig.vcpu()
        assert rig.write(vcpu, 0, times=10 * 512 + 5).faults == 10 * 64 + 1
    assert seen(bulk) == seen(single)


def test_many_tables_of_which_one_is_there_already() -> None:
    bulk, single = both()
    for rig in (bulk, single):
        rig.slot(0, 0, 64 * MIB)
        vcpu = rig.vcpu()
        rig.write(vcpu, 10 * MIB)
        rig.write(vcpu, 0, times=16 * 512)
    assert seen(bulk) == seen(single)


def test_many_tables_that_lost_the_table_above_them() -> None:
    bulk, single = both()
    for rig in (bulk, single):
        rig.slot(0, 0, 64 * MIB)
        vcpu = rig.vcpu()
        rig.write(vcpu, 0, times=16 * 512)
        shrinker = Shrinker()
        shrinker.add(rig.memory.arch, rig.memory.zapper)
        assert shrinker.count() == 19
        # Oldest first, the root passed over: those of level 3 and 2.
        assert shrinker.scan() + shrinker.scan() == 2
        shrinker.remove(rig.memory.arch)
        assert shrinker.count() == 0
        rig.write(vcpu, 0, times=16 * 512)
    assert seen(bulk) == seen(single)


def test_small_pages_beside_a_large_one() -> None:
    bulk, single = both()
    for rig in (bulk, single):
        rig.slot(0, 0, 2 * MIB, thp=True)
        rig.slot(1, 2 * MIB, 64 * MIB)
        vcpu = rig.vcpu()
        rig.read(vcpu, 0)
        rig.write(vcpu, 2 * MIB, times=20 * 512)
    assert seen(bulk) == seen(single)
    assert bulk.stats.pages_2m == 1


def test_large_pages_are_hit_by_reads_and_writes() -> None:
    bulk, single = both()
    for rig in (bulk, single):
        rig.slot(0, 0, 8 * MIB, thp=True)
        vcpu = rig.vcpu()
        assert rig.write(vcpu, 0, times=4 * 512).faults == 4
        assert rig.write(vcpu, PAGE, times=600).faults == 0
        assert rig.read(vcpu, 0, times=4 * 512).faults == 0
        rig.slot(0, 0, 8 * MIB, flags=LOG_DIRTY_PAGES)
        assert rig.read(vcpu, 0, times=512).faults == 0
        rig.write(vcpu, 0, times=700)
    assert seen(bulk) == seen(single)


@pytest.mark.parametrize("flags", [LOG_DIRTY_PAGES, READONLY])
@pytest.mark.parametrize("kind", ["read", "write"])
def test_many_accesses_to_special_slots(flags: int, kind: str) -> None:
    bulk, single = both()
    for rig in (bulk, single):
        rig.slot(0, 0, 32 * MIB, flags=flags)
        vcpu = rig.vcpu()
        access = rig.read if kind == "read" else rig.write
        touched = access(vcpu, 3 * PAGE, times=9 * 512)
        exits = 9 * 512 if flags == READONLY and kind == "write" else 0
        assert len(touched.exits) == exits
    assert seen(bulk) == seen(single)


def test_many_accesses_where_the_host_has_taken_pages_away() -> None:
    bulk, single = both()
    for rig in (bulk, single):
        rig.slot(0, 0, 32 * MIB)
        vcpu = rig.vcpu()
        memory = rig.memory.host.named("m0")
        rig.memory.notifier.unmap(memory, 3 * PAGE, 9 * PAGE)
        rig.memory.notifier.protect(memory, 4 * MIB, 2 * PAGE, writable=False)
        rig.read(vcpu, 0, times=16 * 512)
        (left,) = rig.write(vcpu, 0, times=16 * 512).exits
        assert left.errno == EFAULT
    assert seen(bulk) == seen(single)


def test_many_accesses_at_the_edge_of_a_slot() -> None:
    bulk, single = both()
    for rig in (bulk, single):
        rig.slot(0, 3 * PAGE, 4 * MIB)
        vcpu = rig.vcpu()
        assert len(rig.write(vcpu, 0, times=1100).exits) == 1100 - 1024
        rig.write(vcpu, 3 * PAGE, times=1024)
    assert seen(bulk) == seen(single)


def test_a_slot_that_is_larger_than_its_memory() -> None:
    bulk, single = both()
    for rig in (bulk, single):
        host = rig.memory.host.add("short", 2 * MIB)
        rig.memory.set_region(Region(0, 0, 0, 4 * MIB, host.hva))
        (left,) = rig.write(rig.vcpu(), 0, times=1024).exits
        assert left.errno == EFAULT
    assert seen(bulk) == seen(single)


@pytest.mark.parametrize("quiet", [True, False])
@pytest.mark.parametrize("policy", [K5_4, K6_1], ids=lambda p: p.name)
def test_without_a_page_to_be_had_the_access_fails(policy: MmuPolicy, quiet: bool) -> None:
    rig = Rig(policy, quiet=quiet)
    rig.slot(0)
    vcpu = rig.vcpu()
    rig.memory.roots.enter(vcpu)
    # The one page is the root, which is in use.
    rig.memory.roots.n_max = 1
    if policy is K6_1:
        (left,) = rig.write(vcpu, 0, times=20).exits
        assert left.errno == EFAULT
        assert rig.memory.faults.page_fault(vcpu, 0, PF_WRITE) is RetPf.RETRY
    else:
        assert rig.memory.roots.make_available() is False


def test_a_fault_on_what_is_writable_already_is_spurious() -> None:
    for policy, name in ((K6_1, "pf_spurious"), (K6_18, "pf_spurious")):
        rig = Rig(policy)
        rig.slot(0)
        vcpu = rig.vcpu()
        rig.write(vcpu, 0)
        assert rig.memory.faults.page_fault(vcpu, 0, PF_WRITE | PF_PRESENT) is RetPf.SPURIOUS
        assert getattr(vcpu.stats, name) == 1
        (event,) = rig.told(FastPageFault)
        assert event.ret == policy.ret_pf_invalid + 2
        # Somebody took the spte away meanwhile: the slow path maps it anew.
        rig.memory.notifier.invalidate(rig.memory.host.named("m0"), 0, PAGE)
        assert rig.memory.faults.page_fault(vcpu, 0, PF_WRITE | PF_PRESENT) is RetPf.FIXED
        # Without W|P the slow path finds nothing to do either.
        assert rig.memory.faults.page_fault(vcpu, 0, PF_WRITE) is RetPf.SPURIOUS


def test_the_processor_sets_the_accessed_bit() -> None:
    rig = Rig(K6_1)
    rig.slot(0)
    vcpu = rig.vcpu()
    rig.write(vcpu, 0)
    (row,) = [row for row in rig.listed() if rig.pages.role[row] & 15 == 1]
    assert rig.memory.setter.value(row, 1) & 0x20 == 0
    assert rig.read(vcpu, PAGE).faults == 0
    assert rig.memory.setter.value(row, 1) & 0x20
    assert rig.memory.setter.value(row, 100) == 0


def test_a_2_mib_page_needs_the_same_offset_on_both_sides() -> None:
    rig = Rig(K6_1)
    host = rig.memory.host.add("a", 8 * MIB, thp=True)
    rig.memory.set_region(Region(0, 0, 0, 4 * MIB, host.hva + PAGE))
    rig.write(rig.vcpu(), 0)
    assert (rig.stats.pages_2m, rig.stats.pages_4k) == (0, 8)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: p.name)
def test_faults_and_failures_are_told(policy: MmuPolicy) -> None:
    rig = Rig(policy)
    rig.memory.set_region(Region(0, 0, 0, PAGE, 0x1000))
    told: list[object] = []
    for kind in (KvmPageFault, KvmUserspaceExit):
        rig.bus.subscribe(kind, told.append)
    rig.write(rig.vcpu(), 0)
    fault, left = told
    assert isinstance(fault, KvmPageFault)
    assert (fault.fault_address, fault.error_code) == (0, 1 << 32 | 6)
    assert isinstance(left, KvmUserspaceExit)
    assert (left.reason, left.errno) == (0, -EFAULT)


def test_accesses_one_by_one_are_bounded() -> None:
    rig = Rig(K6_1)
    rig.slot(0)
    vcpu = rig.vcpu()
    with pytest.raises(KernelError) as refusal:
        rig.read(vcpu, 0, times=MAX_STEPS + 1)
    assert refusal.value.errno == EINVAL
    assert rig.pages.used == 0


def test_the_owner_has_only_so_much_room() -> None:
    space = HostSpace()
    with pytest.raises(KernelError) as refusal:
        space.add("all", USER_SPACE_END)
    assert refusal.value.errno == ENOMEM
    assert space.add("some", 4 * MIB).name == "some"


def test_mmio_is_cached_for_one_page() -> None:
    rig = Rig(K6_1)
    rig.slot(0)
    vcpu = rig.vcpu()
    for gpa in (8 * MIB, 8 * MIB, 9 * MIB, 8 * MIB):
        (left,) = rig.read(vcpu, gpa).exits
        assert left.reason is Exit.MMIO
    assert vcpu.stats.pf_mmio_spte_created == 2
    # The second access of the first page finds it in the cache.
    assert [event.spte_gen for event in rig.told(CheckMmioSpte)] == [2]


def test_a_table_takes_less_than_60_bytes() -> None:
    rig = Rig(K6_1, quiet=True)
    rig.slot(0, 0, 1 << 30)
    rig.write(rig.vcpu(), 0, times=1 << 18)
    assert rig.pages.used == 512 + 3
    assert rig.pages.bytes_per_row + rig.memory.links.bytes_per_table < 70


def test_a_log_of_a_read_only_slot_protects_nothing() -> None:
    rig = Rig(K6_1)
    rig.slot(0, flags=READONLY)
    flushes = rig.stats.remote_tlb_flush_requests
    rig.slot(0, flags=READONLY | LOG_DIRTY_PAGES)
    assert rig.stats.remote_tlb_flush_requests == flushes
    assert rig.memory.dirty.get(0) == []


def test_a_smaller_budget_of_5_4_zaps_until_it_meets_a_root() -> None:
    rig = Rig(K5_4)
    rig.slot(0, 0, 256 * MIB)
    vcpu = rig.vcpu()
    rig.write(vcpu, 0, times=80, stride=2 * MIB)
    assert rig.pages.used == 83
    rig.memory.set_nr_mmu_pages(64)
    # The root is the oldest and frees nothing; the budget is what is used then.
    assert (rig.pages.used, rig.memory.roots.n_max) == (83, 83)
    rig.memory.set_nr_mmu_pages(64)
    assert (rig.pages.used, rig.memory.roots.n_max) == (64, 64)

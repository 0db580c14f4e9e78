"""The ioctl that sets memslots: every refusal, the order of refusals, generations, budget."""

from __future__ import annotations

from errno import EEXIST, EINVAL, ENOTTY

import pytest

from fakesys.core.errors import KernelError
from fakesys.subsystems.kvm_mmu.events.pages import KvmMmuPrepareZapPage, KvmMmuZapAllFast
from fakesys.subsystems.kvm_mmu.shadow.policy import K5_4, K6_1, K6_18, MmuPolicy
from fakesys.subsystems.kvm_mmu.slots.memslots import LOG_DIRTY_PAGES, READONLY, Change, Region
from tests.models.kvm_mmu.rig import MIB, Rig

UA = 0x10000000
GOOD = Region(1, 0, 4 * MIB, 4096, UA)


def refused(rig: Rig, region: Region) -> int | None:
    """The errno, None when it is taken; a refusal changes nothing."""
    slots = rig.memory.slots
    before = (slots.generation, sorted(slots.by_id))
    try:
        rig.memory.set_region(region)
    except KernelError as error:
        assert (slots.generation, sorted(slots.by_id)) == before
        return error.errno
    return None


@pytest.mark.parametrize(
    "change",
    [
        {"memory_size": 4097},
        {"guest_phys_addr": 4 * MIB + 1},
        {"userspace_addr": UA + 1},
        {"userspace_addr": 1 << 63},
        {"userspace_addr": (1 << 47) - 4096},
        {"guest_phys_addr": (1 << 64) - 4096, "memory_size": 8192},
        {"guest_phys_addr": 1 << 52},
        {"slot": 32764},
        {"slot": 40000},
        {"slot": 1 << 16},
        {"flags": 8},
        {"flags": 4},
        {"memory_size": 0},
        {"memory_size": 1 << 43},
    ],
)
def test_a_region_that_cannot_be_is_einval(change: dict[str, int]) -> None:
    rig = Rig(K6_18, as_num=1)
    assert refused(rig, GOOD._replace(**change)) == EINVAL
    assert refused(rig, GOOD) is None


def test_ids_end_where_the_kernel_says() -> None:
    assert refused(Rig(K6_18), GOOD._replace(slot=32763)) is None
    assert refused(Rig(K5_4), GOOD._replace(slot=508)) is None
    assert refused(Rig(K5_4), GOOD._replace(slot=509)) == EINVAL


def test_the_second_address_space_is_there_with_smm_only() -> None:
    smm = GOOD._replace(slot=1 << 16 | 1)
    assert refused(Rig(K5_4, as_num=2), smm) is None
    assert refused(Rig(K5_4, as_num=1), smm) == EINVAL


def test_overlap_is_eexist_for_create_and_move_but_not_across_address_spaces() -> None:
    rig = Rig(K5_4)
    assert refused(rig, GOOD) is None
    assert refused(rig, GOOD._replace(slot=2)) == EEXIST
    assert refused(rig, GOOD._replace(slot=2, guest_phys_addr=8 * MIB)) is None
    assert refused(rig, GOOD._replace(slot=2)) == EEXIST
    assert refused(rig, GOOD._replace(slot=1 << 16 | 2)) is None


def test_a_slot_keeps_size_address_and_kind() -> None:
    rig = Rig(K6_18)
    assert refused(rig, GOOD) is None
    assert refused(rig, GOOD._replace(userspace_addr=UA + 4096)) == EINVAL
    assert refused(rig, GOOD._replace(memory_size=8192)) == EINVAL
    assert refused(rig, GOOD._replace(flags=READONLY)) == EINVAL
    assert refused(rig, GOOD._replace(flags=LOG_DIRTY_PAGES)) is None


def test_a_slot_is_deleted_once() -> None:
    rig = Rig(K6_18)
    assert refused(rig, GOOD) is None
    assert refused(rig, GOOD._replace(memory_size=0)) is None
    assert refused(rig, GOOD._replace(memory_size=0)) == EINVAL


def test_bad_numbers_are_refused_before_an_overlap_is() -> None:
    rig = Rig(K6_18)
    assert refused(rig, GOOD) is None
    assert refused(rig, GOOD._replace(slot=2, memory_size=4097)) == EINVAL
    assert refused(rig, GOOD._replace(slot=2, flags=16)) == EINVAL
    # An overlap is found before the end of physical memory is.
    huge = Region(3, 0, 4 * MIB, 1 << 42, UA)
    assert refused(rig, huge) == EEXIST


@pytest.mark.parametrize(("policy", "as_num"), [(K5_4, 2), (K6_18, 1)])
def test_the_generation_moves_by_one_step_or_two(policy: MmuPolicy, as_num: int) -> None:
    rig = Rig(policy, as_num=as_num)
    slots = rig.memory.slots
    steps = []

    def step(region: Region) -> None:
        before = slots.generation
        rig.memory.set_region(region)
        steps.append((slots.generation - before) // as_num)

    step(GOOD)
    step(GOOD)
    step(GOOD._replace(flags=LOG_DIRTY_PAGES))
    step(GOOD._replace(flags=LOG_DIRTY_PAGES, guest_phys_addr=8 * MIB))
    step(GOOD._replace(memory_size=0))
    assert steps == [1, 0, 1, 2, 2]


def test_what_a_request_does() -> None:
    spaces = Rig(K6_18).memory.spaces
    assert spaces.check(GOOD) is Change.CREATE


def test_the_budget_is_one_shadow_page_for_fifty_pages_and_at_least_64() -> None:
    rig = Rig(K6_1)
    rig.slot(0, 0, 2 * MIB)
    assert rig.memory.roots.n_max == 64
    rig.slot(1, 1 << 30, 1 << 30)
    assert rig.memory.roots.n_max == (512 + (1 << 18)) // 50


def test_a_budget_that_was_asked_for_stays() -> None:
    rig = Rig(K5_4)
    rig.memory.set_nr_mmu_pages(100)
    rig.slot(1, 1 << 30, 1 << 30)
    assert rig.memory.get_nr_mmu_pages() == 100


@pytest.mark.parametrize("number", [0, 1, 63])
def test_fewer_than_64_pages_are_einval(number: int) -> None:
    with pytest.raises(KernelError) as refusal:
        Rig().memory.set_nr_mmu_pages(number)
    assert refusal.value.errno == EINVAL


def test_get_nr_mmu_pages_is_gone_in_6_18() -> None:
    with pytest.raises(KernelError) as refusal:
        Rig(K6_18).memory.get_nr_mmu_pages()
    assert refusal.value.errno == ENOTTY


def test_quirks_and_caps_that_the_kernel_does_not_have_are_einval() -> None:
    for policy, mask in ((K5_4, 1), (K6_1, 1 << 7), (K6_18, 1 << 30)):
        with pytest.raises(KernelError) as refusal:
            Rig(policy).memory.disable_quirks(mask)
        assert refusal.value.errno == EINVAL
    with pytest.raises(KernelError):
        Rig(K6_18).memory.enable_cap(1, 1)


def test_a_slot_only_delete_drops_its_sptes_and_nothing_else() -> None:
    rig = Rig(K6_18)
    rig.slot(0)
    rig.slot(1, 4 * MIB)
    vcpu = rig.vcpu()
    rig.write(vcpu, 0)
    rig.write(vcpu, 4 * MIB)
    rig.memory.disable_quirks(1 << 7)
    rig.forget()
    flushes = rig.stats.remote_tlb_flush_requests
    assert rig.delete(1) is not None
    assert rig.told(KvmMmuZapAllFast) == []
    assert rig.told(KvmMmuPrepareZapPage) == []
    assert rig.stats.pages_4k == 8
    assert rig.stats.remote_tlb_flush_requests == flushes + 1

"""Memslots as a shell sees them: views, generations, MMIO, budget, read-only slots, SMM."""

from __future__ import annotations

from errno import EEXIST, EINVAL, ENOENT

import pytest

from fakesys.core.errors import KernelError
from fakesys.machine.kernels.mmu import MMU_KERNELS
from fakesys.machine.machine import Machine
from tests.files.mmu import CONTROL, MIB, MmuVm

KERNELS = tuple(MMU_KERNELS)


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_refusal_of_the_ioctl_in_every_kernel(kernel: str) -> None:
    vm = MmuVm(kernel, events=())
    last = MMU_KERNELS[kernel].policy.user_mem_slots - 1
    spaces = int(vm.machine.read(f"{CONTROL}/params/as_num"))
    good = "gpa=0x10000000 size=4096 mem=A"
    for errno, command in (
        (EINVAL, "a slot 1 gpa=0x10000000 size=4097 mem=A"),
        (EINVAL, "a slot 1 gpa=0x10000001 size=4096 mem=A"),
        (EINVAL, "a slot 1 gpa=0x10000000 size=4096 mem=A off=8"),
        (EINVAL, "a slot 1 gpa=0x10000000 size=4096 ua=0x800000000000"),
        (EINVAL, "a slot 1 gpa=0xfffffffffffff000 size=4096 mem=A"),
        (EINVAL, "a slot 1 gpa=0x1000000000000 size=4096 mem=A"),
        (EINVAL, f"a slot {last + 1} {good}"),
        (EINVAL, f"a slot {spaces << 16} {good}"),
        (EINVAL, f"a slot 1 {good} flags=4"),
        (EINVAL, "a slot 1 gpa=0 size=0"),
        (EINVAL, "a slot 1 gpa=0x10000000 size=8T ua=0x100000"),
        (EINVAL, "a slot 0 gpa=0 size=32M mem=A"),
        (EINVAL, "a slot 0 gpa=0 size=64M mem=A off=4096"),
        (EINVAL, "a slot 0 gpa=0 size=64M mem=A flags=readonly"),
        (EEXIST, "a slot 1 gpa=0x3fff000 size=4096 mem=A"),
    ):
        vm.refused(errno, command)
    vm.ctl(f"a slot {last} {good}")
    vm.refused(EEXIST, f"a slot {last} gpa=0x1000 size=4096 mem=A")
    vm.ctl(f"a slot {last} gpa=0 size=0")
    vm.refused(EINVAL, f"a slot {last} gpa=0 size=0")


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_generation_moves_by_one_step_or_two(kernel: str) -> None:
    vm = MmuVm(kernel, events=())
    step = int(vm.machine.read(f"{CONTROL}/params/as_num"))

    def steps(command: str) -> float:
        before = vm.mmu("generation")
        vm.ctl(command)
        return (vm.mmu("generation") - before) / step

    assert steps("a slot 1 gpa=0x10000000 size=2M mem=A") == 1
    assert steps("a slot 1 gpa=0x10000000 size=2M mem=A") == 0
    assert steps("a slot 1 gpa=0x10000000 size=2M mem=A flags=1") == 1
    assert steps("a slot 1 gpa=0x20000000 size=2M mem=A flags=1") == 2
    assert steps("a slot 1 gpa=0 size=0") == 2


def test_slots_are_listed_by_gpa_those_of_smm_behind() -> None:
    vm = MmuVm(size=0)
    vm.ctl("a mem A size=8M")
    vm.ctl("a slot 0x10003 gpa=0 size=2M mem=A off=2M")
    vm.ctl("a slot 5 gpa=0x40000000 size=2M mem=A")
    vm.ctl("a slot 6 gpa=0 size=2M mem=A flags=log_dirty")
    assert vm.view("memslots") == (
        "6 0x0 0x200000 log_dirty A+0x0\n"
        "5 0x40000000 0x200000 - A+0x0\n"
        "65539 0x0 0x200000 - A+0x200000\n"
    )


def test_the_address_space_of_smm_is_its_own() -> None:
    vm = MmuVm("6.1", vcpus=1)
    vm.ctl("a mem B size=64M")
    before = vm.mmu("generation")
    vm.ctl("a slot 0x10000 gpa=0 size=64M mem=B")
    # Each space counts for itself, in steps of their number.
    assert vm.mmu("generation") == before
    vm.refused(EEXIST, "a slot 0x10001 gpa=0x1000 size=4096 mem=A")
    vm.ctl("a vcpu 0 access w 0 n=8")
    assert vm.counter("pages_4k") == 8
    # No vCPU is in SMM: nothing is mapped there, so nothing is dropped, protected or dirtied.
    assert vm.changes("a notifier invalidate B size=64M") == {}
    vm.ctl("a slot 0x10000 gpa=0 size=64M mem=B flags=log_dirty")
    assert vm.changes("a vcpu 0 access w 0 n=8")["tlb_flush"] == 1
    assert vm.ctl("a dirty_log 0x10000") == {"dirty": "none"}
    assert vm.machine.listdir(f"{CONTROL}/vms/a/dirty") == ["65536"]
    vm.ctl("a cap 168 3")
    vm.ctl("a slot 0x10000 gpa=0 size=64M mem=B flags=0")
    vm.ctl("a slot 0x10000 gpa=0 size=64M mem=B flags=log_dirty")
    assert vm.ctl("a dirty_log 0x10000") == {"dirty": "0-16383"}
    vm.ctl("a clear_dirty 0x10000 first=0 n=64")
    assert vm.ctl("a dirty_log 0x10000") == {"dirty": "64-16383"}
    assert vm.changes("a vcpu 0 access w 0 n=8")["tlb_flush"] == 1
    vm.ctl("a slot 0x10000 gpa=0 size=0")
    assert vm.counter("pages_4k") == 0


def test_a_slot_only_delete_of_smm_drops_nothing() -> None:
    vm = MmuVm("6.18", as_num=2)
    vm.ctl("a mem B size=2M")
    vm.ctl("a slot 0x10000 gpa=0 size=2M mem=B")
    vm.ctl("a vcpu 0 access w 0 n=8")
    vm.ctl("a quirks 0x80")
    assert vm.ctl("a slot 0x10000 gpa=0 size=0") == {"zapped": "0", "rounds": "0"}
    assert vm.counter("pages_4k") == 8


def test_without_smm_there_is_one_address_space() -> None:
    vm = MmuVm(as_num=1)
    vm.refused(EINVAL, "a slot 0x10000 gpa=0x40000000 size=2M mem=A")
    assert vm.mmu("generation") == 1


def test_the_budget_follows_the_slots_until_somebody_sets_it() -> None:
    vm = MmuVm("5.4")
    assert vm.mmu("n_max") == 16384 // 50
    assert vm.ctl("a nr_mmu_pages") == {"value": "327"}
    vm.ctl("a slot 1 gpa=0x40000000 size=64M mem=A")
    assert (vm.mmu("n_max"), vm.mmu("n_requested")) == (655, 0)
    vm.ctl("a nr_mmu_pages 100")
    vm.ctl("a slot 1 gpa=0 size=0")
    assert (vm.mmu("n_max"), vm.mmu("n_requested")) == (100, 100)


def test_a_small_guest_has_64_pages_and_recycles_the_oldest() -> None:
    vm = MmuVm("6.1", size=1 << 30)
    vm.ctl("a nr_mmu_pages 64")
    # Fewer than five are left for the 58th table; 25 are made free then.
    vm.ctl("a vcpu 0 access w 0 n=57 stride=2M")
    assert (vm.mmu("n_used"), vm.counters().get("mmu_recycled")) == (60, None)
    vm.events()
    changes = vm.changes(f"a vcpu 0 access w {57 * 2 * MIB}")
    assert changes["mmu_recycled"] == 21
    told = vm.told("kvm_mmu_prepare_zap_page")
    assert len(told) == 21
    # Oldest first, the root passed over.
    assert told[0] == "sp gen 0 gfn 0 l3 8-byte q0 direct wux nxe ad root 0 sync"
    assert told[1] == "sp gen 0 gfn 0 l2 8-byte q0 direct wux nxe ad root 0 sync"


def test_a_smaller_budget_zaps_at_once() -> None:
    vm = MmuVm("6.1", size=1 << 30)
    vm.ctl("a vcpu 0 access w 0 n=97 stride=2M")
    assert vm.mmu("n_used") == 100
    assert vm.changes("a nr_mmu_pages 70")["mmu_recycled"] == 30
    assert (vm.mmu("n_used"), vm.mmu("n_max")) == (70, 70)


def test_a_read_only_slot_is_read_from_memory_and_written_as_mmio() -> None:
    vm = MmuVm("6.1")
    vm.ctl("a slot 1 gpa=0x40000000 size=2M mem=A flags=readonly")
    assert vm.ctl("a vcpu 0 access r 0x40000000") == {"faults": "1"}
    (text,) = vm.told("kvm_mmu_set_spte")
    assert "(r-xu)" in text
    before = vm.counter("pages_4k")
    assert vm.ctl("a vcpu 0 access w 0x40000000 n=2") == {
        "faults": "2",
        "exits": "MMIO:0x40000000:write:4,MMIO:0x40001000:write:4",
    }
    assert vm.counter("pages_4k") == before
    assert vm.told("kvm_mmu_set_spte") == []
    assert "1 0x40000000 0x200000 readonly A+0x0\n" in vm.view("memslots")


MMIO = "a vcpu 0 access w 0x50000000"
OTHER_MMIO = "a vcpu 0 access w 0x60000000"


def test_an_access_without_memory_makes_an_mmio_spte_that_a_second_one_hits() -> None:
    vm = MmuVm("6.1", mmio_gen_bits=19)
    changes = vm.changes(MMIO)
    assert changes["pf_mmio_spte_created"] == changes["pf_emulate"] == changes["mmio_exits"] == 1
    (made,) = vm.told("mark_mmio_spte")
    assert made.endswith(f"gfn 50000 access 7 gen {vm.mmu('spte_mmio_gen'):x}")
    changes = vm.changes(MMIO)
    assert (changes["mmio_exits"], changes["insn_emulation"]) == (1, 1)
    assert "pf_taken" not in changes
    # The vCPU remembers one page, so that the spte is not looked at.
    assert vm.events() == []
    vm.ctl(OTHER_MMIO)
    vm.events()
    vm.ctl(MMIO)
    lines = vm.events()
    # Bits 3-10 hold the low part of generation 2; access W|U shows as bits 1 and 2.
    assert lines == [
        "check_mmio_spte: spte 8000050000017 kvm_gen 2 spte-gen 2 valid 1",
        "handle_mmio_page_fault: addr:0 gfn 50000 access 6",
    ]


def test_a_new_generation_makes_mmio_sptes_stale() -> None:
    vm = MmuVm("6.1")
    vm.ctl(MMIO)
    vm.ctl("a slot 1 gpa=0x40000000 size=2M mem=A")
    vm.events()
    vm.ctl(MMIO)
    lines = vm.events()
    assert lines[0] == "check_mmio_spte: spte 8000050000017 kvm_gen 4 spte-gen 2 valid 0"
    assert next(line for line in lines if line.startswith("mark_mmio_spte")).endswith("gen 4")


def test_memory_in_its_place_ends_an_mmio_spte() -> None:
    vm = MmuVm("6.1")
    vm.ctl(MMIO)
    vm.ctl("a slot 1 gpa=0x50000000 size=2M mem=A")
    assert vm.ctl(MMIO) == {"faults": "1"}
    assert vm.counter("pages_4k") == 8


def test_without_mmio_caching_every_access_is_looked_up() -> None:
    vm = MmuVm("6.1", mmio_caching=0)
    for _ in range(2):
        changes = vm.changes(MMIO)
        assert (changes["pf_emulate"], changes["mmio_exits"]) == (1, 1)
        assert "pf_mmio_spte_created" not in changes
    assert vm.told("mark_mmio_spte") == []


@pytest.mark.parametrize(
    ("kernel", "bits", "generation", "value"),
    [
        # 5.4: bits 0-8 at spte 3-11, 9-18 at 52-61; 18 bits: 9-17 at 54-62.
        ("5.4", 19, 0x4040A, 1 << 61 | 1 << 53 | 0x0A << 3),
        ("5.4-stable", 18, 0x2040A, 1 << 62 | 1 << 55 | 0x0A << 3),
        # 6.1: bits 0-7 at spte 3-10, 8-18 at 52-62.
        ("6.1", 19, 0x4040A, 1 << 62 | 1 << 54 | 0x0A << 3),
    ],
)
def test_where_an_mmio_spte_keeps_its_generation(
    kernel: str, bits: int, generation: int, value: int
) -> None:
    vm = MmuVm(kernel, mmio_gen_bits=bits, wrap_gen=generation - 2)
    assert vm.mmu("generation") == generation
    vm.ctl(MMIO)
    vm.ctl(OTHER_MMIO)
    vm.events()
    vm.ctl(MMIO)
    spte = 1 << 51 | 0x50000 << 12 | 7 | value
    assert vm.told("check_mmio_spte") == [
        f"spte {spte:x} kvm_gen {generation:x} spte-gen {generation:x} valid 1"
    ]


def zaps(vm: MmuVm) -> list[str]:
    return vm.told("kvm_mmu_zap_all_fast")


@pytest.mark.parametrize("kernel", ["5.4", "6.1"])
def test_the_generation_that_wraps_zaps_everything(kernel: str) -> None:
    vm = MmuVm(kernel, wrap_gen=0x7FFFA, mmio_gen_bits=19)
    vm.ctl("a vcpu 0 access w 0")
    vm.ctl("a slot 1 gpa=0x40000000 size=2M mem=A")
    assert (zaps(vm), vm.mmu("generation")) == ([], 0x7FFFE)
    vm.ctl("a slot 2 gpa=0x50000000 size=2M mem=A")
    assert (vm.mmu("generation"), vm.mmu("spte_mmio_gen")) == (0x80000, 0)
    assert zaps(vm) == ["kvm-mmu-valid-gen 0 used_pages 4"]


def test_18_bits_wrap_earlier() -> None:
    vm = MmuVm("5.4-stable", wrap_gen=0x3FFFC)
    vm.ctl("a slot 1 gpa=0x40000000 size=2M mem=A")
    assert (vm.mmu("generation"), len(zaps(vm))) == (0x40000, 1)


def test_one_address_space_wraps_at_each_number() -> None:
    vm = MmuVm("6.18", as_num=1, wrap_gen=0x7FFFE)
    assert vm.mmu("generation") == 0x7FFFF
    vm.ctl("a slot 1 gpa=0x40000000 size=2M mem=A")
    assert (vm.mmu("spte_mmio_gen"), len(zaps(vm))) == (0, 1)


@pytest.mark.parametrize(("start", "by_first_install"), [(0x7FFF8, True), (0x7FFF6, False)])
def test_a_delete_that_wraps_zaps_twice(start: int, by_first_install: bool) -> None:
    vm = MmuVm("5.4", wrap_gen=start)
    vm.ctl("a slot 1 gpa=0x40000000 size=2M mem=A")
    vm.ctl("a slot 2 gpa=0x50000000 size=2M mem=A")
    vm.ctl("a vcpu 0 access w 0")
    vm.events()
    vm.ctl("a slot 1 gpa=0 size=0")
    told = zaps(vm)
    # With the first install the wrap comes before the slot's own zap, with the second after it.
    assert [text[:19] for text in told] == ["kvm-mmu-valid-gen 0", "kvm-mmu-valid-gen 1"]
    assert vm.mmu("generation") == start + 10
    assert (vm.mmu("spte_mmio_gen") == 2) is by_first_install


@pytest.mark.parametrize("kernel", ["5.3", "series-01", "series-02", "series-11-03", "series-03"])
def test_the_old_wrap_zaps_pages_with_mmio_only(kernel: str) -> None:
    vm = MmuVm(kernel, wrap_gen=0x7FFFA)
    for gpa in range(0, 8 << 20, 2 << 20):
        vm.ctl(f"a vcpu 0 access w {gpa:#x}")
    vm.ctl("a vcpu 0 access r 0x50000000")
    used, generation = vm.mmu("n_used"), vm.mmu("valid_gen")
    vm.ctl("a slot 1 gpa=0x40000000 size=2M mem=A")
    copy = Machine("seed")
    copy.load(vm.machine.save())
    vm.events()
    changes = vm.changes("a slot 1 gpa=0x40000000 size=2M mem=A flags=log_dirty")
    if kernel == "series-03":
        assert changes["mmu_shadow_zapped"] == used
        return
    # The table with the MMIO spte goes; parents, the root and all other tables stay.
    assert changes["mmu_shadow_zapped"] == 1
    assert (vm.mmu("n_used"), vm.mmu("valid_gen")) == (used - 1, generation)
    assert zaps(vm) == []
    assert vm.ctl("a vcpu 0 access w 0")["faults"] == "0"
    copy.write(f"{CONTROL}/ctl", "a slot 1 gpa=0x40000000 size=2M mem=A flags=log_dirty")
    copy.write(f"{CONTROL}/ctl", "a vcpu 0 access w 0")
    for name in ("mmu", "shadow_pages"):
        assert copy.read(f"{CONTROL}/vms/a/{name}") == vm.view(name)


def test_a_wrap_without_mmio_zaps_nothing() -> None:
    vm = MmuVm("5.3", wrap_gen=0x7FFFC)
    vm.ctl("a vcpu 0 access w 0")
    changes = vm.changes("a slot 1 gpa=0x40000000 size=2M mem=A")
    assert changes.get("mmu_shadow_zapped", 0) == 0
    assert changes.get("remote_tlb_flush", 0) == 0


def test_the_views_of_a_vm_go_with_it() -> None:
    vm = MmuVm()
    vm.ctl("vm destroy a")
    with pytest.raises(KernelError) as refusal:
        vm.view("memslots")
    assert refusal.value.errno == ENOENT

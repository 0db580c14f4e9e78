"""What every memory kernel shows of itself: formats, events, counters, both zap flows, knobs."""

from __future__ import annotations

import os
from errno import ENOTTY

import pytest

from fakesys.core.errors import KernelError
from fakesys.machine.kernels.ap import AP_KERNELS
from fakesys.machine.kernels.apicv import APICV_KERNELS
from fakesys.machine.kernels.mmu import MMU_KERNELS
from fakesys.machine.kernels.series import Kernels
from fakesys.subsystems.kvm_mmu.shadow.policy import Generation
from fakesys.tree.node import File
from tests.files.mmu import CONTROL, DIRECTORY, TRACING, MmuVm

KERNELS = tuple(MMU_KERNELS)
SERIES = tuple(name for name in KERNELS if name.startswith("series-"))
EVENTS = f"{TRACING}/events/kvmmmu"
OLD = {
    "kvm_mmu_pagetable_walk",
    "kvm_mmu_paging_element",
    "kvm_mmu_set_accessed_bit",
    "kvm_mmu_set_dirty_bit",
    "kvm_mmu_walker_error",
    "kvm_mmu_get_page",
    "kvm_mmu_sync_page",
    "kvm_mmu_unsync_page",
    "kvm_mmu_prepare_zap_page",
    "mark_mmio_spte",
    "handle_mmio_page_fault",
    "fast_page_fault",
    "check_mmio_spte",
}
FAST = OLD | {"kvm_mmu_zap_all_fast"}
V5_4 = FAST | {"kvm_mmu_set_spte", "kvm_mmu_spte_requested"}
V6 = V5_4 | {"kvm_tdp_mmu_spte_changed", "kvm_mmu_split_huge_page"}


def expected_events(kernel: str) -> set[str]:
    if kernel in ("6.1", "6.12", "6.18"):
        return V6
    if kernel.startswith("5.4"):
        return V5_4
    return OLD if kernel in ("5.1", "5.3", *SERIES[:4]) else FAST


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_events_that_there_are(kernel: str) -> None:
    vm = MmuVm(kernel, size=0)
    there = set(vm.machine.listdir(EVENTS)) - {"enable", "filter"}
    assert there == expected_events(kernel)
    assert len(OLD) == 13


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_generation_in_the_events_of_pages(kernel: str) -> None:
    text = MmuVm(kernel, size=0).machine.read(f"{EVENTS}/kvm_mmu_get_page/format")
    if kernel in ("5.1", "5.3", *SERIES[:3]):
        assert "mmu_valid_gen" not in text
    elif kernel in SERIES[3:9]:
        assert "field:unsigned long mmu_valid_gen;\toffset:8;\tsize:8;" in text
        assert "sp gen %lx gfn" in text
    else:
        assert "field:__u8 mmu_valid_gen;\toffset:8;\tsize:1;" in text
        assert "sp gen %u gfn" in text


def used(vm: MmuVm) -> int:
    """Map a page in each of three tables: six shadow pages."""
    vm.ctl("a vcpu 0 access w 0 n=3 stride=2M")
    vm.ctl("a slot 1 gpa=0x40000000 size=2M mem=A")
    vm.events()
    return vm.mmu("n_used")


# 5.1 zaps nothing where the slot has nothing.
@pytest.mark.parametrize("kernel", KERNELS[1:])
def test_a_delete_in_every_kernel(kernel: str) -> None:
    vm = MmuVm(kernel)
    assert used(vm) == 6
    changes = vm.changes("a slot 1 gpa=0 size=0")
    assert changes["mmu_shadow_zapped"] == 6
    lines = vm.events()
    zapped = [line.split("gfn ")[1] for line in lines if "prepare_zap" in line]
    oldest_first = [(0, 4), (0, 3), (0, 2), (0, 1), (0x200, 1), (0x400, 1)]
    order = oldest_first if kernel != "5.3" else oldest_first[::-1]
    assert [text.split()[:2] for text in zapped] == [[f"{g:x}", f"l{level}"] for g, level in order]
    generation = ["kvm_mmu_zap_all_fast: kvm-mmu-valid-gen 0 used_pages 6"]
    fast = [line for line in lines if "zap_all_fast" in line]
    assert fast == (generation if "kvm_mmu_zap_all_fast" in expected_events(kernel) else [])
    # The root is left; from 6.1 on it is on no list any more.
    assert vm.mmu("n_used") == 1
    left = (
        [["0", "4", hex(int(vm.pages()[0][2], 16)), "0", "1", "direct,invalid"]]
        if (kernel not in ("6.1", "6.12", "6.18"))
        else []
    )
    assert vm.pages() == left
    # The next entry lets the root go and begins anew.
    assert vm.changes("a vcpu 0 access w 0")["mmu_shadow_zapped"] == 1
    assert vm.mmu("n_used") == 4


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_generations_of_four_deletes(kernel: str) -> None:
    vm = MmuVm(kernel)
    for _ in range(4):
        used(vm)
        vm.ctl("a slot 1 gpa=0 size=0")
    generation = MMU_KERNELS[kernel].policy.generation
    expected = {Generation.NONE: 0, Generation.COUNTER: 4, Generation.TOGGLE: 0}
    assert vm.mmu("valid_gen") == expected[generation]


@pytest.mark.parametrize("kernel", ["5.4", "6.1", "6.12", "6.18"])
def test_zap_all_fast_prints_0_1_0_1(kernel: str) -> None:
    vm = MmuVm(kernel)
    told = []
    for _ in range(4):
        used(vm)
        vm.ctl("a slot 1 gpa=0 size=0")
        told += vm.told("kvm_mmu_zap_all_fast")
    assert told == [f"kvm-mmu-valid-gen {gen} used_pages 6" for gen in (0, 1, 0, 1)]


@pytest.mark.parametrize("kernel", KERNELS)
def test_either_flow_can_be_chosen(kernel: str) -> None:
    for flow in ("zap_all", "fast"):
        vm = MmuVm(kernel, zap_flow=flow)
        assert vm.machine.read(f"{CONTROL}/params/zap_flow") == f"{flow}\n"
        used(vm)
        assert vm.ctl("a slot 1 gpa=0 size=0") == {"zapped": "6", "rounds": "0"}
        assert vm.counters().get("pages_4k") is None
        assert vm.mmu("valid_gen") == (flow == "fast")


@pytest.mark.parametrize(
    ("kernel", "names"),
    [
        ("5.4", {"pf_fixed": 2}),
        ("6.1", {"pf_taken": 2, "pf_fixed": 2, "pages_4k": 16}),
        ("6.18", {"pf_taken": 2, "pf_fixed": 2, "pages_4k": 16}),
    ],
)
def test_the_counters_of_two_faults(kernel: str, names: dict[str, int]) -> None:
    vm = MmuVm(kernel)
    # The command takes the vCPU out of its guest first.
    exits = {"exits": 3, "irq_exits": 1}
    assert vm.changes("a vcpu 0 access w 0 n=16") == {**names, **exits, "mmu_cache_miss": 4}


def test_large_pages_by_the_names_of_each_kernel() -> None:
    for kernel, name in (("5.4", "largepages"), ("6.1", "pages_2m"), ("6.18", "pages_2m")):
        vm = MmuVm(kernel, thp=1)
        assert vm.changes("a vcpu 0 access w 0 n=1024")[name] == 2


def test_fast_faults_count_by_outcome_from_6_1_on() -> None:
    for kernel, counted in (("5.4", {}), ("6.1", {"pf_taken": 1, "pf_fixed": 1, "pf_fast": 1})):
        vm = MmuVm(kernel)
        vm.ctl("a vcpu 0 setup")
        vm.ctl("a vcpu 0 access w 0")
        vm.ctl("a slot 0 gpa=0 size=64M mem=A flags=log_dirty")
        vm.events()
        changes = vm.changes("a vcpu 0 access w 0")
        assert {name: by for name, by in changes.items() if name.startswith("pf_")} == counted
        (text,) = vm.told("fast_page_fault")
        assert text.endswith("spurious 0 fixed 1")


def test_5_4_reloads_all_roots_and_6_1_obsolete_ones_only() -> None:
    for kernel, number in (("5.4", 1), ("6.1", 0)):
        vm = MmuVm(kernel, vcpus=2)
        for vcpu in range(2):
            vm.ctl(f"a vcpu {vcpu} setup")
            vm.ctl(f"a vcpu {vcpu} access w 0")
        # The shrinker of 5.4 zaps the shared root; 6.1 passes it over.
        vm.ctl("shrink")
        vm.events()
        vm.ctl("a vcpu 1 access w 0")
        new = [text for text in vm.told("kvm_mmu_get_page") if " l4 " in text]
        assert len(new) == number, kernel


def test_get_nr_mmu_pages_is_gone_in_6_12() -> None:
    for kernel in KERNELS:
        vm = MmuVm(kernel, events=())
        if kernel in ("6.12", "6.18"):
            vm.refused(ENOTTY, "a nr_mmu_pages")
        else:
            assert vm.ctl("a nr_mmu_pages") == {"value": "327"}


@pytest.mark.parametrize("kernel", ["6.12", "6.18"])
def test_a_delete_without_the_quirk_zaps_the_slot_alone(kernel: str) -> None:
    vm = MmuVm(kernel)
    vm.ctl("a vcpu 0 setup")
    used(vm)
    vm.ctl("a vcpu 0 access w 0x40000000")
    vm.ctl("a quirks 0x80")
    vm.events()
    changes = vm.changes("a slot 1 gpa=0 size=0")
    assert changes == {"pages_4k": -8, "remote_tlb_flush_requests": 1}
    assert vm.events() == []
    assert vm.mmu("valid_gen") == 0


def test_roles_have_the_size_of_entries_the_other_way_round_before_6_1() -> None:
    for kernel, role in (("5.4", "0x3794"), ("6.1", "0x3784")):
        vm = MmuVm(kernel)
        vm.ctl("a vcpu 0 access w 0")
        assert vm.pages()[-1][:3] == ["0", "4", role]
        assert all("8-byte" in text for text in vm.told("kvm_mmu_get_page"))


def test_the_list_of_pages_is_newest_first() -> None:
    vm = MmuVm()
    vm.ctl("a vcpu 0 access w 0")
    vm.ctl("a vcpu 0 access w 0x600000")
    assert [line[:2] for line in vm.pages()] == [
        ["600", "1"],
        ["0", "1"],
        ["0", "2"],
        ["0", "3"],
        ["0", "4"],
    ]


def test_thousands_of_lines_are_made_in_pieces_and_only_forwards() -> None:
    vm = MmuVm(size=16 << 30, events=())
    vm.ctl(f"a vcpu 0 access w 0 n={16 << 18}")
    assert len(vm.pages()) == 8192 + 16 + 2
    node = vm.machine.fs.resolve(f"{CONTROL}/vms/a/shadow_pages")
    assert isinstance(node, File)
    handle = vm.machine.fs.open(node, os.O_RDONLY)
    first = handle.read(0, 100, nonblock=True)
    assert first.startswith(b"3ffe00 1 0x3791 0 0 direct\n")
    whole = vm.view("shadow_pages").encode()
    assert handle.read(len(whole) - 10, 100, nonblock=True) == whole[-10:]
    assert handle.read(len(whole), 100, nonblock=True) == b""
    assert handle.read(0, 100, nonblock=True) == first
    handle.release()


def test_two_vcpus_share_their_root() -> None:
    vm = MmuVm(vcpus=2)
    vm.ctl("a vcpu 0 access w 0")
    vm.ctl("a vcpu 1 access w 0x200000")
    roots = [text for text in vm.told("kvm_mmu_get_page") if " l4 " in text]
    assert [text.split(" root ")[1] for text in roots] == ["0 sync new", "1 sync existing"]
    assert vm.pages()[-1][4] == "2"


def test_guest_tables_are_followed_and_may_change() -> None:
    vm = MmuVm("5.4", vcpus=2, paging="shadow")
    vm.ctl("a guest_tables")
    for vcpu in range(2):
        vm.ctl(f"a vcpu {vcpu} setup")
    vm.ctl("a vcpu 0 run r=0x400000")
    assert vm.mmu("indirect_shadow_pages") > 4
    # The guest maps 0x400000 to the page of 0x500000; its table is read again at a reload.
    vm.ctl("a vcpu 0 run w64=0x22000,0x500007")
    assert vm.counter("mmu_unsync") == 1
    assert vm.told("kvm_mmu_unsync_page") == ["sp gen 0 gfn 22 l1 8-byte q0 wux nxe ad root 0 sync"]
    vm.ctl("a vcpu 1 run r=0x400000")
    assert vm.counters().get("mmu_unsync") is None
    assert [text.split("gfn ")[1] for text in vm.told("kvm_mmu_sync_page")] == [
        "22 l1 8-byte q0 wux nxe ad root 0 unsync"
    ]


def test_a_write_to_an_upper_table_is_emulated() -> None:
    vm = MmuVm("5.4", paging="shadow")
    vm.ctl("a guest_tables")
    vm.ctl("a vcpu 0 setup")
    vm.ctl("a vcpu 0 run r=0x12000 r=0x400000")
    changes = vm.changes("a vcpu 0 run w64=0x12010,0x22007")
    assert (changes["mmu_pte_write"], changes["mmu_pde_zapped"]) == (1, 1)
    changes = vm.changes("a vcpu 0 run w64=0x12010,0x22007 w64=0x12010,0x22007 w64=0x12010,0x22007")
    assert changes["mmu_flooded"] == 1


@pytest.mark.parametrize("kernel", ["5.4", "6.1"])
def test_hash_collisions_have_a_peak(kernel: str) -> None:
    vm = MmuVm(kernel, size=64 << 30, events=())
    vm.ctl(f"a vcpu 0 access w 0 n={64 << 18}")
    assert vm.counter("max_mmu_page_hash_collisions") > 1
    vm.machine.write(f"{DIRECTORY}/max_mmu_page_hash_collisions", "0")
    assert vm.counter("max_mmu_page_hash_collisions") == 0


@pytest.mark.parametrize("kernels", [AP_KERNELS, APICV_KERNELS, MMU_KERNELS],
                         ids=lambda kernels: kernels.series.prefix)  # fmt: skip
def test_what_a_refused_level_proposes_is_possible(kernels: Kernels[object]) -> None:
    series = kernels.series
    whole = f"{series.prefix}-{series.count:02d}"
    numbers = range(1, series.count + 1)
    names = [f"{whole}-{one:02d}" for one in numbers]
    names += [f"{whole}-{one:02d}-{two:02d}" for one in numbers for two in numbers if one != two]
    for name in names:
        try:
            series.patches(name)
        except KernelError as refusal:
            proposed = refusal.why.split(": ")[1].split()[0]
            assert proposed.startswith(name)
            assert series.patches(proposed) is not None

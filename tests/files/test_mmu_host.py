"""Dirty logs, the mmu notifier, the shrinker, mmu_rmaps_stat, races: through the files."""

from __future__ import annotations

import os
import select
from errno import EBADF, ENOENT, ESPIPE

import pytest

from fakesys.core.errors import KernelError
from fakesys.tree.node import File
from tests.files.mmu import CONTROL, DIRECTORY, MIB, MmuVm

LOGGED = "a slot 0 gpa=0 size=4M mem=A flags=log_dirty"
PLAIN = "a slot 0 gpa=0 size=4M mem=A flags=0"


def small(kernel: str = "6.1", *, thp: int = 0) -> MmuVm:
    """4 MiB, of which 16 pages are mapped; the vCPU was set up, so no flush has to kick it."""
    vm = MmuVm(kernel, size=4 * MIB, thp=thp)
    vm.ctl("a vcpu 0 setup")
    vm.ctl("a vcpu 0 access w 0 n=16")
    vm.events()
    return vm


def test_written_pages_are_listed_once() -> None:
    vm = small()
    vm.ctl(LOGGED)
    assert vm.machine.listdir(f"{CONTROL}/vms/a/dirty") == ["0"]
    assert (vm.view("dirty/0"), vm.ctl("a dirty_log 0")) == ("", {"dirty": "none"})
    vm.ctl("a vcpu 0 access w 0x2000 n=3")
    vm.ctl("a vcpu 0 access w 0x9000")
    vm.ctl("a vcpu 0 access r 0xf000")
    # The view takes nothing away.
    assert vm.view("dirty/0") == vm.view("dirty/0") == "2-4\n9\n"
    assert vm.ctl("a dirty_log 0") == {"dirty": "2-4,9"}
    assert vm.ctl("a dirty_log 0") == {"dirty": "none"}
    # What was listed is protected again, and told again.
    assert vm.ctl("a vcpu 0 access w 0x9000") == {"faults": "1"}
    assert vm.ctl("a dirty_log 0") == {"dirty": "9"}


def test_a_log_that_goes_takes_its_view_along() -> None:
    vm = small()
    vm.ctl(LOGGED)
    files, path = vm.machine.fs, f"{CONTROL}/vms/a/dirty/0"
    node = files.resolve(path)
    assert isinstance(node, File)
    handle = files.open(node, os.O_RDONLY)
    vm.ctl(PLAIN)
    assert vm.machine.listdir(f"{CONTROL}/vms/a/dirty") == []
    for read in (lambda: files.read(node, handle, 0, 100), lambda: vm.machine.read(path)):
        with pytest.raises(KernelError) as refusal:
            read()
        assert refusal.value.errno == ENOENT
    handle.release()


@pytest.mark.parametrize(("kernel", "requests"), [("5.4", None), ("6.1", 1)])
def test_flushes_of_a_log(kernel: str, requests: int | None) -> None:
    vm = small(kernel)
    key = "remote_tlb_flush_requests"
    assert vm.changes(LOGGED).get(key) == requests
    assert key not in vm.changes("a dirty_log 0")
    vm.ctl("a vcpu 0 access w 0x2000 n=3")
    assert vm.changes("a dirty_log 0").get(key) == requests
    assert key not in vm.changes(PLAIN)


@pytest.mark.parametrize(("kernel", "flushes"), [("5.4", None), ("6.1", 1)])
def test_a_log_with_nothing_mapped_flushes_from_6_1_on(kernel: str, flushes: int | None) -> None:
    vm = MmuVm(kernel, size=4 * MIB)
    # In the guest, so that 5.4 would count a flush as well.
    assert vm.changes(LOGGED).get("remote_tlb_flush") == flushes


def test_the_manual_kind_tells_and_clears_apart() -> None:
    vm = small()
    vm.ctl("a cap 168 1")
    vm.ctl(LOGGED)
    vm.ctl("a vcpu 0 access w 0x2000 n=3")
    key = "remote_tlb_flush_requests"
    assert key not in vm.changes("a dirty_log 0")
    assert vm.ctl("a dirty_log 0") == {"dirty": "2-4"}
    assert vm.ctl("a vcpu 0 access w 0x2000 n=3") == {"faults": "0"}
    assert vm.changes("a clear_dirty 0 first=0 n=64")[key] == 1
    assert key not in vm.changes("a clear_dirty 0 first=0 n=64")
    assert vm.ctl("a dirty_log 0") == {"dirty": "none"}
    assert vm.ctl("a vcpu 0 access w 0x2000 n=3") == {"faults": "3"}


def test_a_log_may_begin_full_and_protects_nothing_then() -> None:
    vm = small()
    vm.ctl("a cap 168 3")
    assert "remote_tlb_flush_requests" not in vm.changes(LOGGED)
    assert vm.ctl("a vcpu 0 access w 0 n=16") == {"faults": "0"}
    assert vm.ctl("a dirty_log 0") == {"dirty": "0-1023"}
    vm.ctl("a clear_dirty 0 first=64 n=960")
    assert vm.ctl("a dirty_log 0") == {"dirty": "0-63"}
    # The last words of a slot need not be whole.
    vm.ctl("a slot 1 gpa=0x40000000 size=400K mem=A flags=log_dirty")
    vm.ctl("a clear_dirty 1 first=64 n=36")
    assert vm.ctl("a dirty_log 1") == {"dirty": "0-63"}


def test_logging_breaks_large_pages_up_and_its_end_brings_them_back() -> None:
    vm = small(thp=1)
    assert vm.counter("pages_2m") == 1
    vm.ctl(LOGGED)
    changes = vm.changes("a vcpu 0 access w 0x5000")
    assert (changes["pages_2m"], changes["pages_4k"]) == (-1, 1)
    assert changes["mmu_cache_miss"] == 1
    vm.ctl("a vcpu 0 access w 0x7000")
    assert vm.view("dirty/0") == "5\n7\n"
    changes = vm.changes(PLAIN)
    # Small mappings that a large one can replace are dropped; their table stays.
    assert (changes["pages_4k"], changes["remote_tlb_flush_requests"]) == (-2, 1)
    assert vm.changes("a vcpu 0 access w 0x5000")["pages_2m"] == 1


def test_many_writes_at_once_are_logged_like_single_ones() -> None:
    bulk, single = (MmuVm("6.1", size=8 * MIB, events=events) for events in ((), ("kvmmmu",)))
    for vm in (bulk, single):
        vm.ctl("a slot 0 gpa=0 size=8M mem=A flags=log_dirty")
        # A page that is read may be written from then on, so it counts as written.
        vm.ctl("a vcpu 0 access r 0x3000 n=1000")
        vm.ctl("a vcpu 0 access w 0x1ff000 n=700")
        assert vm.view("dirty/0") == "3-1210\n"
        vm.ctl("a dirty_log 0")
        vm.ctl("a vcpu 0 access w 0x200000 n=5")
        assert vm.view("dirty/0") == "512-516\n"
    assert bulk.counters() == single.counters()


def test_an_invalidation_drops_sptes_and_keeps_tables() -> None:
    vm = small()
    used = vm.mmu("n_used")
    changes = vm.changes("a notifier invalidate A off=0x1000 size=12K")
    assert changes == {"pages_4k": -3, "remote_tlb_flush_requests": 1}
    assert vm.mmu("n_used") == used
    assert vm.changes("a notifier invalidate A off=0x1000 size=12K") == {}
    assert vm.ctl("a vcpu 0 access w 0x1000 n=3") == {"faults": "1"}


def test_every_range_is_told_also_without_slots() -> None:
    vm = small()
    vm.ctl("a mem B size=2M")
    vm.machine.write("sys/kernel/tracing/events/kvm/kvm_unmap_hva_range/enable", "1")
    vm.ctl("a notifier invalidate B size=4096")
    (text,) = vm.told("kvm_unmap_hva_range")
    assert text.startswith("mmu notifier unmap range: 0x")


def test_unmapped_pages_come_back_when_touched_and_not_by_prefetch() -> None:
    vm = small()
    vm.ctl("a notifier unmap A off=0x1000 size=12K")
    assert vm.changes("a vcpu 0 access w 0x1000")["pages_4k"] == 1
    assert vm.changes("a vcpu 0 access w 0x2000")["pages_4k"] == 1


def test_a_part_of_a_large_page_that_is_gone_makes_it_small() -> None:
    vm = small(thp=1)
    assert vm.changes("a notifier unmap A off=0x1000 size=4096")["pages_2m"] == -1
    changes = vm.changes("a vcpu 0 access w 0x8000")
    assert (changes["pages_4k"], changes.get("pages_2m")) == (8, None)


def test_pages_that_the_host_may_only_read() -> None:
    vm = small()
    vm.ctl("a notifier protect A off=0 size=4096 prot=r")
    assert vm.ctl("a vcpu 0 access r 0") == {"faults": "1"}
    (text,) = [text for text in vm.told("kvm_mmu_set_spte") if text.startswith("gfn 0 ")]
    assert "(r-xu)" in text
    assert vm.ctl("a vcpu 0 access w 0") == {"faults": "1", "exits": "EFAULT"}
    vm.ctl("a notifier protect A off=0 size=4096 prot=rw")
    assert vm.ctl("a vcpu 0 access w 0") == {"faults": "1"}


def test_the_shrinker_of_5_4_takes_roots_as_well() -> None:
    vm = small("5.4")
    assert vm.ctl("shrink") == {"freed": "0"}
    # The root went to the head, invalid; its vCPU is asked to load another.
    assert vm.pages()[0] == ["0", "4", "0x3f94", "0", "1", "direct,invalid"]
    assert vm.ctl("shrink n=2") == {"freed": "2"}
    assert vm.mmu("n_used") == 2
    assert "mmu_recycled" not in vm.counters()


def test_the_shrinker_of_6_1_passes_roots_over_and_counts() -> None:
    vm = small("6.1")
    assert vm.ctl("shrink n=9") == {"freed": "3"}
    assert (vm.mmu("n_used"), vm.counter("mmu_recycled")) == (1, 3)


def test_6_18_has_no_shrinker() -> None:
    vm = small("6.18")
    assert vm.ctl("shrink n=9") == {"freed": "0"}
    assert vm.mmu("n_used") == 4


def test_the_shrinker_asks_one_vm_after_the_other() -> None:
    vm = small("6.1")
    vm.ctl("vm create b pid=78 fd=10")
    vm.ctl("b vcpu add")
    vm.ctl("b mem A size=4M")
    vm.ctl("b slot 0 gpa=0 size=4M mem=A")
    vm.ctl("b vcpu 0 access w 0")
    zapped = []
    for _ in range(4):
        vm.ctl("shrink")
        theirs = int(vm.machine.read("sys/kernel/debug/kvm/78-10/mmu_recycled"))
        zapped.append((vm.counters().get("mmu_recycled", 0), theirs))
    assert zapped == [(0, 1), (1, 1), (1, 2), (2, 2)]


def rmaps(vm: MmuVm) -> list[list[str]]:
    lines = vm.machine.read(f"{DIRECTORY}/mmu_rmaps_stat").splitlines()
    return [line.split("\t") for line in lines]


def test_rmaps_of_direct_pages() -> None:
    vm = small()
    head, *rows = rmaps(vm)
    assert head == [
        "Rmap_Count:",
        "0",
        "1",
        "2-3",
        "4-7",
        "8-15",
        "16-31",
        "32-63",
        "64-127",
        "128-255",
        "256-511",
        "512-1023",
        "",
    ]
    assert [row[:3] for row in rows] == [
        ["Level=4K:", "1008", "16"],
        ["Level=2M:", "2", "0"],
        ["Level=1G:", "1", "0"],
    ]
    assert all(cell == "0" for row in rows for cell in row[3:-1])


def test_rmaps_count_large_pages_by_their_own_size() -> None:
    rows = rmaps(small(thp=1))
    assert rows[1][1:3] == ["1024", "0"]
    assert rows[2][1:3] == ["1", "1"]


def test_rmaps_of_a_page_that_two_guest_tables_map() -> None:
    vm = MmuVm("6.1", paging="shadow")
    vm.ctl("a guest_tables")
    # The second page of the first region points to the first page of the second, like its own.
    vm.ctl("a host_write A off=0x20048 hex=0700200000000000")
    vm.ctl("a host_write A off=0x20050 hex=0700200000000000")
    vm.ctl("a vcpu 0 setup")
    vm.ctl("a vcpu 0 access w 0x200000")
    for page in (9, 10):
        vm.ctl(f"a vcpu 0 access w {page * 4096}")
    # Three sptes: the kernel takes the lowest bit set, and 3 is in the column of 1.
    before = rmaps(vm)[1]
    assert int(before[1]) + int(before[2]) + sum(map(int, before[3:-1])) == 16384
    vm.ctl("a notifier invalidate A off=0x200000 size=4096")
    assert int(rmaps(vm)[1][1]) == int(before[1]) + 1


def test_5_4_has_no_rmaps_file() -> None:
    assert "mmu_rmaps_stat" not in MmuVm("5.4").machine.listdir(DIRECTORY)


RACE = "a race slot=0 vcpus=3 ws=4M max_rounds=3000"


def test_a_race_deletes_its_slot_and_is_remembered() -> None:
    vm = MmuVm(events=())
    assert vm.view("race") == ""
    result = vm.ctl(f"{RACE} flow=zap_all")
    assert (result["result"], result["cycle"]) == ("livelock", "1024")
    assert vm.view("race").split() == [word for pair in result.items() for word in pair]
    assert vm.view("memslots") == ""
    assert vm.mmu("n_used") == 0


def test_a_race_takes_the_flow_of_the_knob_and_of_the_kernel() -> None:
    for kernel, knobs, result in (
        ("5.3", {}, "livelock"),
        ("5.4-stable", {}, "done"),
        ("5.4-stable", {"zap_flow": "zap_all"}, "livelock"),
        ("5.4-stable", {"zap_flow": "zap_all", "preempt": 0}, "done"),
    ):
        vm = MmuVm(kernel, events=(), **knobs)
        assert vm.ctl(RACE)["result"] == result, (kernel, knobs)


def test_the_same_race_twice() -> None:
    first, second = (MmuVm(events=()).ctl(f"{RACE} seed=9") for _ in range(2))
    assert first == second


def test_a_race_of_no_vcpus_zaps_what_both_flows_zap() -> None:
    zapped = {
        MmuVm(events=()).ctl(f"a race slot=0 vcpus=0 flow={flow}")["zapped"]
        for flow in ("zap_all", "fast")
    }
    assert zapped == {"35"}


def test_fast_zaps_leave_pages_to_the_shrinker() -> None:
    vm = MmuVm("5.4", events=())
    memory = vm.machine.subsystems.kvm.memory.memories[vm.machine.subsystems.kvm.kvm.vm("a")]
    vm.ctl("a vcpu 0 access w 0 n=4 stride=2M")
    flow = memory.begin_zap(memory.arch.delete_flow, lambda: True)
    flow.step(budget=4)
    assert vm.mmu("zapped_obsolete") == 3
    flags = [line[-1] for line in vm.pages()]
    # The root went to the head; what is still to be zapped is obsolete, nothing is valid.
    assert flags == ["direct,invalid", "direct,obsolete", "direct,obsolete", "direct,obsolete"]
    assert vm.ctl("shrink") == {"freed": "0"}
    assert vm.mmu("zapped_obsolete") == 0
    flow.step()
    assert vm.mmu("n_used") == 1


def test_a_slot_that_is_being_deleted_is_invalid_in_its_view() -> None:
    vm = MmuVm()
    memory = vm.machine.subsystems.kvm.memory.memories[vm.machine.subsystems.kvm.kvm.vm("a")]
    slot = memory.slots.by_id[0]
    flow = memory.begin_removal(slot)
    assert flow is not None
    assert vm.view("memslots") == "0 0x0 0x4000000 invalid A+0x0\n"
    # Its pages can be had no more, and the guest tries for a while.
    assert vm.ctl("a vcpu 0 access r 0") == {"faults": "16", "exits": "EFAULT"}
    flow.step()
    memory.end_removal(slot, None)
    assert vm.view("memslots") == ""


def test_the_list_of_pages_is_read_forwards() -> None:
    vm = MmuVm("6.1", size=128 << 30, events=())
    vm.ctl(f"a vcpu 0 access w 0 n={128 << 18}")
    node = vm.machine.fs.resolve(f"{CONTROL}/vms/a/shadow_pages")
    assert isinstance(node, File)
    handle = vm.machine.fs.open(node, os.O_RDONLY)
    assert handle.poll() & select.POLLIN
    assert handle.waiters() is None
    offset = 0
    while piece := handle.read(offset, 1 << 17, nonblock=True):
        offset += len(piece)
    assert offset > 1 << 20
    # What lies more than a megabyte back is forgotten.
    for refused, errno in (
        (lambda: handle.read(1, 10, nonblock=True), ESPIPE),
        (lambda: handle.write(b"1", 0, nonblock=True), EBADF),
    ):
        with pytest.raises(KernelError) as refusal:
            refused()
        assert refusal.value.errno == errno
    assert handle.read(0, 4, nonblock=True) == b"1fff"
    handle.release()


@pytest.mark.parametrize("kernel", ["5.4", "5.4-stable", "6.1", "6.12", "6.18"])
def test_fast_faults_and_refused_walks_are_told_as_each_kernel_does(kernel: str) -> None:
    vm = MmuVm(kernel, paging="shadow")
    vm.ctl("a guest_tables")
    vm.ctl("a vcpu 0 setup")
    vm.ctl("a vcpu 0 access r 0x8000000")
    assert vm.told("kvm_mmu_walker_error") == ["pferr 4 U"]


@pytest.mark.parametrize(
    ("kernel", "ends"),
    [("5.3", "spurious 0 fixed 1"), ("5.4", "spurious 0 fixed 1"), ("6.18", "spurious 0 fixed 1")],
)
def test_fast_faults_are_told(kernel: str, ends: str) -> None:
    vm = MmuVm(kernel)
    vm.ctl("a vcpu 0 access w 0")
    vm.ctl("a slot 0 gpa=0 size=64M mem=A flags=log_dirty")
    vm.events()
    vm.ctl("a vcpu 0 access w 0")
    (text,) = vm.told("fast_page_fault")
    address = "gva 0"
    assert text.startswith(f"vcpu 0 {address} error_code P|W|U")
    assert text.endswith(ends)


def test_a_long_zap_is_interrupted_by_the_time_slice_alone() -> None:
    vm = MmuVm("5.4-stable", events=(), preempt=0)
    result = vm.ctl("a race slot=0 vcpus=4 ws=1G flow=zap_all max_rounds=20")
    assert int(result["rounds"]) > 0
    vm = MmuVm("5.4-stable", events=(), preempt=0)
    result = vm.ctl("a race slot=0 vcpus=4 ws=1G flow=fast")
    assert result["result"] == "done"
    assert 0 < int(result["rounds"]) < int(result["zapped"]) // 10

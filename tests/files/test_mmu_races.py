"""Races that are paused in the middle of a zap: what files show, what may come, how they end."""

from __future__ import annotations

import base64
from errno import EBUSY, EINVAL
from typing import Any

import msgspec
import pytest

from fakesys.core.errors import KernelError
from fakesys.core.saved import BadSnapshotError
from fakesys.machine.machine import Machine
from tests.files.mmu import CONTROL, TRACING, MmuVm
from tests.long import LONG
from tests.saved.kvm_copies import encoded, fresh, plain, restore
from tests.whole_machine import differences

SMALL = "a race slot=1 vcpus=2 ws=2M"
# Kernels with the paging by which their races drop the lock after the first pages.
KERNELS = [("5.3", "tdp"), ("series-02", "tdp"), ("series-07", "shadow"), ("series-08", "shadow")]
if LONG:
    KERNELS += [("5.1", "tdp"), ("5.4-stable", "tdp"), ("5.4", "shadow"), ("6.1", "shadow")]
    KERNELS += [("6.18", "tdp"), ("series-11", "shadow")]


def guest(kernel: str, paging: str = "tdp", **knobs: Any) -> MmuVm:
    """A VM whose slot 1 may be deleted; with shadow paging thirteen tables are out of sync."""
    vm = MmuVm(kernel, events=(), paging=paging, **knobs)
    vm.ctl("a slot 1 gpa=0x40000000 size=2M mem=A")
    if paging == "shadow":
        vm.ctl("a guest_tables")
        vm.ctl("a vcpu 0 setup")
        vm.ctl("a vcpu 0 run rloop=0x200000,12,0x200000")
        vm.ctl("a vcpu 0 run wloop=0x21000,12")
    else:
        vm.ctl("a vcpu 0 access w 0 n=24 stride=2M")
        vm.ctl("a vcpu 0 access w 0x40000000")
    return vm


def paused(kernel: str, paging: str = "tdp", **knobs: Any) -> MmuVm:
    vm = guest(kernel, paging, **knobs)
    result = vm.ctl(f"{SMALL} pause=1")
    assert (result["result"], result["rounds"]) == ("paused", "1")
    return vm


def test_every_file_shows_the_middle_of_a_race() -> None:
    vm = paused("series-02")
    assert vm.view("race").splitlines()[:2] == ["result paused", "rounds 1"]
    assert vm.view("memslots").splitlines() == [
        "0 0x0 0x4000000 - A+0x0",
        "1 0x40000000 0x200000 invalid A+0x0",
        "1048576 0x80000000 0x400000 - race+0x0",
    ]
    flags = {line[-1] for line in vm.pages()}
    # The oldest page was the root of the vCPU.
    assert flags == {"direct,invalid", "direct,obsolete"}
    assert (vm.mmu("valid_gen"), vm.mmu("zapped_obsolete")) == (1, 0)
    result = vm.ctl("a race resume pause=4")
    assert (result["result"], result["rounds"]) == ("paused", "5")
    assert {line[-1] for line in vm.pages()} >= {"direct", "direct,obsolete"}
    assert vm.ctl("a race resume")["result"] == "done"
    assert vm.view("memslots") == "0 0x0 0x4000000 - A+0x0\n"
    assert vm.view("race").startswith("result done\n")


@pytest.mark.parametrize(
    ("kernel", "waiting", "freed"), [("series-07", 0, "1"), ("series-08", 13, "0"),
                                     ("series-11-08", 0, "1"), ("series-11", 13, "0")]
)  # fmt: skip
def test_patch_08_keeps_what_is_zapped_on_a_list_of_the_vm(
    kernel: str, waiting: int, freed: str
) -> None:
    vm = paused(kernel, "shadow")
    assert vm.mmu("zapped_obsolete") == waiting
    used = vm.mmu("n_used")
    # The shrinker frees that list and none of the rest; without a list it takes the oldest page.
    assert vm.ctl("shrink") == {"freed": freed}
    assert vm.mmu("zapped_obsolete") == 0
    assert vm.mmu("n_used") == used - int(freed)
    assert vm.ctl("shrink") == {"freed": "1"}
    assert vm.ctl("a race resume")["result"] == "done"
    assert vm.mmu("zapped_obsolete") == 0


@pytest.mark.parametrize(("kernel", "rounds"), [("series-05", "1"), ("series-06", "0")])
def test_direct_pages_fill_no_batch(kernel: str, rounds: str) -> None:
    result = guest(kernel).ctl(f"{SMALL} pause=1")
    assert result["result"] == ("paused" if rounds == "1" else "done")
    assert result["rounds"] == rounds


BUSY = (
    "a slot 1 gpa=0 size=0",
    "a slot 7 gpa=0x70000000 size=4096 mem=A",
    "a race slot=0",
    "a race slot=1 pause=1",
    "a nr_mmu_pages 100",
    "a cap 168 1",
    "a dirty_log 0",
    "a clear_dirty 0 first=0 n=64",
    "a ring_reset",
)


@pytest.mark.parametrize("command", BUSY)
def test_what_takes_the_slots_has_to_wait(command: str) -> None:
    vm = paused("5.3")
    assert "paused" in vm.refused(EBUSY, command)


def test_what_takes_the_lock_alone_may_come() -> None:
    vm = paused("5.3")
    for command in (
        "a nr_mmu_pages",
        "a vcpu 0 access w 0x600000 n=1000",
        "a vcpu add id=5",
        "a notifier unmap A size=2M",
        "a host_write A off=0 hex=00",
        "a fork",
        "a fork_end",
        "shrink n=3",
        "a vcpu 0 setup real=1",
    ):
        vm.ctl(command)
    # The page that would be mapped lies in the slot that goes.
    assert vm.ctl("a vcpu 0 access r 0x40000000")["exits"] == "EFAULT"
    assert vm.ctl("a race resume")["result"] == "livelock"
    assert vm.machine.control.bugs == []


def test_without_a_race_there_is_nothing_to_resume() -> None:
    vm = guest("5.3")
    vm.refused(EINVAL, "a race resume")
    vm.ctl(f"{SMALL} pause=1")
    vm.ctl("a race resume")
    vm.refused(EINVAL, "a race resume")
    vm.refused(EINVAL, "a race resume pause=0")


@pytest.mark.parametrize(("kernel", "paging"), KERNELS)
def test_a_vm_may_go_in_the_middle(kernel: str, paging: str) -> None:
    vm = paused(kernel, paging)
    for path, text in (
        (f"{CONTROL}/mmu_profile", "5.4"),
        (f"{CONTROL}/params/paging", "tdp"),
        ("sys/kernel/debug/fakesys/modules/remove", "kvm_amd"),
    ):
        with pytest.raises(KernelError):
            vm.machine.write(path, text)
    vm.ctl("vm destroy a")
    assert vm.machine.listdir(f"{CONTROL}/vms") == []
    assert vm.machine.read("sys/kernel/debug/kvm/mmu_shadow_zapped") == "0\n"
    assert vm.machine.control.bugs == []
    vm.ctl("vm create a irqchip=none")
    assert vm.view("race") == ""


def test_what_kvm_itself_needs_the_slots_for_lets_the_race_end_first() -> None:
    vm = guest("5.4", irqchip="kernel")
    vm.ctl(f"{SMALL} pause=1 flow=zap_all")
    assert vm.view("race").startswith("result paused")
    # AVIC goes off, and its access page with it.
    vm.ctl("a vcpu 0 stop")
    vm.ctl("a vcpu 0 hv synic")
    assert "access_page absent" in vm.view("state")
    assert vm.view("race").startswith("result stopped\nrounds 1\n")
    assert not any("invalid" in line or "race" in line for line in vm.view("memslots").split())
    vm.ctl("a slot 1 gpa=0x40000000 size=2M mem=A")
    vm.ctl(f"{SMALL} pause=1 flow=zap_all")
    vm.machine.write("sys/module/kvm/parameters/nx_huge_pages", "force")
    assert vm.view("race").startswith("result stopped\nrounds 1\n")
    vm.refused(EINVAL, "a race resume")


@pytest.mark.parametrize(("kernel", "paging"), KERNELS)
def test_a_snapshot_has_the_middle_of_a_race(kernel: str, paging: str) -> None:
    vm = paused(kernel, paging)
    vm.machine.write(f"{TRACING}/events/kvmmmu/enable", "1")
    copy = Machine("seed")
    copy.load(vm.machine.save())
    assert differences(vm.machine, copy) == []
    for command in ("shrink", "a race resume pause=1", "shrink", "a race resume"):
        for machine in (vm.machine, copy):
            try:
                machine.write(f"{CONTROL}/ctl", command)
            except KernelError as refusal:
                # It was done already.
                assert (command, refusal.errno) == ("a race resume", EINVAL)
        assert differences(vm.machine, copy) == [], command
    assert vm.machine.control.bugs == copy.control.bugs == []
    copy.write(f"{CONTROL}/ctl", "vm destroy a")
    assert copy.listdir(f"{CONTROL}/vms") == []
    assert copy.control.bugs == []


WRONG = [
    ("there is no slot 5", ("setup", "slot"), 5),
    ("slot 1000 is beyond", ("setup", "slot"), 1000),
    ("1 TiB together", ("setup", "working_set"), 1 << 50),
    ("has not dropped the lock", ("rounds",), 0),
    ("the vCPUs of a race", ("setup", "vcpus"), 3),
    ("the next page of vCPU 0", ("racers", 0, "next"), 512),
    ("requests 0x10", ("racers", 0, "requests"), 16),
    ("a root of vCPU 0 is no page", ("racers", 0, "roots"), [4000]),
    ("a vCPU that waits for the lock", ("waiting",), [2]),
    ("waits twice", ("waiting",), [0, 0]),
    ("is not freed, but in use", ("unfreed",), "AAAAAA=="),
    ("a page of the memory of a race", ("written",), {"4096": "AA" * 2048}),
]


@pytest.mark.parametrize(("why", "place", "value"), WRONG, ids=lambda value: str(value)[:30])
def test_a_race_that_cannot_be_is_refused(
    why: str, place: tuple[object, ...], value: object
) -> None:
    vm = paused("series-02")
    document = plain(encoded(vm.machine))
    owner = document["memory"]["vms"][0]["paused"]
    for key in place[:-1]:
        owner = owner[key]
    if place == ("written",):
        value = {"4096": base64.b64encode(bytes(4096)).decode()}
    if place == ("waiting",):
        for racer in owner["racers"]:
            racer["runs"] = False
    owner[place[-1]] = value
    with pytest.raises(BadSnapshotError, match=why):
        restore(msgspec.json.encode(document), fresh(vm.machine))


def test_5_1_zaps_the_pages_of_the_slot_alone() -> None:
    vm = guest("5.1")
    used = vm.mmu("n_used")
    vm.machine.write(f"{TRACING}/events/kvmmmu/enable", "1")
    changes = vm.changes("a slot 1 gpa=0 size=0")
    # Tables of level 1 and 2; those above begin at gfn 0, which is not in the slot.
    zapped = [line.split(" 8-byte")[0] for line in vm.told("kvm_mmu_prepare_zap_page")]
    assert zapped == ["sp gfn 40000 l1", "sp gfn 40000 l2"] or zapped == [
        "sp gfn 40000 l2",
        "sp gfn 40000 l1",
    ]
    assert changes["mmu_shadow_zapped"] == 2
    assert vm.mmu("n_used") == used - 2
    # All others are still mapped: no fault. The series zaps them all.
    assert vm.ctl("a vcpu 0 access w 0 n=24 stride=2M") == {"faults": "0"}
    vm = guest("series-11")
    vm.ctl("a slot 1 gpa=0 size=0")
    assert vm.ctl("a vcpu 0 access w 0 n=24 stride=2M") == {"faults": "24"}


def test_5_1_zaps_a_root_that_lies_in_the_slot() -> None:
    vm = guest("5.1")
    assert vm.ctl("a slot 0 gpa=0 size=0")["zapped"] == "27"
    assert ["0", "4", "0x3f94", "0", "1", "direct,invalid"] in vm.pages()
    assert vm.ctl("a vcpu 0 access w 0x40000000") == {"faults": "1"}


def test_the_flow_of_5_1_ends_while_vcpus_fault() -> None:
    vm = guest("5.1")
    result = vm.ctl("a race slot=0 vcpus=8 ws=4M")
    assert result["result"] == "done"
    assert 0 < int(result["rounds"]) < int(result["zapped"])
    # Later kernels have such a flow too, for pages that shadow tables of the guest.
    for kernel, zapped in (("5.4", "2"), ("6.18", "0")):
        vm = guest(kernel, zap_flow="slot")
        assert vm.ctl("a race slot=1 vcpus=8 ws=4M")["zapped"] == zapped


@pytest.mark.parametrize("kernel", ["5.1", "5.3"])
def test_the_wrap_before_the_series_does_not_depend_on_the_flow(kernel: str) -> None:
    vm = MmuVm(kernel, wrap_gen=0x7FFFA, zap_flow="slot")
    vm.ctl("a vcpu 0 access w 0")
    vm.ctl("a vcpu 0 access r 0x50000000")
    vm.ctl("a slot 1 gpa=0x40000000 size=2M mem=A")
    changes = vm.changes("a slot 1 gpa=0x40000000 size=2M mem=A flags=log_dirty")
    assert changes["mmu_shadow_zapped"] == 1

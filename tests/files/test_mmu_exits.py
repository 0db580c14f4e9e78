"""Exits before the guest goes on: a full ring of dirty pages, and those of a handler of SMIs."""

from __future__ import annotations

import pytest

from tests.files.mmu import MIB, TRACING, MmuVm

RING_ENTRIES, RESERVED = 256, 64
ROOM = RING_ENTRIES - RESERVED
RINGS = ("kvm_dirty_ring_exit", "kvm_fpu", "kvm_userspace_exit")
NO_ROOT = ["kvm_fpu: load", "kvm_fpu: unload", "kvm_userspace_exit: reason KVM_EXIT_SHUTDOWN (8)"]
MODES = [("6.1", "modules"), ("6.1", "tdp"), ("6.1", "shadow"), ("6.12", "modules")]


def vm_with_rings(kernel: str, paging: str, processor: str = "amd") -> MmuVm:
    """A VM whose slot 1 is logged in rings of 256 entries."""
    events = tuple(f"kvm/{name}" for name in RINGS)
    vm = MmuVm(kernel, vcpus=0, paging=paging, events=events, processor=processor)
    vm.ctl(f"a cap 192 {RING_ENTRIES * 16}")
    vm.ctl("a vcpu add start=0")
    vm.ctl("a mem ring size=4M")
    vm.ctl(f"a slot 1 gpa={64 * MIB} size=4M mem=ring flags=log_dirty")
    vm.ctl("a guest_tables n=40")
    vm.ctl("a vcpu 0 setup")
    return vm


@pytest.mark.parametrize(("kernel", "paging"), MODES)
def test_a_vcpu_with_a_full_ring_does_not_run(kernel: str, paging: str) -> None:
    vm = vm_with_rings(kernel, paging)
    write = f"a vcpu 0 access w {64 * MIB} n=400"
    assert vm.ctl(write)["exits"] == "DIRTY_RING_FULL"
    assert vm.ctl(f"a vcpu 0 ring first={ROOM - 1} n=2")["entries"].endswith(",0:0:0")
    vm.events()
    assert vm.ctl(write) == {"faults": "0", "exits": "DIRTY_RING_FULL"}
    assert vm.ctl("a vcpu 0 run r=0x400000") == {"exits": "DIRTY_RING_FULL"}
    refused = [
        "kvm_fpu: load",
        "kvm_dirty_ring_exit: vcpu 0",
        "kvm_fpu: unload",
        "kvm_userspace_exit: reason 0x1f (31)",
    ]
    assert vm.events() == refused * 2
    vm.ctl(f"a vcpu 0 ring first=0 n={ROOM}")
    assert vm.ctl("a ring_reset") == {"reset": str(ROOM)}
    assert "exits" not in vm.ctl(f"a vcpu 0 access w {64 * MIB} n={ROOM - 1}")


def test_real_mode_that_kvm_emulates_stops_at_a_full_ring() -> None:
    vm = vm_with_rings("6.1", "tdp", processor="software")
    vm.ctl(f"a vcpu 0 access w {64 * MIB} n=400")
    vm.ctl("a vcpu 0 setup real=1")
    assert vm.ctl("a vcpu 0 run_real hex=f4") == {"exits": "DIRTY_RING_FULL"}


# mov ax, 0x41; out 0x20, al; mov [0xf000], ax; out 0x21, al; and then rsm or hlt
HANDLER = "b84100 e620 a300f0 e621".replace(" ", "")


def vm_in_smm(last: str) -> MmuVm:
    """A VM whose next run begins with a handler of SMIs that ends with these bytes."""
    vm = MmuVm("6.1", size=32 * 1024, paging="modules", events=("kvm/kvm_pio", "kvm/kvm_mmio"))
    vm.ctl("a mem smm size=64K")
    vm.ctl("a slot 0x10000 gpa=0x30000 size=64K mem=smm")
    vm.ctl(f"a host_write smm off=0x8000 hex={HANDLER}{last}")
    vm.ctl("a vcpu 0 setup real=1")
    vm.ctl("a vcpu 0 smi")
    return vm


def test_exits_of_a_handler_of_smis_are_those_of_the_run() -> None:
    vm = vm_in_smm("0faa")
    exits = vm.ctl("a vcpu 0 run_real hex=e610f4")["exits"]
    assert exits == "IO,MMIO:0xf000:write:2,IO,IO,HLT"
    assert [line.split(" count")[0] for line in vm.events()] == [
        "kvm_pio: pio_write at 0x20 size 1",
        "kvm_mmio: mmio write len 2 gpa 0xf000 val 0x41",
        "kvm_pio: pio_write at 0x21 size 1",
        "kvm_pio: pio_write at 0x10 size 1",
    ]


def test_a_handler_of_smis_that_halts_goes_on_with_the_next_run() -> None:
    vm = vm_in_smm("f40faa")
    exits = "IO,MMIO:0xf000:write:2,IO,HLT"
    assert vm.ctl("a vcpu 0 run_real hex=e610f4")["exits"] == exits
    assert vm.ctl("a vcpu 0 run_real hex=e610f4")["exits"] == "IO,HLT"


@pytest.mark.parametrize("command", ["access r 0x1000", "access w 0x1000 n=3"])
def test_other_commands_run_the_handler_first(command: str) -> None:
    vm = vm_in_smm("0faa")
    assert vm.ctl(f"a vcpu 0 {command}")["exits"] == "IO,MMIO:0xf000:write:2,IO"


@pytest.mark.parametrize("kernel", ["5.3", "5.4", "6.1"])
def test_a_cr3_in_no_slot_makes_no_root_but_a_triple_fault(kernel: str) -> None:
    vm = MmuVm(kernel, paging="shadow", events=("kvm", "kvmmmu"))
    vm.ctl("a vcpu 0 setup")
    vm.ctl("a vcpu 0 cr3 0x40000000")
    vm.events()
    assert vm.ctl("a vcpu 0 run") == {"exits": "SHUTDOWN"}
    assert vm.events() == NO_ROOT
    assert vm.ctl("a vcpu 0 access w 0x5000") == {"faults": "0", "exits": "SHUTDOWN"}
    assert vm.events() == NO_ROOT
    assert vm.pages() == []
    # A root is made once there is a slot.
    vm.ctl("a mem B size=64K")
    vm.ctl("a slot 1 gpa=0x40000000 size=64K mem=B")
    vm.events()
    vm.ctl("a vcpu 0 access w 0x5000")
    assert "kvm_mmu_get_page" in " ".join(vm.events())


def test_a_guest_that_loses_the_slot_of_its_root_triple_faults() -> None:
    vm = MmuVm("6.1", paging="shadow")
    vm.ctl("a guest_tables")
    vm.ctl("a vcpu 0 setup")
    vm.ctl("a vcpu 0 run")
    vm.ctl("a slot 0 gpa=0 size=0")
    assert vm.ctl("a vcpu 0 run") == {"exits": "SHUTDOWN"}
    assert vm.pages() == []


def test_newer_kernels_give_such_a_guest_a_root_that_maps_nothing() -> None:
    vm = MmuVm("6.12", paging="shadow", events=("kvm", "kvmmmu"))
    vm.ctl("a vcpu 0 setup")
    vm.ctl("a vcpu 0 cr3 0x40000000")
    vm.events()
    assert vm.ctl("a vcpu 0 run") == {"exits": "SHUTDOWN"}
    names = [line.split(":")[0] for line in vm.events()]
    assert names == [
        "kvm_fpu", "kvm_entry", "kvm_exit", "kvm_page_fault", "kvm_mmu_pagetable_walk",
        "kvm_mmu_walker_error", "kvm_fpu", "kvm_userspace_exit",
    ]  # fmt: skip
    assert vm.pages() == []


def test_a_page_is_put_into_the_ring_with_or_without_mmu_lock() -> None:
    vm = vm_with_rings("6.1", "modules")
    vm.machine.write(f"{TRACING}/events/kvm/kvm_dirty_ring_push/enable", "1")
    for command in ("access w 0x4000000", "ring first=0 n=1", "ring_reset", "access w 0x4000000"):
        vm.ctl(f"a {command}" if command == "ring_reset" else f"a vcpu 0 {command}")
    lines = [line for line in vm.machine.read(f"{TRACING}/trace").splitlines() if "_push" in line]
    assert [line.split()[3] for line in lines] == ["...1.", "....."]

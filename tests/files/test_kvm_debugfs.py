"""debug/kvm in every kernel: which files, their modes, texts and what can be written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from errno import EACCES, EINVAL, EIO, ENOENT, EPERM, ERANGE
from pathlib import Path
from typing import Any

import pytest

from fakesys.core.errors import KernelError
from fakesys.machine.kernels.mmu import MMU_KERNELS
from fakesys.machine.machine import Machine
from fakesys.subsystems.kvm.stats import bucket_of
from fakesys.tree.attr import Handle
from fakesys.tree.node import Directory, File

KVM = "sys/kernel/debug/kvm"
FAKESYS = "sys/kernel/debug/fakesys"
CTL = f"{FAKESYS}/kvm/ctl"
RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "oracle" / "kvm" / "files-6.18.json").read_text()
)
LENIENT = ("5.1", "5.3", "series-01", "series-11", "5.4")
STRICT = ("5.4-stable", "6.1", "6.12", "6.18")

# arch/x86/kvm/x86.c:debugfs_entries (v5.4), those of vCPUs first.
_OLD_VCPU = """
    pf_fixed pf_guest tlb_flush invlpg exits io_exits mmio_exits signal_exits irq_window nmi_window
    halt_exits halt_successful_poll halt_attempted_poll halt_poll_invalid halt_wakeup hypercalls
    request_irq irq_exits host_state_reload fpu_reload insn_emulation insn_emulation_fail
    irq_injections nmi_injections req_event l1d_flush
"""
_OLD_VM = """
    mmu_shadow_zapped mmu_pte_write mmu_pte_updated mmu_pde_zapped mmu_flooded mmu_recycled
    mmu_cache_miss mmu_unsync remote_tlb_flush largepages nx_largepages_splitted
    max_mmu_page_hash_collisions
"""
OLD_GAUGES = {"largepages", "nx_largepages_splitted"}
OLD = {name: 0o444 if name in OLD_GAUGES else 0o644 for name in (_OLD_VCPU + _OLD_VM).split()}


def old_kernel(mmu: str) -> dict[str, int]:
    """Files and modes of kernels before 5.14."""
    if mmu.startswith("5.4"):
        return OLD
    return {name: mode for name, mode in OLD.items() if name != "nx_largepages_splitted"}


def new_kernel(place: str) -> dict[str, int]:
    """Files and modes as recorded on 6.18."""
    return {name: int(mode, 8) for name, mode in RECORDED[place]["files"].items()}


def machine_of(mmu: str) -> Machine:
    """A machine whose VMs do nothing by themselves."""
    machine = Machine()
    machine.write(f"{FAKESYS}/kvm/mmu_profile", mmu)
    machine.subsystems.kvm.kvm.extend(tuple)
    return machine


@pytest.fixture(params=MMU_KERNELS)
def mmu(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def machine(mmu: str) -> Machine:
    """A machine with one VM of two vCPUs, `77-10`."""
    machine = machine_of(mmu)
    machine.write(CTL, "vm create a pid=77")
    machine.write(CTL, "a vcpu add count=2")
    return machine


def files(machine: Machine, path: str) -> dict[str, int]:
    directory = machine.fs.resolve(path)
    assert isinstance(directory, Directory)
    return {
        name: node.mode & 0o7777 for name, node in directory.entries() if isinstance(node, File)
    }


def refuses(errno: int, machine: Machine, path: str, text: str) -> None:
    with pytest.raises(KernelError) as refusal:
        machine.write(path, text)
    assert refusal.value.errno == errno, f"{text!r} to {path}"


def opened(machine: Machine, path: str, flags: int = os.O_RDONLY) -> tuple[File, Handle]:
    node = machine.fs.resolve(path)
    assert isinstance(node, File)
    return node, machine.fs.open(node, flags)


def test_each_kernel_has_its_files(machine: Machine, mmu: str) -> None:
    if mmu in ("6.1", "6.12", "6.18"):
        assert files(machine, KVM) == new_kernel("root")
        assert files(machine, f"{KVM}/77-10") == new_kernel("vm_dir")
        return
    assert files(machine, KVM) == old_kernel(mmu)
    assert files(machine, f"{KVM}/77-10") == old_kernel(mmu)


def test_each_kernel_has_its_vcpu_files(machine: Machine, mmu: str) -> None:
    recorded = {name: int(mode, 8) for name, mode in RECORDED["vcpu_dir_with_irqchip"].items()}
    new = mmu in ("6.1", "6.12", "6.18")
    here = files(machine, f"{KVM}/77-10/vcpu1")
    assert here == {
        name: mode for name, mode in recorded.items() if new or name not in ("pid", "guest_mode")
    }
    for name in here:
        text = machine.read(f"{KVM}/77-10/vcpu1/{name}")
        assert text == ("1000\n" if name == "lapic_timer_advance_ns" else "0\n")


def test_without_an_irqchip_there_is_no_timer_file(mmu: str) -> None:
    machine = machine_of(mmu)
    machine.write(CTL, "vm create a pid=77 irqchip=none")
    machine.write(CTL, "a vcpu add")
    there = files(machine, f"{KVM}/77-10/vcpu0")
    assert "lapic_timer_advance_ns" not in there
    if mmu == "6.18":
        assert {name: f"{mode:o}" for name, mode in there.items()} == RECORDED[
            "vcpu_dir_without_irqchip"
        ]


def test_every_stat_file_begins_at_zero(machine: Machine) -> None:
    for place in (KVM, f"{KVM}/77-10"):
        for name in files(machine, place):
            wanted = "" if name == "mmu_rmaps_stat" else "0\n"
            assert machine.read(f"{place}/{name}") == wanted


def test_what_cannot_be_cleared_cannot_be_written(machine: Machine) -> None:
    for place in (KVM, f"{KVM}/77-10", f"{KVM}/77-10/vcpu0"):
        for name, mode in files(machine, place).items():
            if mode == 0o444:
                refuses(EACCES, machine, f"{place}/{name}", "0\n")
            if name == "mmu_rmaps_stat":
                refuses(EINVAL, machine, f"{place}/{name}", "0\n")


def clearable(machine: Machine, place: str) -> Iterator[str]:
    for name, mode in files(machine, place).items():
        if mode == 0o644 and name != "mmu_rmaps_stat":
            yield f"{place}/{name}"


CLEARS = ("0", "0\n", "00", "0x0")
REFUSED = ("1", "42\n", "18446744073709551615", "-1", "0x10")
# Texts without a number: they clear where the number is read leniently.
NO_NUMBERS = ("abc", "\n", "0 garbage")


def test_writes_by_the_lenient_and_the_strict_kernels(machine: Machine, mmu: str) -> None:
    for place in (KVM, f"{KVM}/77-10"):
        for path in clearable(machine, place):
            for text in CLEARS:
                assert machine.write(path, text) == len(text)
            for text in REFUSED:
                refuses(EINVAL, machine, path, text)
            if mmu in STRICT:
                refuses(EINVAL, machine, path, "abc")
                refuses(ERANGE, machine, path, "18446744073709551616")
            else:
                assert machine.write(path, "abc") == 3


@pytest.mark.parametrize("mmu", LENIENT)
@pytest.mark.parametrize("text", NO_NUMBERS)
def test_lenient_kernels_clear_at_any_text(machine: Machine, text: str) -> None:
    machine.subsystems.kvm.kvm.vm("a").stats.mmu_flooded = 5
    assert machine.write(f"{KVM}/77-10/mmu_flooded", text) == len(text)
    assert machine.read(f"{KVM}/77-10/mmu_flooded") == "0\n"


@pytest.mark.parametrize("mmu", STRICT)
@pytest.mark.parametrize("text", NO_NUMBERS)
def test_strict_kernels_want_a_number(machine: Machine, text: str) -> None:
    machine.subsystems.kvm.kvm.vm("a").stats.mmu_flooded = 5
    refuses(EINVAL, machine, f"{KVM}/77-10/mmu_flooded", text)
    assert machine.read(f"{KVM}/77-10/mmu_flooded") == "5\n"


@pytest.mark.parametrize("mmu", ["5.4", "6.18"])
def test_only_23_bytes_are_read(machine: Machine) -> None:
    path = f"{KVM}/77-10/mmu_flooded"
    machine.subsystems.kvm.kvm.vm("a").stats.mmu_flooded = 5
    long = "0" * 23 + "1" * 20
    assert machine.write(path, long) == len(long)
    assert machine.read(path) == "0\n"


@pytest.mark.parametrize("mmu", ["5.4", "6.18"])
def test_sums_clears_and_the_end_of_a_vm(machine: Machine) -> None:
    kvm = machine.subsystems.kvm.kvm
    machine.write(CTL, "vm create b pid=78")
    kvm.vm("a").vcpu(0).stats.exits = 1
    kvm.vm("a").vcpu(1).stats.exits = 4
    kvm.vm("a").stats.mmu_shadow_zapped = 7
    kvm.vm("b").stats.mmu_shadow_zapped = 2
    assert machine.read(f"{KVM}/exits") == machine.read(f"{KVM}/77-10/exits") == "5\n"
    assert machine.read(f"{KVM}/mmu_shadow_zapped") == "9\n"
    machine.write(f"{KVM}/77-10/exits", "0\n")
    assert machine.read(f"{KVM}/exits") == machine.read(f"{KVM}/77-10/exits") == "0\n"
    machine.write(CTL, "vm destroy a")
    assert machine.read(f"{KVM}/mmu_shadow_zapped") == "2\n"
    machine.write(f"{KVM}/mmu_shadow_zapped", "0")
    assert machine.read(f"{KVM}/78-10/mmu_shadow_zapped") == "0\n"
    machine.write(CTL, "vm destroy b")
    assert machine.read(f"{KVM}/mmu_shadow_zapped") == "0\n"


@pytest.mark.parametrize("mmu", ["6.1", "6.12", "6.18"])
def test_a_histogram_shows_its_first_bucket(machine: Machine) -> None:
    vcpu = machine.subsystems.kvm.kvm.vm("a").vcpu(1)
    for nanoseconds in (0, 0, 700):
        vcpu.stats.halt_wait_hist[bucket_of(nanoseconds)] += 1
    path = f"{KVM}/77-10/halt_wait_hist"
    assert machine.read(path) == "2\n"
    machine.write(path, "0")
    assert machine.read(path) == "0\n"
    assert sum(vcpu.stats.halt_wait_hist) == 1


@pytest.mark.parametrize("mmu", ["6.1", "6.12", "6.18"])
def test_the_rmap_table_is_the_memory_models(machine: Machine) -> None:
    machine.subsystems.kvm.kvm.vm("a").rmaps_stat = lambda: "Rmap_Count:\t0\t1\t\n"
    assert machine.read(f"{KVM}/77-10/mmu_rmaps_stat") == "Rmap_Count:\t0\t1\t\n"


@pytest.mark.parametrize("mmu", ["6.18"])
def test_vcpu_files_follow_the_vcpu(machine: Machine) -> None:
    vcpu = machine.subsystems.kvm.kvm.vm("a").vcpu(0)
    vcpu.runs()
    vcpu.tsc_offset = -5
    vcpu.stats.guest_mode = 1
    place = f"{KVM}/77-10/vcpu0"
    assert machine.read(f"{place}/pid") == f"{vcpu.task.pid}\n"
    assert machine.read(f"{place}/tsc-offset") == "-5\n"
    assert machine.read(f"{place}/guest_mode") == machine.read(f"{KVM}/guest_mode") == "1\n"


@pytest.mark.parametrize("mmu", ["5.4", "6.18"])
def test_directories_come_and_go(machine: Machine) -> None:
    assert machine.listdir(f"{KVM}/77-10")[-2:] == ["vcpu0", "vcpu1"]
    machine.write(CTL, "a vcpu add id=9")
    machine.write(CTL, "a vcpu 9 close")
    assert "vcpu9" in machine.listdir(f"{KVM}/77-10")
    for name in ("vcpu2", "vcpu09", "vcpu", "vcpux", "nothing"):
        with pytest.raises(KernelError) as refusal:
            machine.read(f"{KVM}/77-10/{name}/tsc-offset")
        assert refusal.value.errno == ENOENT
    machine.write(CTL, "vm destroy a")
    assert "77-10" not in machine.listdir(KVM)


@pytest.mark.parametrize("mmu", ["5.4", "6.18"])
def test_an_open_file_keeps_the_vm_and_its_value(machine: Machine) -> None:
    machine.subsystems.kvm.kvm.vm("a").vcpu(0).stats.exits = 12345
    node, handle = opened(machine, f"{KVM}/77-10/exits")
    assert machine.fs.read(node, handle, 0, 2) == b"12"
    vcpu_node, vcpu_handle = opened(machine, f"{KVM}/77-10/vcpu0/tsc-offset")
    machine.write(CTL, "vm destroy a")
    # The rest of the text that it has, although the counter is read anew by others.
    assert machine.fs.read(node, handle, 0, 100) == b"345\n"
    assert machine.fs.read(node, handle, 0, 100) == b""
    assert machine.read(f"{KVM}/exits") == "12345\n"
    handle.release()
    machine.fs.settle()
    assert "77-10" not in machine.listdir(KVM)
    assert machine.read(f"{KVM}/exits") == "0\n"
    with pytest.raises(KernelError) as refusal:
        machine.fs.read(vcpu_node, vcpu_handle, 0, 100)
    assert refusal.value.errno == EIO


@pytest.mark.parametrize("mmu", ["6.18"])
def test_the_locked_down_kernel_refuses_as_recorded(machine: Machine) -> None:
    machine.write(f"{FAKESYS}/lockdown", "1")
    results: dict[str, dict[str, str]] = {}
    for name in RECORDED["opens"]:
        results[name] = {}
        for how, flags in (("read", os.O_RDONLY), ("write", os.O_WRONLY)):
            try:
                opened(machine, f"{KVM}/77-10/{name}", flags)[1].release()
                results[name][how] = "ok"
            except KernelError as refusal:
                assert refusal.errno == EPERM
                results[name][how] = "EPERM"
    assert results == RECORDED["opens"]
    machine.write(CTL, "vm destroy a")
    machine.write(f"{FAKESYS}/lockdown", "0")
    assert machine.read(f"{KVM}/exits") == "0\n"

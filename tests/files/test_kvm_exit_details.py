"""What each vendor's processor tells of an exit, and exits that end elsewhere than they began."""

from __future__ import annotations

import pytest

from tests.files.mmu import CONTROL, MmuVm
from tests.files.test_kvm_exits import Host, require_equal, running, told

INTEL = {
    "IO_INSTRUCTION port=0x3f8 write=1 data=0x41": "0x0000000003f80000",
    "IO_INSTRUCTION port=0x71 size=2": "0x0000000000710009",
    "CR_ACCESS cr=4": "0x0000000000000014",
    "CR_ACCESS cr=8 write=1": "0x0000000000000008",
    "CPUID info1=0x77 info2=0x88": "0x0000000000000077",
}


@pytest.mark.parametrize("command", INTEL)
def test_exit_qualifications_of_intel(command: str) -> None:
    host = running(processor="intel")
    [text] = told(host(f"a vcpu 0 exit {command}"), "kvm_exit")
    assert f" info1 {INTEL[command]} " in text
    assert f" info2 {'0x0000000000000088' if 'info2' in command else '0x0000000000000000'}" in text
    require_equal(host)


@pytest.mark.parametrize(("vector", "error"), [(13, "0x00000008"), (3, "0x00000000")])
def test_exceptions_of_intel(vector: int, error: str) -> None:
    host = running(processor="intel")
    lines = host(f"a vcpu 0 exit EXCEPTION_NMI vec={vector} code=8")
    [text] = told(lines, "kvm_exit")
    info = 0x80000300 | vector | (0x800 if vector == 13 else 0)
    assert text.endswith(f"intr_info {info:#010x} error_code {error}")
    # A breakpoint is for the debugger of the guest.
    debugs = ["reason KVM_EXIT_DEBUG (4)"] if vector == 3 else []
    assert told(lines, "kvm_userspace_exit") == debugs


def test_a_breakpoint_of_amd_goes_to_the_debugger() -> None:
    host = running()
    lines = host("a vcpu 0 exit BP_excp")
    assert told(lines, "kvm_userspace_exit") == ["reason KVM_EXIT_DEBUG (4)"]
    assert told(lines, "kvm_inj_exception") == []


@pytest.mark.parametrize(("access", "info"), [("r", 0x181), ("w", 0x182), ("x", 0x184)])
def test_ept_violations(access: str, info: int) -> None:
    host = Host(processor="intel").with_memory(start=0)
    host("a vcpu 0 setup")
    lines = host(f"a vcpu 0 access {access} 0x5000")
    assert f"info1 {info:#018x}" in told(lines, "kvm_exit")[-2]
    assert told(lines, "kvm_page_fault")[-1].endswith(f"error_code {info:#x}")


def test_an_ept_entry_that_forbids_a_write_tells_what_it_allows() -> None:
    host = Host(processor="intel").with_memory(start=0)
    host("a vcpu 0 setup", "a vcpu 0 access w 0x5000")
    host("a slot 0 gpa=0 size=62M mem=m flags=log_dirty")
    texts = told(host("a vcpu 0 access w 0x5000"), "kvm_page_fault")
    # Written, readable and executable, a linear address; the last is no entry of guest tables.
    assert [text.split()[-1] for text in texts] == ["0xaa"] * 4 + ["0x1aa"]


def test_what_intel_alone_has() -> None:
    host = running(processor="intel")
    lines = host("a vcpu 0 exit EPT_MISCONFIG data=0xfee00000", "a vcpu 0 exit PML_FULL")
    assert told(lines, "kvm_fast_mmio") == ["fast mmio at gpa 0xfee00000"]
    assert told(lines, "kvm_pml_full") == ["vcpu 0: PML full"]
    # The store was skipped.
    assert told(lines, "kvm_entry")[-1] == "vcpu 0, rip 0xffffffff81000006"


def test_the_features_of_kvm_are_a_leaf() -> None:
    lines = running()("a vcpu 0 exit cpuid nr=0x40000001", "a vcpu 0 exit cpuid nr=0x40000002")
    first, second = told(lines, "kvm_cpuid")
    assert first.startswith("func 40000001 idx 0 rax 1007efb rbx 0 ")
    assert (first.endswith("entry found"), second.endswith("entry not found")) == (True, True)


def test_a_halt_by_name_is_the_command_hlt() -> None:
    host = running()
    host("a vcpu 0 exit hlt")
    assert host.machine.read(f"{CONTROL}/vms/a/vcpu0").startswith("run=halted")
    require_equal(host)


@pytest.mark.parametrize(
    ("settings", "window"),
    [
        ("pause_filter_count_grow=0 pause_filter_count=7", []),
        ("pause_filter_count=7 pause_filter_count_grow=9", ["7 new 16", "16 new 25"]),
    ],
)
def test_the_growth_of_the_window_of_pauses(settings: str, window: list[str]) -> None:
    host = Host()
    modules = "sys/kernel/debug/fakesys/modules"
    host.machine.write(f"{modules}/unload", "kvm_amd\n")
    host.machine.write(f"{modules}/load", f"kvm_amd {settings}\n")
    host("vm create a", "a vcpu add")
    lines = host("a vcpu 0 exit pause count=2")
    found = told(lines, "kvm_ple_window_update")
    assert found == [f"vcpu 0 old {text} (growed)" for text in window]


REAL_MODE = {
    # jmp over a hlt; mov ax, [0x2000]; out 0x10, al; hlt
    "eb01f4a10020e610f4": ("IO,HLT", ["pio_write at 0x10 size 1 count 1 val 0x2a"]),
    # mov dx, 0x3f8; out dx, al; hlt
    "baf803eef4": ("IO,HLT", ["pio_write at 0x3f8 size 1 count 1 val 0x0"]),
    # rsm outside of SMM; what is no instruction here
    "0faa": ("SHUTDOWN", []),
    "0fab": ("SHUTDOWN", []),
    "66": ("SHUTDOWN", []),
    # jmp to itself, until the command has enough of it
    "ebfe": ("", []),
}


@pytest.mark.parametrize("code", REAL_MODE)
def test_real_mode_by_a_processor(code: str) -> None:
    vm = MmuVm("6.1", paging="modules", events=("kvm/kvm_pio",))
    vm.ctl("a vcpu 0 setup real=1")
    vm.ctl("a host_write A off=0x2000 hex=2a00")
    exits, io = REAL_MODE[code]
    assert vm.ctl(f"a vcpu 0 run_real hex={code}").get("exits", "") == exits
    assert [text.strip() for text in vm.told("kvm_pio")] == io

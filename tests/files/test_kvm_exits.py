"""Each exit of a guest is one act: its counters and its lines belong together."""

from __future__ import annotations

from collections import Counter

import pytest

from fakesys.machine.machine import Machine

CONTROL = "sys/kernel/debug/fakesys/kvm"
TRACING = "sys/kernel/tracing"


class Host:
    """A machine that traces every event of KVM from before its first VM, and one VM `a`."""

    def __init__(self, profile: str = "6.1", **params: object) -> None:
        self.machine = Machine(profile, scenario="empty")
        for name, value in params.items():
            self.machine.write(f"{CONTROL}/params/{name}", f"{value}\n")
        self.machine.write(f"{TRACING}/buffer_size_kb", "65536")
        for system in ("kvm", "kvmmmu"):
            self.machine.write(f"{TRACING}/events/{system}/enable", "1")
        self.all: list[str] = []

    def __call__(self, *commands: str) -> list[str]:
        """The lines `event: text` of these commands."""
        for command in commands:
            self.machine.write(f"{CONTROL}/ctl", f"{command}\n")
        return self.take()

    def take(self) -> list[str]:
        """The lines since the last call."""
        text = self.machine.read(f"{TRACING}/trace")
        self.machine.write(f"{TRACING}/trace", "\n")
        lines = [
            line.split(": ", 1)[1].strip()
            for line in text.splitlines()
            if line and not line.startswith("#")
        ]
        self.all += lines
        return lines

    def counter(self, name: str) -> int:
        """A counter, summed over all VMs."""
        return int(self.machine.read(f"sys/kernel/debug/kvm/{name}"))

    def with_memory(self, *, start: int = 1) -> Host:
        """A VM with memory, guest tables and a vCPU."""
        self(
            "vm create a",
            f"a vcpu add start={start}",
            "a mem m size=64M",
            "a slot 0 gpa=0 size=62M mem=m",
            "a guest_tables",
        )
        return self


def told(lines: list[str], event: str) -> list[str]:
    """The texts of one event."""
    return [text for name, _, text in (line.partition(": ") for line in lines) if name == event]


def require_equal(host: Host) -> None:
    """Each counter equals the number of its event lines, over the whole life of the machine."""
    host.take()
    names = Counter(line.partition(":")[0] for line in host.all)
    exits = Counter(
        text.split(" reason ")[1].split(" rip ")[0] for text in told(host.all, "kvm_exit")
    )
    lines = {
        "exits": names["kvm_exit"],
        "io_exits": exits["io"] + exits["IO_INSTRUCTION"],
        "irq_exits": exits["interrupt"] + exits["EXTERNAL_INTERRUPT"],
        "irq_window_exits": exits["vintr"] + exits["INTERRUPT_WINDOW"],
        "halt_exits": exits["hlt"] + exits["HLT"],
        "fpu_reload": told(host.all, "kvm_fpu").count("unload"),
        "insn_emulation": names["kvm_emulate_insn"],
        "mmio_exits": len(
            [text for text in told(host.all, "kvm_userspace_exit") if "KVM_EXIT_MMIO" in text]
        ),
        "signal_exits": len(
            [text for text in told(host.all, "kvm_userspace_exit") if "restart" in text]
        ),
        "irq_injections": names["kvm_inj_virq"],
        "hypercalls": names["kvm_hypercall"],
    }
    assert {name: host.counter(name) for name in lines} == lines


def test_an_access_that_faults_exits_and_enters() -> None:
    host = Host().with_memory()
    lines = host("a vcpu 0 access w 0x5000")
    exits = told(lines, "kvm_exit")
    assert exits[-1] == (
        "vcpu 0 reason npf rip 0x1000 info1 0x0000000100000006 info2 0x0000000000005000"
        " intr_info 0x00000000 error_code 0x00000000"
    )
    assert told(lines, "kvm_page_fault") == [
        "vcpu 0 rip 0x1000 address 0x0000000000005000 error_code 0x100000006"
    ]
    assert lines[-1] == "kvm_entry: vcpu 0, rip 0x1000"
    require_equal(host)


def test_a_program_runs_from_kvm_run_to_its_exit() -> None:
    host = Host().with_memory(start=0)
    host("a vcpu 0 setup")
    lines = host("a vcpu 0 run")
    assert lines[0] == "kvm_fpu: load"
    assert lines[-2:] == ["kvm_fpu: unload", "kvm_userspace_exit: reason KVM_EXIT_MMIO (6)"]
    assert len(told(lines, "kvm_entry")) == len(told(lines, "kvm_exit"))
    require_equal(host)


@pytest.mark.parametrize(
    ("processor", "exit_text", "fault"),
    [
        (
            "amd",
            "reason PF excp rip 0x1000 info1 0x0000000000000014 info2 0x0000000000001000",
            "14",
        ),
        ("intel", "reason EXCEPTION_NMI rip 0x1000 info1 0x0000000000001000", "14"),
        ("software", "reason PF excp rip 0x1000", ""),
    ],
)
def test_faults_with_shadow_paging(processor: str, exit_text: str, fault: str) -> None:
    host = Host(paging="shadow", processor=processor).with_memory(start=0)
    host("a vcpu 0 setup")
    lines = host("a vcpu 0 run")
    assert exit_text in told(lines, "kvm_exit")[0]
    faults = [text.split("error_code 0x")[1] for text in told(lines, "kvm_page_fault")]
    assert faults[:1] == ([fault] if fault else [])
    require_equal(host)


def test_the_processor_of_a_vm_is_saved() -> None:
    host = Host(paging="shadow", processor="software").with_memory()
    saved = host.machine.read("sys/kernel/debug/fakesys/snapshot")
    other = Machine("6.1", scenario="empty")
    other.write("sys/kernel/debug/fakesys/snapshot", saved)
    kvm = other.subsystems.kvm
    vm = kvm.kvm.vm("a")
    assert kvm.runs.processors[vm].name == "software"
    assert kvm.runs.of(vm.vcpu(0)).in_guest

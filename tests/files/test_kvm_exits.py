"""Each exit of a guest is one act: its counters and its lines belong together."""

from __future__ import annotations

from collections import Counter

import pytest

from fakesys.machine.machine import Machine
from fakesys.machine.scenario import load, with_preset

CONTROL = "sys/kernel/debug/fakesys/kvm"
TRACING = "sys/kernel/tracing"


OLD_NAMES = {"irq_window_exits": "irq_window"}


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
        """A counter, summed over all VMs, under its name of now or of old kernels."""
        names = self.machine.listdir("sys/kernel/debug/kvm")
        found = name if name in names else OLD_NAMES[name]
        return int(self.machine.read(f"sys/kernel/debug/kvm/{found}"))

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


def reason_of(text: str) -> str:
    """The reason in the text of kvm_exit."""
    return text.partition("reason ")[2].partition(" rip ")[0]


def require_equal(host: Host) -> None:
    """Each counter equals the number of its event lines, over the whole life of the machine."""
    host.take()
    lines = counted(host.all)
    assert {name: host.counter(name) for name in lines} == lines


def counted(lines: list[str]) -> dict[str, int]:
    """How many of these lines belong to each counter."""
    names = Counter(line.partition(":")[0] for line in lines)
    exits = Counter(reason_of(text) for text in told(lines, "kvm_exit"))
    left = told(lines, "kvm_userspace_exit")
    return {
        "exits": names["kvm_exit"],
        "io_exits": exits["io"] + exits["IO_INSTRUCTION"],
        "irq_exits": exits["interrupt"] + exits["EXTERNAL_INTERRUPT"],
        "irq_window_exits": exits["vintr"] + exits["INTERRUPT_WINDOW"],
        "halt_exits": exits["hlt"] + exits["HLT"],
        "fpu_reload": told(lines, "kvm_fpu").count("unload"),
        "insn_emulation": names["kvm_emulate_insn"],
        "mmio_exits": sum("KVM_EXIT_MMIO" in text for text in left),
        "signal_exits": sum("restart" in text for text in left),
        "irq_injections": names["kvm_inj_virq"],
        "hypercalls": names["kvm_hypercall"],
    }


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


def running(profile: str = "6.1", **params: object) -> Host:
    """A VM whose vCPU 0 runs."""
    host = Host(profile, **params)
    host("vm create a", "a vcpu add")
    return host


def test_the_start_of_a_vm_tells_of_its_clocks() -> None:
    host = Host()
    host.machine.clock.advance(1)
    lines = host("vm create a")
    assert lines[0] == "kvm_update_master_clock: masterclock 0 hostclock tsc offsetmatched 0"
    lines = host("a vcpu add start=0")
    offset = (1 << 64) - 2_000_000_000
    assert lines[:2] == [
        f"kvm_write_tsc_offset: vcpu=0 prev=0 next={offset}",
        "kvm_track_tsc: vcpu_id 0 masterclock 0 offsetmatched 0 nr_online 1 hostclock tsc",
    ]
    (directory,) = [name for name in host.machine.listdir("sys/kernel/debug/kvm") if "-" in name]
    path = f"sys/kernel/debug/kvm/{directory}/vcpu0/tsc-offset"
    assert host.machine.read(path) == "-2000000000\n"
    assert host("a vcpu 0 start")[:3] == [
        "kvm_fpu: load",
        "kvm_update_master_clock: masterclock 1 hostclock tsc offsetmatched 1",
        "kvm_entry: vcpu 0, rip 0xffffffff81000000",
    ]


# Of each exit: what is traced between it and the entry.
EXITS = {
    "amd": {
        "cpuid nr=0x40000000": [
            "kvm_cpuid: func 40000000 idx 0 rax 40000001 rbx 4b4d564b rcx 564b4d56 rdx 4d,"
            " cpuid entry found"
        ],
        "msr ecx=0xc0000080": ["kvm_msr: msr_read c0000080 = 0x0"],
        "msr write=1 ecx=0x1b data=1 fails=1": [
            "kvm_msr: msr_write 1b = 0x1 (#GP)",
            "kvm_inj_exception: #GP (0x0)",
        ],
        "write_cr4 data=0x20": ["kvm_cr: cr_write 4 = 0x20"],
        "read_cr0 data=0x11": ["kvm_cr: cr_read 0 = 0x11"],
        "cr0_sel_write data=0x33": ["kvm_cr: cr_write 0 = 0x33"],
        "hypercall nr=5 a0=1": ["kvm_hypercall: nr 0x5 a0 0x1 a1 0x0 a2 0x0 a3 0x0"],
        "io port=0x3f8 write=1 data=0x41": [
            "kvm_pio: pio_write at 0x3f8 size 1 count 1 val 0x41",
            "kvm_fpu: unload",
            "kvm_userspace_exit: reason KVM_EXIT_IO (2)",
            "kvm_fpu: load",
        ],
        "io port=0x71 data=7": [
            "kvm_fpu: unload",
            "kvm_userspace_exit: reason KVM_EXIT_IO (2)",
            "kvm_fpu: load",
            "kvm_pio: pio_read at 0x71 size 1 count 1 val 0x7",
        ],
        "io port=0x40 kernel=1": ["kvm_pio: pio_read at 0x40 size 1 count 1 val 0x0"],
        "UD_excp": [
            "kvm_emulate_insn: 0:ffffffff81000000:0f 0b (prot64)",
            "kvm_inj_exception: #UD",
        ],
        "invlpga ecx=1 data=0x1000": [
            "kvm_invlpga: rip: 0xffffffff81000000 asid: 1 address: 0x0000000000001000"
        ],
        "skinit data=0x5000": [
            "kvm_skinit: rip: 0xffffffff81000000 slb: 0x00005000",
            "kvm_inj_exception: #UD",
        ],
        "shutdown": [
            "kvm_fpu: unload",
            "kvm_userspace_exit: reason KVM_EXIT_SHUTDOWN (8)",
            "kvm_fpu: load",
        ],
        "wbinvd": [],
        "nmi": [],
        "interrupt": [],
    },
    "intel": {
        "CPUID": [
            "kvm_cpuid: func 0 idx 0 rax 16 rbx 756e6547 rcx 6c65746e rdx 49656e69,"
            " cpuid entry found"
        ],
        "MSR_WRITE ecx=0x6e0 data=5": ["kvm_msr: msr_write 6e0 = 0x5"],
        "MSR_READ ecx=0x10": ["kvm_msr: msr_read 10 = 0x0"],
        "CR_ACCESS cr=3 write=1 data=0x1000": ["kvm_cr: cr_write 3 = 0x1000"],
        "VMCALL nr=1": ["kvm_hypercall: nr 0x1 a0 0x0 a1 0x0 a2 0x0 a3 0x0"],
        "EXCEPTION_NMI vec=13 code=8": ["kvm_inj_exception: #GP (0x8)"],
        "PREEMPTION_TIMER": [],
        "EXTERNAL_INTERRUPT": [],
    },
}


@pytest.mark.parametrize("processor", EXITS)
def test_a_guest_exits_for_any_reason(processor: str) -> None:
    for command, between in EXITS[processor].items():
        host = running(processor=processor)
        lines = host(f"a vcpu 0 exit {command}")
        name = command.split()[0].replace("_excp", " excp")
        assert lines[0].startswith(f"kvm_exit: vcpu 0 reason {name} rip 0xffffffff81000000 ")
        assert lines[1:-1] == between, command
        assert lines[-1].startswith("kvm_entry: vcpu 0, rip 0xffffffff8100000")
        require_equal(host)


def test_exits_that_a_processor_or_the_verb_has_not() -> None:
    host = running()
    for word in ("VMCALL", "nothing", "npf", "vmrun"):
        with pytest.raises(OSError, match="EINVAL"):
            host(f"a vcpu 0 exit {word}")
    host("a vcpu 0 stop")
    with pytest.raises(OSError, match="EBUSY"):
        host("a vcpu 0 exit cpuid")
    require_equal(host)


def test_without_nrips_skipped_instructions_are_emulated() -> None:
    host = running(processor="qemu")
    lines = host("a vcpu 0 exit cpuid", "a vcpu 0 exit write_cr4", "a vcpu 0 exit wbinvd")
    lines += host("a vcpu 0 hlt")
    assert [text.split(":")[2] for text in told(lines, "kvm_emulate_insn")] == [
        "0f a2 (prot64)",
        "0f 22 20 (prot64)",
        "0f 09 (prot64)",
        "f4 (prot64)",
    ]
    require_equal(host)


def test_nrips_is_a_parameter_of_kvm_amd() -> None:
    host = Host()
    control = "sys/kernel/debug/fakesys"
    host.machine.write(f"{control}/modules/unload", "kvm_amd\n")
    host.machine.write(f"{control}/modules/load", "kvm_amd nrips=0\n")
    host("vm create a", "a vcpu add")
    saved = host.machine.read(f"{control}/snapshot")
    assert told(host("a vcpu 0 exit cpuid"), "kvm_emulate_insn")
    other = Machine("6.1", scenario="empty")
    other.write(f"{control}/snapshot", saved)
    other.write(f"{CONTROL}/ctl", "a vcpu 0 exit cpuid\n")
    assert other.read("sys/kernel/debug/kvm/insn_emulation") == "1\n"


def test_the_pvclock_is_written_when_its_msr_is() -> None:
    host = running()
    lines = host("a vcpu 0 exit msr write=1 ecx=0x4b564d01 data=0x1001")
    lines += host("a vcpu 0 exit msr write=1 ecx=0x4b564d01 data=0x1001")
    versions = [
        text.split(" version ")[1].split(",")[0] for text in told(lines, "kvm_pvclock_update")
    ]
    assert versions == ["2", "4"]


def test_nested_guests_tell_of_their_entries_and_exits() -> None:
    host = Host()
    host("vm create a", "a vcpu add", "a vcpu 0 stop", "a vcpu 0 cpuid svm=1", "a vcpu 0 start")
    lines = host("a vcpu 0 nested vmrun")
    assert [line.split(":")[0] for line in lines] == [
        "kvm_exit",
        "kvm_nested_vmenter",
        "kvm_nested_intercepts",
        "kvm_entry",
    ]
    assert told(lines, "kvm_entry") == ["vcpu 0, rip 0xffffffff82000000"]
    lines = host("a vcpu 0 nested vmexit")
    assert [line.split(":")[0] for line in lines] == [
        "kvm_exit",
        "kvm_nested_vmexit",
        "kvm_nested_vmexit_inject",
        "kvm_entry",
    ]
    assert told(lines, "kvm_entry") == ["vcpu 0, rip 0xffffffff81000000"]
    require_equal(host)


def halt(host: Host, seconds: float) -> list[str]:
    """The lines about a halt of so long."""
    host("a vcpu 0 hlt")
    host.machine.clock.advance(seconds)
    lines = host("a ioapic 5 vec=0x40", "a pulse 5")
    return [line for line in lines if line.startswith(("kvm_halt", "kvm_vcpu_wake"))]


def polling(**parameters: int) -> Host:
    """A VM with these parameters of halt polling, whose guest handles its interrupts."""
    host = running()
    for name, value in parameters.items():
        host.machine.write(f"sys/module/kvm/parameters/{name}", f"{value}\n")
    host("a handler auto")
    return host


def test_a_vcpu_polls_longer_after_short_halts_and_not_after_long_ones() -> None:
    host = polling()
    assert halt(host, 50e-6) == [
        "kvm_halt_poll_ns: vcpu 0: halt_poll_ns 10000 (grow 0)",
        "kvm_vcpu_wakeup: wait time 50000 ns, polling valid",
    ]
    assert halt(host, 5e-6) == ["kvm_vcpu_wakeup: poll time 5000 ns, polling valid"]
    assert halt(host, 50e-6)[0] == "kvm_halt_poll_ns: vcpu 0: halt_poll_ns 20000 (grow 10000)"
    assert halt(host, 1e-3)[0] == "kvm_halt_poll_ns: vcpu 0: halt_poll_ns 0 (shrink 20000)"
    names = (
        "halt_attempted_poll",
        "halt_successful_poll",
        "halt_poll_success_ns",
        "halt_poll_fail_ns",
        "halt_wait_ns",
        "halt_wakeup",
    )
    waits = 50_000 + (50_000 - 10_000) + (1_000_000 - 20_000)
    assert [host.counter(name) for name in names] == [3, 1, 5000, 30_000, waits, 3]
    require_equal(host)


def test_each_parameter_of_halt_polling_has_an_effect() -> None:
    assert "20000" in halt(polling(halt_poll_ns_grow_start=20_000), 50e-6)[0]
    assert halt(polling(halt_poll_ns=0), 50e-6) == [
        "kvm_vcpu_wakeup: wait time 50000 ns, polling valid"
    ]
    host = polling(halt_poll_ns_grow=0)
    assert halt(host, 50e-6)[0] == "kvm_halt_poll_ns: vcpu 0: halt_poll_ns 0 (grow 0)"
    host = polling(halt_poll_ns_shrink=2, halt_poll_ns_grow_start=40_000)
    halt(host, 50e-6)
    halt(host, 50e-6)
    assert "halt_poll_ns 40000 (shrink 80000)" in halt(host, 1e-3)[0]


def test_later_kernels_shrink_by_half() -> None:
    host = running("6.12")
    host("a handler auto")
    for _ in range(2):
        halt(host, 50e-6)
    assert "halt_poll_ns 10000 (shrink 20000)" in halt(host, 1e-3)[0]


PRESETS = (
    "linux-boot vcpus=3",
    "windows2019-boot vcpus=2 hv_synic=1",
    "freebsd-boot vcpus=4",
    "linux-boot vcpus=2 irqchip=split",
    "boot-6.1",
)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("profile", ["seed", "6.1", "6.18"])
def test_counters_are_the_lines_of_each_preset(profile: str, preset: str) -> None:
    host = Host(profile)
    host.machine.write(f"{CONTROL}/preset", f"{preset}\n")
    require_equal(host)
    assert told(host.all, "kvm_exit")


def test_a_boot_has_the_totals_of_the_recording() -> None:
    host = Host()
    before = host.machine.clock.now
    host.machine.write(f"{CONTROL}/preset", "boot-6.1\n")
    assert 94 < host.machine.clock.now - before < 96
    host.take()
    reasons = Counter(reason_of(text) for text in told(host.all, "kvm_exit"))
    assert reasons == {
        "interrupt": 7387,
        "io": 3003,
        "msr": 1766,
        "npf": 1358,
        "cpuid": 745,
        "vintr": 675,
        "write_cr4": 45,
        "cr0_sel_write": 32,
        "read_cr4": 11,
        "wbinvd": 6,
        "read_cr0": 3,
        "write_cr0": 3,
        "rsm": 1,
        "write_dr0": 1,
        "write_dr3": 1,
        "UD excp": 1,
        "read_dr0": 1,
    }
    assert sum(reasons.values()) == host.counter("exits") == 15039
    assert Counter(told(host.all, "kvm_userspace_exit")) == {
        "reason KVM_EXIT_IO (2)": 2695,
        "reason KVM_EXIT_MMIO (6)": 88,
        "reason KVM_EXIT_TPR_ACCESS (12)": 2,
        "reason restart (4)": 1,
    }
    names = Counter(line.partition(":")[0] for line in host.all)
    assert (names["kvm_mmu_zap_all_fast"], names["kvm_inj_virq"]) == (23, 1600)
    assert (names["kvm_entry"], names["kvm_smm_transition"]) == (15039, 2)


def test_a_guest_that_spins_may_spin_longer() -> None:
    host = running()
    lines = host("a vcpu 0 exit pause count=6")
    assert told(lines, "kvm_ple_window_update")[0] == "vcpu 0 old 3000 new 6000 (growed)"
    assert told(lines, "kvm_ple_window_update")[-1] == "vcpu 0 old 48000 new 65535 (growed)"
    host = Host()
    host.machine.write("sys/kernel/debug/fakesys/modules/unload", "kvm_amd\n")
    host.machine.write(
        "sys/kernel/debug/fakesys/modules/load",
        "kvm_amd pause_filter_count=10 pause_filter_count_grow=3 pause_filter_count_max=50\n",
    )
    host("vm create a", "a vcpu add")
    lines = host("a vcpu 0 exit pause count=3")
    assert told(lines, "kvm_ple_window_update") == [
        "vcpu 0 old 10 new 30 (growed)",
        "vcpu 0 old 30 new 50 (growed)",
    ]


def test_an_smi_between_vcpus_is_handled_and_left() -> None:
    host = Host()
    host("vm create a", "a vcpu add count=2", "a vcpu 1 start")
    lines = host("a vcpu 0 ipi dst=1 vec=0 dm=smi")
    assert told(lines, "kvm_smm_transition") == [
        "vcpu 1: entering SMM, smbase 0x30000",
        "vcpu 1: leaving SMM, smbase 0x30000",
    ]
    assert told(lines, "kvm_emulate_insn")[-1] == "30000:8000:0f aa (real)"
    require_equal(host)


def test_without_ipi_virtualization_each_ipi_exits() -> None:
    host = Host("6.18")
    host("modprobe enable_ipiv=0", "vm create a reinject=0", "a vcpu add count=2", "a vcpu 1 start")
    assert host.machine.read("sys/module/kvm_amd/parameters/enable_ipiv") == "N\n"
    for number in range(2):
        state = host.machine.read(f"{CONTROL}/vms/a/vcpu{number}")
        assert "is_running=0" in state
        assert "apicv_active=1" in state
    lines = host("a vcpu 0 ipi dst=1 vec=0x40")
    assert len(told(lines, "kvm_avic_incomplete_ipi")) == 1
    assert "irr=0x40" not in host.machine.read(f"{CONTROL}/vms/a/vcpu1")
    require_equal(host)


def test_a_machine_starts_with_the_recorded_boot() -> None:
    machine = Machine("6.1", with_preset(load("empty"), "boot-6.1"))
    assert machine.read("sys/kernel/debug/kvm/exits") == "15039\n"

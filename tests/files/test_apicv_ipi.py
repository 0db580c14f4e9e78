"""Interrupts between vCPUs, and what comes to a local APIC from anywhere."""

from __future__ import annotations

import pytest

from tests.avic_kit import KERNELS, NEW, Guests, events, only

INCOMPLETE = "kvm_avic_incomplete_ipi"
OLD = ("v3", "5.6")
ACCEPT = "kvm_apic_accept_irq"
APICV_ACCEPT = "kvm_apicv_accept_irq"


def running(kernel: str, vcpus: int = 3, options: str = "reinject=0") -> Guests:
    guests = Guests(kernel).boot(vcpus, options)
    guests("g vcpu 0 lvt0 masked")
    if "split" not in options:
        guests("g pic base=0x30 imr=0xffff")
    guests.clear()
    return guests


def info(kernel: str, info1: int, info2: int) -> str:
    """How kvm_exit writes the exit information."""
    if kernel in OLD:
        return f"info {info1:x} {info2:x}"
    return f"info1 {info1:#018x} info2 {info2:#018x}"


@pytest.mark.parametrize("command", ["dst=1 vec=0x40", "sh=self vec=0x40", "sh=others vec=0x40"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_fixed_to_running_vcpus_needs_nobody(kernel: str, command: str) -> None:
    guests = running(kernel)
    assert guests(f"g vcpu 0 ipi {command}") == []
    got = [number for number in range(3) if guests.vcpu(number)["isr"] == "0x40"]
    assert got == {"dst": [1], "sh=s": [0], "sh=o": [1, 2]}.get(command[:4], [1])
    assert guests.sums("exits", "irq_injections", "req_event") == (0, 0, 0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_index_is_that_of_the_first_target_that_does_not_run(kernel: str) -> None:
    guests = running(kernel)
    guests("g vcpu 2 hlt")
    lines = guests("g vcpu 0 ipi sh=others vec=0x40")
    assert only(lines, INCOMPLETE) == [
        f"{INCOMPLETE}: vcpu=0, icrh:icrl=0x00000000:000c0040, id=1, index=2"
    ]


@pytest.mark.parametrize(
    ("mode", "icrl", "name", "level", "assertion"),
    [
        ("nmi", 0x400, "NMI", "edge", "de-assert"),
        ("lowest", 0x150, "LowPrio", "edge", "de-assert"),
        ("init", 0xC500, "INIT", "level", "assert"),
        ("init-deassert", 0x8500, "INIT", "level", "de-assert"),
        ("sipi", 0x609, "SIPI", "edge", "de-assert"),
    ],
)
@pytest.mark.parametrize("kernel", KERNELS)
def test_types_that_hardware_does_not_send(
    kernel: str, mode: str, icrl: int, name: str, level: str, assertion: str
) -> None:
    guests = running(kernel, 2)
    vector = icrl & 0xFF
    lines = guests(f"g vcpu 0 ipi dst=1 vec={vector} dm={mode}")
    assert info(kernel, 1 << 56 | icrl, 0) in lines[0]
    assert lines[1] == f"{INCOMPLETE}: vcpu=0, icrh:icrl=0x01000000:{icrl:08x}, id=0, index=0"
    rewritten = [
        "kvm_apic: apic_write APIC_ICR2 = 0x1000000",
        f"kvm_apic: apic_write APIC_ICR = {icrl:#x}",
    ]
    assert only(lines, "kvm_apic") == (rewritten if kernel in OLD else [])
    assert only(lines, "kvm_apic_ipi") == [
        f"kvm_apic_ipi: dst 1 vec {vector} ({name}|physical|{assertion}|{level}|dst)"
    ]
    # The third version keeps 8 bits of the trigger mode.
    shown = "edge" if kernel == "v3" else level
    assert only(lines, ACCEPT)[0] == f"{ACCEPT}: apicid 1 vec {vector} ({name}|{shown})"
    assert guests.counts(0, "exits") == (1,)


@pytest.mark.parametrize("kernel", KERNELS)
def test_one_target_that_sleeps(kernel: str) -> None:
    guests = running(kernel)
    guests("g vcpu 2 hlt")
    guests.clear()
    lines = guests("g vcpu 0 ipi dst=2 vec=0x42")
    assert info(kernel, 2 << 56 | 0x42, 1 << 32 | 2) in lines[0]
    assert lines[1] == f"{INCOMPLETE}: vcpu=0, icrh:icrl=0x02000000:00000042, id=1, index=2"
    new = [APICV_ACCEPT] if kernel in NEW else []
    assert events(lines) == [
        "kvm_exit", INCOMPLETE, *new, "kvm_entry", "kvm_vcpu_wakeup", "kvm_entry",
    ]  # fmt: skip
    assert guests.counts(2, "exits", "halt_wakeup", "req_event", "irq_injections") == (0, 1, 0, 0)
    assert guests.vcpu(2)["isr"] == "0x42"
    assert guests.vcpu(2)["is_running"] == "1"


@pytest.mark.parametrize("kernel", KERNELS)
def test_some_of_many_sleep(kernel: str) -> None:
    guests = running(kernel, 4)
    guests("g vcpu 1 hlt", "g vcpu 3 hlt")
    guests.clear()
    lines = guests("g vcpu 0 ipi sh=others vec=0x42")
    assert lines[1] == f"{INCOMPLETE}: vcpu=0, icrh:icrl=0x00000000:000c0042, id=1, index=1"
    if kernel in NEW:
        assert lines[2] == "kvm_avic_kick_vcpu_slowpath: icrh:icrl=0x000000:000c0042, index=1"
    assert len(only(lines, APICV_ACCEPT)) == (3 if kernel in NEW else 0)
    doorbells = ["kvm_avic_doorbell: vcpuid=2, apicid=2"] if kernel in NEW else []
    assert only(lines, "kvm_avic_doorbell") == doorbells
    assert guests.sums("exits", "halt_wakeup") == (1, 2)
    assert [guests.vcpu(number)["isr"] for number in range(4)] == ["-", "0x42", "0x42", "0x42"]


@pytest.mark.parametrize("kernel", NEW)
def test_the_sender_is_among_those_that_are_searched(kernel: str) -> None:
    guests = running(kernel, 2)
    guests("g vcpu 1 hlt")
    lines = guests("g vcpu 0 ipi sh=all vec=0x42")
    assert only(lines, APICV_ACCEPT) == [
        f"{APICV_ACCEPT}: apicid {number} vec 66 (Fixed|edge)" for number in (0, 1)
    ]
    assert guests.vcpu(0)["isr"] == "0x42"


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_broadcast_by_destination(kernel: str) -> None:
    guests = running(kernel)
    assert guests("g vcpu 0 ipi dst=255 vec=0x42") == []
    assert [guests.vcpu(number)["isr"] for number in range(3)] == ["0x42"] * 3


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_target_without_an_entry(kernel: str) -> None:
    guests = running(kernel)
    lines = guests("g vcpu 0 ipi dst=9 vec=0x42")
    assert lines[1] == f"{INCOMPLETE}: vcpu=0, icrh:icrl=0x09000000:00000042, id=2, index=9"
    sent = [] if kernel in OLD else ["kvm_apic_ipi"]
    assert events(lines) == ["kvm_exit", INCOMPLETE, *sent, "kvm_entry"]
    assert bool(guests.warnings()) == (kernel in OLD)
    guests("g vcpu 0 ipi dst=9 vec=0x42")
    assert guests.warnings().count("\n") == (kernel in OLD)
    assert guests.warnings()[:2] in ("", "1 ")


@pytest.mark.parametrize("kernel", KERNELS)
def test_one_invalid_target_spoils_it_for_all(kernel: str) -> None:
    guests = running(kernel)
    guests("g vcpu 0 apic write 0xd0 0x1000000", "g vcpu 1 apic write 0xd0 0x2000000")
    lines = guests("g vcpu 0 ipi dst=6 vec=0x42 mode=logical")
    assert only(lines, INCOMPLETE)[0].endswith("icrl=0x06000000:00000842, id=2, index=2")
    lost = kernel in OLD
    assert guests.vcpu(1)["isr"] == ("-" if lost else "0x42")
    assert len(only(lines, ACCEPT)) == (not lost)


@pytest.mark.parametrize("kernel", KERNELS)
def test_vectors_that_are_exceptions(kernel: str) -> None:
    guests = running(kernel)
    lines = guests("g vcpu 0 ipi dst=1 vec=15")
    assert only(lines, INCOMPLETE)[0].endswith("icrl=0x01000000:0000000f, id=4, index=0")
    assert guests.vcpu(1)["irr"] == guests.vcpu(1)["isr"] == "-"
    logged = guests.machine.read("sys/kernel/debug/fakesys/log")
    assert ("Unknown IPI interception" in logged) == (kernel in OLD)


@pytest.mark.parametrize("kernel", KERNELS)
def test_flat_logical_destinations(kernel: str) -> None:
    guests = running(kernel)
    for number in range(3):
        guests(f"g vcpu {number} apic write 0xd0 {1 << 24 + number:#x}")
    guests.clear()
    assert guests("g vcpu 0 ipi dst=6 vec=0x42 mode=logical") == []
    assert [guests.vcpu(number)["isr"] for number in range(3)] == ["-", "0x42", "0x42"]
    guests("g vcpu 1 iret", "g vcpu 1 eoi", "g vcpu 1 hlt")
    lines = guests("g vcpu 0 ipi dst=2 vec=0x43 mode=logical")
    assert only(lines, INCOMPLETE)[0].endswith("icrl=0x02000000:00000843, id=1, index=1")
    assert only(lines, "kvm_avic_kick_vcpu_slowpath") == []
    assert guests.vcpu(1)["isr"] == "0x43"


@pytest.mark.parametrize("kernel", KERNELS)
def test_clustered_logical_destinations(kernel: str) -> None:
    guests = running(kernel, 2)
    for number, ldr in enumerate((0x12000000, 0x14000000)):
        guests(f"g vcpu {number} apic write 0xe0 0xfffffff")
        guests(f"g vcpu {number} apic write 0xd0 {ldr:#x}")
    assert guests.view("logid") == "5 0x80000000\n6 0x80000001\n"
    assert guests("g vcpu 0 ipi dst=0x16 vec=0x42 mode=logical") == []
    assert [guests.vcpu(number)["isr"] for number in range(2)] == ["0x42", "0x42"]
    guests("g vcpu 1 iret", "g vcpu 1 eoi", "g vcpu 1 hlt")
    lines = guests("g vcpu 0 ipi dst=0x14 vec=0x43 mode=logical")
    assert only(lines, INCOMPLETE)[0].endswith("id=1, index=6")


@pytest.mark.parametrize("kernel", KERNELS)
def test_lowest_priority_picks_one(kernel: str) -> None:
    guests = running(kernel, 4)
    lines = guests("g vcpu 0 ipi dst=255 vec=0x42 dm=lowest")
    # vector_hashing: 0x42 % 4.
    assert only(lines, ACCEPT) == [f"{ACCEPT}: apicid 2 vec 66 (LowPrio|edge)"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_sender_without_avic(kernel: str) -> None:
    guests = running(kernel, 2, "reinject=1")
    if kernel == "v3":
        guests("g vcpu 1 stop", "g vcpu 1 hv synic", "g vcpu 1 start")
    guests.clear()
    lines = guests("g vcpu 0 ipi dst=1 vec=0x40")
    assert "reason npf" in lines[0]
    assert lines[4:8] == [
        "kvm_apic: apic_write APIC_ICR2 = 0x1000000",
        "kvm_apic: apic_write APIC_ICR = 0x40",
        "kvm_apic_ipi: dst 1 vec 64 (Fixed|physical|de-assert|edge|dst)",
        f"{ACCEPT}: apicid 1 vec 64 (Fixed|edge)",
    ]
    name = "irq 64" if kernel in OLD else "IRQ 0x40"
    assert only(lines, "kvm_inj_virq") == [f"kvm_inj_virq: {name}"]
    assert guests.counts(0, "exits", "insn_emulation") == (1, 1)
    assert guests.counts(1, "exits", "irq_exits", "req_event", "irq_injections") == (1, 1, 1, 1)


@pytest.mark.parametrize("kernel", NEW)
def test_wide_destinations_with_x2avic(kernel: str) -> None:
    guests = Guests(kernel)
    guests("modprobe x2avic=1", "vm create g reinject=0", "g vcpu add", "g vcpu add id=300")
    guests("g vcpu 300 start")
    for number in (0, 300):
        guests(f"g vcpu {number} stop", f"g vcpu {number} cpuid x2apic=1")
        guests(f"g vcpu {number} start", f"g vcpu {number} apicbase x2apic")
    assert guests("g vcpu 0 ipi dst=300 vec=0x40") == []
    assert guests.vcpu(300)["isr"] == "0x40"
    guests("g vcpu 300 iret", "g vcpu 300 eoi", "g vcpu 300 hlt")
    lines = guests("g vcpu 0 ipi dst=300 vec=0x41")
    assert lines[1] == f"{INCOMPLETE}: vcpu=0, icrh:icrl=0x0000012c:00000041, id=1, index=300"
    # Logical ids follow from physical ones: cluster 18, bit 12.
    guests("g vcpu 300 iret", "g vcpu 300 eoi")
    assert guests("g vcpu 0 ipi dst=0x121000 vec=0x42 mode=logical") == []
    assert guests.vcpu(300)["isr"] == "0x42"
    guests("g vcpu 300 iret", "g vcpu 300 eoi")
    assert guests("g vcpu 0 ipi dst=0xffffffff vec=0x43") == []
    assert guests.vcpu(300)["isr"] == guests.vcpu(0)["isr"] == "0x43"
    lines = guests("g vcpu 0 ipi dst=0x121000 vec=0 mode=logical dm=nmi")
    assert f"{ACCEPT}: apicid 12c vec 0 (NMI|edge)" in lines


@pytest.mark.parametrize("kernel", NEW)
def test_x2apic_without_x2avic_is_written_by_msr(kernel: str) -> None:
    guests = running(kernel, 2)
    for number in (0, 1):
        guests(f"g vcpu {number} stop", f"g vcpu {number} cpuid x2apic=1")
        guests(f"g vcpu {number} start", f"g vcpu {number} apicbase x2apic")
    guests.clear()
    lines = guests("g vcpu 0 ipi dst=1 vec=0x40")
    assert "reason msr" in lines[0]
    assert lines[1:4] == [
        "kvm_msr: msr_write 830 = 0x100000040",
        "kvm_apic: apic_write APIC_ICR = 0x100000040",
        "kvm_apic_ipi: dst 1 vec 64 (Fixed|physical|de-assert|edge|dst)",
    ]
    # What arrives is still delivered by AVIC; its end is a write to an MSR again.
    assert only(lines, APICV_ACCEPT) == [f"{APICV_ACCEPT}: apicid 1 vec 64 (Fixed|edge)"]
    assert guests.counts(1, "exits", "irq_injections") == (0, 0)
    lines = guests("g vcpu 1 eoi")
    assert "reason msr" in lines[0]
    assert "kvm_eoi: apicid 1 vector 64" in lines
    assert "reason msr" in guests("g vcpu 1 apic read 0x30")[0]
    assert "reason msr" in guests("g vcpu 1 apic write 0x80 0x20")[0]


# --- Delivery from devices ---


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("source", ["ioapic", "msi"])
def test_to_a_vcpu_without_avic(kernel: str, source: str) -> None:
    guests = running(kernel, 2, "reinject=1")
    if kernel == "v3":
        guests("g vcpu 0 stop", "g vcpu 0 hv synic", "g vcpu 0 start")
    fire = aim(guests, source)
    lines = guests(fire)
    assert f"{ACCEPT}: apicid 1 vec 53 (Fixed|edge)" in lines
    assert only(lines, APICV_ACCEPT, "kvm_avic_doorbell") == []
    assert guests.counts(1, "irq_exits", "req_event", "irq_injections") == (1, 1, 1)
    guests("g vcpu 1 iret", "g vcpu 1 eoi", "g vcpu 1 hlt")
    guests.clear()
    lines = guests(fire)
    assert "kvm_vcpu_wakeup" in events(lines)
    assert guests.counts(1, "exits", "halt_wakeup", "req_event", "irq_injections") == (0, 1, 1, 1)


def aim(guests: Guests, source: str) -> str:
    """Vector 0x35 for vCPU 1; how to raise it."""
    if source == "ioapic":
        guests("g ioapic 5 vec=0x35 dst=1")
    else:
        # Two messages would be posted; one to a vCPU that has AVIC off is not.
        guests("g dev add d irq=40 gsi=24 vec=0x35 dst=1 dm=fixed")
    guests.clear()
    return "g pulse 5" if source == "ioapic" else "g dev fire d"


@pytest.mark.parametrize("kernel", KERNELS)
def test_to_a_running_vcpu(kernel: str) -> None:
    guests = running(kernel, 2)
    fire = aim(guests, "ioapic")
    lines = guests(fire)
    assert only(lines, ACCEPT) == [f"{ACCEPT}: apicid 1 vec 53 (Fixed|edge)"]
    more = [
        f"{APICV_ACCEPT}: apicid 1 vec 53 (Fixed|edge)", "kvm_avic_doorbell: vcpuid=1, apicid=1",
    ]  # fmt: skip
    assert only(lines, APICV_ACCEPT, "kvm_avic_doorbell") == (more if kernel in NEW else [])
    assert guests.vcpu(1)["isr"] == "0x35"
    assert guests.counts(1, "exits", "req_event", "irq_injections") == (0, 0, 0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_to_a_halted_vcpu(kernel: str) -> None:
    guests = running(kernel, 2)
    guests("g vcpu 1 hlt")
    lines = guests(aim(guests, "ioapic"))
    assert len(only(lines, APICV_ACCEPT)) == (kernel in NEW)
    assert only(lines, "kvm_avic_doorbell") == []
    assert guests.counts(1, "exits", "halt_wakeup", "irq_injections") == (0, 1, 0)
    assert guests.vcpu(1)["isr"] == "0x35"


@pytest.mark.parametrize("kernel", KERNELS)
def test_to_a_preempted_vcpu(kernel: str) -> None:
    guests = running(kernel, 2)
    guests("g vcpu 1 preempt")
    lines = guests(aim(guests, "ioapic"))
    assert len(only(lines, APICV_ACCEPT)) == (kernel in NEW)
    assert guests.vcpu(1)["irr"] == "0x35"
    assert guests.vcpu(1)["is_running"] == "0"
    guests("g vcpu 1 resume cpu=7")
    assert guests.vcpu(1)["isr"] == "0x35"
    assert (guests.vcpu(1)["is_running"], guests.vcpu(1)["host"]) == ("1", "7")
    assert guests.counts(1, "exits", "irq_injections", "halt_wakeup") == (0, 0, 0)


@pytest.mark.parametrize("kernel", NEW)
def test_no_doorbell_on_the_own_cpu(kernel: str) -> None:
    guests = running(kernel, 2)
    guests("g vcpu 1 preempt", "g vcpu 1 resume cpu=0", "g vcpu 1 cli")
    lines = guests("g vcpu 0 ipi dst=1 vec=0x50 dm=lowest")
    assert len(only(lines, APICV_ACCEPT)) == 1
    assert only(lines, "kvm_avic_doorbell") == []


@pytest.mark.parametrize("kernel", KERNELS)
def test_kicks_before_the_vcpu_reacts_are_one_exit(kernel: str) -> None:
    guests = running(kernel, 2, "reinject=1")
    if kernel == "v3":
        guests("g vcpu 0 stop", "g vcpu 0 hv synic", "g vcpu 0 start")
    guests("g ioapic 5 vec=0x35 dst=1", "g ioapic 2 vec=0x36 dst=1")
    guests("g vcpu 1 preempt")
    guests.clear()
    guests("g pulse 5", "g pit tick")
    assert guests.counts(1, "exits") == (0,)
    guests("g vcpu 1 resume")
    assert guests.counts(1, "exits", "req_event") == (0, 1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_nmi_and_an_smi_kick(kernel: str) -> None:
    guests = running(kernel, 2)
    guests("g vcpu 0 ipi dst=1 vec=0 dm=nmi")
    assert guests.counts(1, "irq_exits", "nmi_injections", "nmi_window_exits") == (1, 1, 0)
    guests("g ioapic 5 vec=0 dst=1 dm=smi", "g pulse 5")
    assert guests.counts(1, "irq_exits", "req_event") == (2, 2)


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_ap_is_started(kernel: str) -> None:
    guests = Guests(kernel)
    guests("vm create g reinject=0", "g vcpu add count=2")
    guests.clear()
    assert guests.vcpu(1)["run"] == "uninit"
    guests("g vcpu 0 ipi dst=1 vec=0 dm=sipi")
    assert guests.vcpu(1)["run"] == "uninit"
    guests("g vcpu 0 ipi dst=1 vec=0 dm=init", "g vcpu 0 ipi dst=1 vec=0 dm=init-deassert")
    assert guests.vcpu(1)["run"] == "uninit"
    guests("g vcpu 0 ipi dst=1 vec=9 dm=sipi")
    assert guests.vcpu(1)["run"] == "guest"
    guests("g vcpu 0 ipi dst=1 vec=9 dm=sipi")
    assert guests.counts(0, "exits") == (5,)
    # The first SIPI woke nobody who waited for it, the last one kicked.
    assert guests.counts(1, "exits", "irq_exits", "req_event") == (1, 1, 2)


@pytest.mark.parametrize("kernel", KERNELS)
def test_init_ends_what_the_vcpu_did(kernel: str) -> None:
    guests = running(kernel, 2)
    guests("g vcpu 0 ipi dst=1 vec=0x40", "g vcpu 0 ipi dst=1 vec=0x41")
    assert (guests.vcpu(1)["isr"], guests.vcpu(1)["if"]) == ("0x40", "0")
    guests("g vcpu 0 ipi dst=1 vec=0 dm=init")
    assert guests.vcpu(1)["run"] == "uninit"
    assert (guests.vcpu(1)["isr"], guests.vcpu(1)["irr"]) == ("-", "-")
    guests("g vcpu 1 start")
    assert guests.vcpu(1)["if"] == "1"


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_disabled_apic_takes_nothing(kernel: str) -> None:
    guests = running(kernel, 2)
    guests("g ioapic 5 vec=0x35 dst=1", "g vcpu 1 apicbase off")
    lines = guests("g irq 5 1 status")
    assert only(lines, ACCEPT) == []
    assert guests.last() == "ok status=-1"
    guests("g irq 5 0", "g ioapic 5 vec=0x35 dst=255", "g pulse 5")
    assert only(guests.lines, ACCEPT) == [f"{ACCEPT}: apicid 0 vec 53 (Fixed|edge)"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_priority(kernel: str) -> None:
    guests = running(kernel, 2)
    guests("g vcpu 1 apic write 0x80 0x50", "g vcpu 0 ipi dst=1 vec=0x45")
    assert guests.vcpu(1)["irr"] == "0x45"
    guests("g vcpu 0 ipi dst=1 vec=0x61")
    assert (guests.vcpu(1)["irr"], guests.vcpu(1)["isr"]) == ("0x45", "0x61")
    guests("g vcpu 1 iret", "g vcpu 1 eoi")
    assert guests.vcpu(1)["irr"] == "0x45"
    guests("g vcpu 1 apic write 0x80 0")
    assert guests.vcpu(1)["isr"] == "0x45"


def test_repeated_broadcasts_are_remembered_only_while_they_wait() -> None:
    guests = running("v3")
    for _ in range(4):
        guests("g vcpu 0 ipi sh=others vec=0x42")
    assert (guests.vcpu(1)["irr"], guests.vcpu(1)["isr"]) == ("0x42", "0x42")
    guests("g vcpu 1 eoi", "g vcpu 1 iret")
    assert (guests.vcpu(1)["irr"], guests.vcpu(1)["isr"]) == ("-", "0x42")
    guests("g vcpu 0 ipi sh=others vec=0x42")
    assert guests.vcpu(1)["irr"] == "0x42"
    guests("g vcpu 0 ipi dst=1 vec=0 dm=init", "g vcpu 1 start")
    guests("g vcpu 0 ipi sh=others vec=0x42")
    assert guests.vcpu(1)["isr"] == "0x42"

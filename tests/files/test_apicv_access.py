"""Accesses of a guest to its local APIC, and the two tables that hardware reads."""

from __future__ import annotations

from errno import EINVAL

import pytest

from tests.avic_kit import KERNELS, NEW, Guests, events, only

UNACCELERATED = "kvm_avic_unaccelerated_access"
OLD = ("v3", "5.6")
NAMES = {
    0x20: "APIC_ID", 0x80: "APIC_TASKPRI", 0xC0: "APIC_RRR", 0xD0: "APIC_LDR", 0xE0: "APIC_DFR",
    0xF0: "APIC_SPIV", 0x280: "APIC_ESR", 0x310: "APIC_ICR2", 0x320: "APIC_LVTT",
    0x330: "APIC_LVTTHMR", 0x340: "APIC_LVTPC", 0x350: "APIC_LVT0", 0x360: "APIC_LVT1",
    0x370: "APIC_LVTERR", 0x380: "APIC_TMICT", 0x390: "APIC_TMCCT", 0x3E0: "APIC_TDCR",
    0x90: "APIC_ARBPRI",
}  # fmt: skip
TRAPS = (0x20, 0xC0, 0xD0, 0xE0, 0xF0, 0x280, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370, 0x380,
         0x3E0)  # fmt: skip


def one(kernel: str, options: str = "reinject=0", vcpus: int = 1) -> Guests:
    guests = Guests(kernel).boot(vcpus, options)
    guests.clear()
    return guests


def info(kernel: str, info1: int, info2: int) -> str:
    if kernel in OLD:
        return f"info {info1:x} {info2:x}"
    return f"info1 {info1:#018x} info2 {info2:#018x}"


@pytest.mark.parametrize("offset", [0x30, 0x80, 0xA0, 0xF0, 0x100, 0x170, 0x200, 0x300, 0x350])
@pytest.mark.parametrize("kernel", KERNELS)
def test_most_reads_need_nobody(kernel: str, offset: int) -> None:
    guests = one(kernel)
    assert guests(f"g vcpu 0 apic read {offset:#x}") == []
    assert guests.last().startswith("ok value=0x")


@pytest.mark.parametrize(("offset", "value"), [(0x80, 0x20), (0x310, 0x1000000)])
@pytest.mark.parametrize("kernel", KERNELS)
def test_writes_that_need_nobody(kernel: str, offset: int, value: int) -> None:
    guests = one(kernel)
    assert guests(f"g vcpu 0 apic write {offset:#x} {value:#x}") == []
    guests(f"g vcpu 0 apic read {offset:#x}")
    assert guests.last() == f"ok value={value:#x}"


@pytest.mark.parametrize("offset", TRAPS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_writes_that_trap(kernel: str, offset: int) -> None:
    guests = one(kernel)
    # An id of 0 is the one that it has; other values would be a reason to be off.
    value = {0x20: 0, 0xD0: 0x1000000, 0xE0: 0xFFFFFFFF, 0x350: 0x10000}.get(offset, 0x1F)
    lines = guests(f"g vcpu 0 apic write {offset:#x} {value:#x}")
    assert info(kernel, 1 << 32 | offset, 0) in lines[0]
    name = NAMES[offset]
    assert lines[1:3] == [
        f"{UNACCELERATED}: vcpu=0, offset={offset:#x}({name}), trap, write, vec=0x0",
        f"kvm_apic: apic_write {name} = {value:#x}",
    ]
    assert events(lines)[3:] == ["kvm_entry"]
    assert guests.counts(0, "exits", "insn_emulation") == (1, 0)


@pytest.mark.parametrize("offset", [0x90, 0xC0, 0x390])
@pytest.mark.parametrize("kernel", KERNELS)
def test_reads_that_fault(kernel: str, offset: int) -> None:
    guests = one(kernel)
    lines = guests(f"g vcpu 0 apic read {offset:#x}")
    assert info(kernel, offset, 0) in lines[0]
    assert lines[1] == (
        f"{UNACCELERATED}: vcpu=0, offset={offset:#x}({NAMES[offset]}), fault, read, vec=0x0"
    )
    assert events(lines)[2:] == ["kvm_emulate_insn", "kvm_apic", "kvm_entry"]
    assert guests.counts(0, "exits", "insn_emulation") == (1, 1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_writes_that_fault(kernel: str) -> None:
    guests = one(kernel)
    lines = guests("g vcpu 0 apic write 0x390 1")
    assert lines[1] == (f"{UNACCELERATED}: vcpu=0, offset=0x390(APIC_TMCCT), fault, write, vec=0x0")
    assert guests.counts(0, "exits", "insn_emulation") == (1, 1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_access_without_avic_is_a_nested_page_fault(kernel: str) -> None:
    guests = one(kernel, "reinject=1")
    if kernel == "v3":
        guests("g vcpu 0 stop", "g vcpu 0 hv synic", "g vcpu 0 start")
    guests.clear()
    lines = guests("g vcpu 0 apic read 0x30")
    assert info(kernel, 0x10000000D, 0xFEE00030) in lines[0]
    assert events(lines)[1:3] == ["kvm_page_fault", "kvm_emulate_insn"]
    assert lines[3:5] == [
        "kvm_apic: apic_read APIC_LVR = 0x50014",
        "kvm_mmio: mmio read len 4 gpa 0xfee00030 val 0x50014",
    ]
    lines = guests("g vcpu 0 apic write 0x80 0x10")
    assert info(kernel, 0x10000000F, 0xFEE00080) in lines[0]
    assert events(lines)[1:3] == ["kvm_page_fault", "kvm_emulate_insn"]
    assert lines[3:5] == [
        "kvm_mmio: mmio write len 4 gpa 0xfee00080 val 0x10",
        "kvm_apic: apic_write APIC_TASKPRI = 0x10",
    ]
    assert guests.counts(0, "exits", "insn_emulation") == (2, 2)


@pytest.mark.parametrize("kernel", KERNELS)
def test_registers_keep_what_is_written(kernel: str) -> None:
    guests = one(kernel)
    for offset, value, read in (
        (0x350, 0x10700, 0x10700), (0xF0, 0x1FF, 0x1FF), (0xD0, 0x1ABCDEF, 0x1000000),
        (0xE0, 0xF1234567, 0xFFFFFFFF), (0x20, 0, 0), (0x300, 0x40041, 0x40041),
    ):  # fmt: skip
        guests(f"g vcpu 0 apic write {offset:#x} {value:#x}", f"g vcpu 0 apic read {offset:#x}")
        assert guests.last() == f"ok value={read:#x}"
    # The write to ICR was an interrupt to itself.
    assert guests.vcpu(0)["isr"] == "0x41"
    guests("g vcpu 0 apic read 0x120")
    assert guests.last() == "ok value=0x2"
    guests("g vcpu 0 apic read 0xa0")
    assert guests.last() == "ok value=0x40"


@pytest.mark.parametrize("kernel", KERNELS)
def test_icr_takes_its_destination_from_icr2(kernel: str) -> None:
    guests = one(kernel, vcpus=2)
    guests("g vcpu 0 apic write 0x310 0x1000000", "g vcpu 0 apic write 0x300 0x44")
    assert guests.vcpu(1)["isr"] == "0x44"
    guests("g vcpu 0 apic write 0xb0 0")
    assert guests.vcpu(0)["isr"] == "-"


@pytest.mark.parametrize("command", [
    "apic read 0x35", "apic read 0x400", "apic write 0x3f4 0", "apic read 0x1000",
    "apicbase 0xfee00800", "apicbase 0x10000000000000", "apicbase here", "apicbase x2apic",
])  # fmt: skip
def test_there_is_no_such_register(command: str) -> None:
    one("v3").refuses(EINVAL, f"g vcpu 0 {command}")


# --- Tables ---


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_physical_table(kernel: str) -> None:
    guests = Guests(kernel)
    guests("vm create g reinject=0", "g vcpu add count=3")
    assert guests.view("physid") == (
        "0 0xc000000100000000 vcpu=0\n1 0x8000000100001000 vcpu=1\n2 0x8000000100002000 vcpu=2\n"
    )
    guests("g vcpu 2 start cpu=9")
    assert guests.view("physid").splitlines()[2] == "2 0xc000000100002009 vcpu=2"
    guests("g vcpu 2 preempt")
    assert guests.view("physid").splitlines()[2] == "2 0x8000000100002009 vcpu=2"
    guests("g vcpu 2 resume cpu=3", "g vcpu 2 hlt")
    assert guests.view("physid").splitlines()[2] == "2 0x8000000100002003 vcpu=2"
    guests("g vcpu 0 ipi dst=2 vec=0x40")
    assert guests.view("physid").splitlines()[2] == "2 0xc000000100002003 vcpu=2"


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_entry_while_avic_is_off(kernel: str) -> None:
    guests = one(kernel, vcpus=2).with_pic()
    guests("g vcpu 0 cli", "g pit tick")
    marked = kernel in OLD
    for command in ("preempt", "resume cpu=5", "stop", "start cpu=6"):
        guests(f"g vcpu 1 {command}")
        assert guests.vcpu(1)["is_running"] == str(int(marked))
        assert guests.vcpu(1)["host"] == "1"


@pytest.mark.parametrize(("kernel", "cpu", "fits"), [
    ("v3", 255, True), ("v3", 256, False), ("5.6", 300, False), ("6.1", 300, True),
    ("6.18", 4095, True),
])  # fmt: skip
def test_host_ids_that_do_not_fit(kernel: str, cpu: int, fits: bool) -> None:
    guests = one(kernel)
    guests("g vcpu 0 preempt", f"g vcpu 0 resume cpu={cpu}")
    assert guests.vcpu(0)["host"] == (str(cpu) if fits else "0")
    assert bool(guests.warnings()) == (not fits)


@pytest.mark.parametrize("kernel", OLD)
def test_another_id_moves_the_entry(kernel: str) -> None:
    guests = one(kernel, vcpus=2)
    guests("g vcpu 1 apic write 0xd0 0x2000000", "g vcpu 1 apic write 0x20 0x7000000")
    assert [row.split()[0::2] for row in guests.view("physid").splitlines()] == [
        ["0", "vcpu=0"], ["7", "vcpu=1"],
    ]  # fmt: skip
    assert guests.view("logid") == "1 0x80000007\n"
    assert guests("g vcpu 0 ipi dst=7 vec=0x40") == []
    assert guests.vcpu(1)["isr"] == "0x40"
    # The table ends at 254.
    guests("g vcpu 1 apic write 0x20 0xff000000")
    assert guests.view("physid").splitlines()[1].startswith("7 ")


@pytest.mark.parametrize("kernel", OLD)
def test_whoever_had_the_id_loses_it(kernel: str) -> None:
    guests = one(kernel, vcpus=3)
    guests("g vcpu 2 apic write 0x20 0x1000000")
    assert [row.split()[2] for row in guests.view("physid").splitlines()] == ["vcpu=0", "vcpu=2"]
    guests("g vcpu 0 ipi sh=others vec=0x40")
    assert [guests.vcpu(number)["isr"] for number in range(3)] == ["-", "-", "0x40"]
    guests("g vcpu 1 apic write 0x20 0x5000000")
    assert [row.split()[2] for row in guests.view("physid").splitlines()] == [
        "vcpu=0", "vcpu=2", "vcpu=1",
    ]  # fmt: skip


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_logical_table(kernel: str) -> None:
    guests = one(kernel, vcpus=2)
    assert guests.view("logid") == ""
    guests("g vcpu 1 apic write 0xd0 0x8000000")
    assert guests.view("logid") == "3 0x80000001\n"
    guests("g vcpu 1 apic write 0xd0 0x10000000")
    assert guests.view("logid") == "4 0x80000001\n"
    guests("g vcpu 1 apic write 0xe0 0xfffffff")
    assert guests.view("logid") == ""
    guests("g vcpu 1 apic write 0xd0 0x24000000")
    assert guests.view("logid") == "10 0x80000001\n"
    # Cluster 15 and no bit at all are nobody.
    guests("g vcpu 1 apic write 0xd0 0xf1000000")
    assert guests.view("logid") == ""
    guests("g vcpu 1 apic write 0xd0 0")
    assert guests.view("logid") == ""


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_access_page(kernel: str) -> None:
    guests = Guests(kernel)
    guests("vm create g reinject=0")
    slot = "32765" if kernel in NEW else "510"
    twice = guests.machine.read("sys/kernel/debug/fakesys/kvm/params/as_num") == "2\n"
    made_by_flip = kernel == "5.6"
    rows = guests.view("memslots").splitlines()
    assert len(rows) == (2 if made_by_flip else 0)
    guests("g vcpu add")
    rows = guests.view("memslots").splitlines()
    assert rows[0] == f"{slot} 0xfee00000 0x1000 - private+0x0"
    assert len(rows) == 1 + twice
    if twice:
        assert rows[1] == f"{1 << 16 | int(slot)} 0xfee00000 0x1000 - private+0x0"
    guests.with_pic()
    before = guests.state()["memslot_updates"]
    guests("g vcpu 0 cli", "g pit tick")
    assert bool(guests.view("memslots")) == (kernel in NEW)
    guests("g vcpu 0 sti")
    assert guests.view("memslots").splitlines() == rows
    updates = int(guests.state()["memslot_updates"]) - int(before)
    assert updates == (4 if kernel in OLD else 0)


def test_a_flip_counts_in_generations_of_memory() -> None:
    guests = one("v3").with_pic()
    before = dict(line.split() for line in guests.view("mmu").splitlines())
    guests("g vcpu 0 cli", "g pit tick", "g vcpu 0 sti")
    after = dict(line.split() for line in guests.view("mmu").splitlines())
    # A slot that goes is published twice, one that comes once; address spaces step by two.
    assert int(after["generation"]) - int(before["generation"]) == 6
    assert after["valid_gen"] == before["valid_gen"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_memory_of_the_owner_in_the_way(kernel: str) -> None:
    guests = Guests(kernel)
    guests("vm create g irqchip=split", "g mem m size=2M", "g slot 0 gpa=0xfee00000 size=2M mem=m")
    guests.refuses(17, "g vcpu add")
    guests("g slot 0 gpa=0xfee00000 size=0", "g vcpu add")
    guests.refuses(17, "g slot 0 gpa=0xfee00000 size=2M mem=m")


def test_the_page_stays_away_when_its_place_was_taken_meanwhile() -> None:
    guests = one("v3").with_pic()
    guests("g mem m size=2M", "g vcpu 0 cli", "g pit tick")
    guests("g slot 0 gpa=0xfee00000 size=2M mem=m", "g vcpu 0 sti")
    assert guests.state()["apicv_state"] == "2 ACTIVATED"
    assert guests.state()["access_page"] == "absent"
    assert guests.state()["memslot_updates"] == "2"
    guests(
        "g vcpu 0 piceoi",
        "g vcpu 0 iret",
        "g vcpu 0 cli",
        "g pit tick",
        "g slot 0 gpa=0xfee00000 size=0",
    )
    guests("g vcpu 0 sti")
    assert guests.state()["access_page"] == "present"


def test_turning_off_drops_the_mapping_of_the_page_in_newer_kernels() -> None:
    guests = Guests("6.1")
    guests("modprobe avic=1 npt=1", "vm create g reinject=0", "g mem m size=2M")
    guests("g slot 0 gpa=0 size=2M mem=m", "g vcpu add id=1", "g vcpu 1 setup")
    guests("g vcpu 1 access w 0xfee00000")
    assert " fee00 " not in guests.view("shadow_pages")
    guests("g vcpu add id=0")
    guests.with_pic()
    flushed = guests.sums("remote_tlb_flush_requests")[0]
    guests("g vcpu 0 cli", "g pit tick")
    assert guests.sums("remote_tlb_flush_requests")[0] == flushed + 1
    assert only(guests("g vcpu 0 sti"), "kvm_apicv_inhibit_changed") != []

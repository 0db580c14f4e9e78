"""The series that made AVIC dynamic: what each patch cures, without it and with it."""

from __future__ import annotations

from errno import EINVAL

import pytest

from fakesys.machine.kernels.apicv import APICV_KERNELS
from fakesys.machine.machine import Machine
from tests.avic_kit import FOLDER, Guests

LEVELS = tuple(APICV_KERNELS.series.levels())
PROFILE = f"{FOLDER}/apicv_profile"
SPLIT = "irqchip=split"


def booted(
    level: str, preset: str = "linux-boot", options: str = "", *, force: bool = False
) -> str:
    """The result of a boot of two vCPUs."""
    guests = Guests(level, listens=False)
    guests(f"modprobe avic_any_irqchip={force:d}")
    guests.preset(f"{preset} vcpus=2 {options}")
    return guests.last()


# Patch 02: the VM has a state.


@pytest.mark.parametrize(("level", "kernel", "split"), [
    ("5.3", "-", "-"), ("v3-01", "-", "-"), ("v3-02", "0 DISABLED", "2 ACTIVATED"),
    ("v3-15", "0 DISABLED", "2 ACTIVATED"), ("v3-16", "2 ACTIVATED", "2 ACTIVATED"),
])  # fmt: skip
def test_the_state_of_the_vm(level: str, kernel: str, split: str) -> None:
    for options, state, active in (("", kernel, level == "v3-16"), (SPLIT, split, True)):
        guests = Guests(level).boot(2, options)
        assert guests.state()["apicv_state"] == state
        assert guests.vcpu(1)["apicv_active"] == str(int(active))
        assert (guests.state()["access_page"] == "present") == active


# Patch 05: two events.


@pytest.mark.parametrize(("level", "there"), [
    ("5.3", False), ("v3-04", False), ("v3-05", True), ("v3-16-05", False), ("v3", True),
])  # fmt: skip
def test_the_two_requests_are_traced(level: str, there: bool) -> None:
    guests = Guests(level).boot(2, SPLIT)
    events = guests.machine.listdir("sys/kernel/tracing/events/kvm")
    for name in ("kvm_apicv_activate_request", "kvm_apicv_deactivate_request"):
        assert (name in events) == there
    assert "kvm_avic_ga_log" not in events
    if level in ("v3-16-05", "v3"):
        # The behaviour is the same.
        lines = guests("g vcpu 0 cli", "g extint 48")
        assert any("deactivate_request" in line for line in lines) == there
        assert guests.state()["apicv_state"] == "1 SUSPENDED"


# Patch 06: posted interrupts.


@pytest.mark.parametrize(("level", "mode"), [("v3-16-06", "ga"), ("v3", "legacy")])
def test_devices_leave_guest_mode_with_avic(level: str, mode: str) -> None:
    guests = Guests(level).boot(2, SPLIT)
    guests("g dev add d irq=40 gsi=24 vec=0x41 dst=1", "g vcpu 0 cli", "g extint 48")
    assert guests.state()["apicv_state"] == "1 SUSPENDED"
    assert f" {mode}" in guests.view("irtes") or f"={mode}" in guests.view("irtes")
    lines = guests("g dev fire d")
    if mode == "legacy":
        assert "kvm_msi_set_irq: dst 1 vec 65 (Fixed|physical|edge)" in lines
        assert guests.vcpu(1)["isr"] == "0x41"
        return
    # Nobody hears of it until AVIC is on again.
    assert lines == []
    assert (guests.vcpu(1)["irr"], guests.vcpu(1)["isr"]) == ("0x41", "-")
    guests("g vcpu 0 sti")
    assert guests.vcpu(1)["isr"] == "0x41"


# Patch 08: the processor's part follows the state.


@pytest.mark.parametrize(("level", "updates", "page"), [("v3-16-08", "0", "present"),
                                                        ("v3", "2", "absent")])  # fmt: skip
def test_the_access_page_follows_the_state(level: str, updates: str, page: str) -> None:
    guests = Guests(level).boot(2, SPLIT)
    guests("g vcpu 0 cli", "g extint 48")
    state = guests.state()
    assert (state["apicv_state"], state["access_page"]) == ("1 SUSPENDED", page)
    assert state["memslot_updates"] == updates
    # An access to the APIC goes to memory and is lost, or is emulated.
    before = guests.sums("exits")
    lines = guests("g vcpu 1 apic write 0xd0 0x2000000")
    assert (guests.sums("exits") == before) == (page == "present")
    assert any(line.startswith("kvm_apic: ") for line in lines) == (page == "absent")
    copy = Machine("seed")
    copy.load(guests.machine.save())
    assert copy.state() == guests.machine.state()


def test_a_vcpu_that_wakes_serves_its_request_first() -> None:
    for level, running in (("v3-16-08", "1"), ("v3", "0")):
        guests = Guests(level).boot(2, SPLIT)
        guests("g vcpu 1 hlt", "g vcpu 0 cli", "g extint 48")
        assert guests.vcpu(1)["is_running"] == "0"
        guests("g vcpu 0 ipi dst=1 vec=0x50")
        assert guests.vcpu(1)["is_running"] == ("0" if level == "v3-16-08" else running)
        guests("g dev add d irq=40 gsi=24 vec=0x41 dst=1", "g dev fire d")
        assert guests.vcpu(1)["is_running"] == running


# Patch 09: SynIC.


@pytest.mark.parametrize("level", ["5.3", "v3-08", "v3-16-09"])
def test_synic_takes_one_vcpu_only(level: str) -> None:
    guests = Guests(level).boot(2, SPLIT)
    lines = guests("g vcpu 1 stop", "g vcpu 1 hv synic")
    assert not any("deactivate_request" in line for line in lines)
    assert guests.vcpu(0)["apicv_active"] == "1"
    assert guests.vcpu(1)["apicv_active"] == "0"
    assert guests.state()["access_page"] == "present"
    # Its entry says for ever that it runs, so nobody wakes it.
    assert guests.vcpu(1)["is_running"] == "1"
    guests("g vcpu 1 start")
    guests.clear()
    assert guests("g vcpu 0 ipi dst=1 vec=0x50") == []
    assert (guests.vcpu(1)["irr"], guests.vcpu(1)["isr"]) == ("0x50", "-")
    # The EOI of what KVM delivers is lost.
    guests("g dev add d irq=40 gsi=24 vec=0x41 dst=1", "g dev fire d", "g vcpu 1 eoi")
    assert "0x50" in guests.vcpu(1)["isr"]
    assert guests.machine.read("sys/kernel/debug/fakesys/bugs") == "0\n"


@pytest.mark.parametrize("level", ["v3-09", "v3"])
def test_synic_takes_the_vm(level: str) -> None:
    guests = Guests(level).boot(2, SPLIT)
    lines = guests("g vcpu 1 stop", "g vcpu 1 hv synic")
    assert "kvm_apicv_deactivate_request: vcpu=1, disable=disabled" in lines
    guests("g vcpu 1 start")
    assert [guests.vcpu(number)["apicv_active"] for number in range(2)] == ["0", "0"]
    assert guests.state()["access_page"] == "absent"
    assert guests.state()["memslot_updates"] == "2"
    assert guests.state()["apicv_state"] == "0 DISABLED"


@pytest.mark.parametrize(("level", "result"), [
    ("5.3", "ok result=hung at=66 source=pit why=eoi"), ("v3-09", "ok"),
])  # fmt: skip
def test_windows_with_synic(level: str, result: str) -> None:
    assert booted(level, "windows2019-boot", f"{SPLIT} hv_synic=1") == result


# Patch 10: nested guests.


@pytest.mark.parametrize(("level", "state"), [
    ("5.3", "-"), ("v3-09", "2 ACTIVATED"), ("v3-16-10", "2 ACTIVATED"),
    ("v3-10", "0 DISABLED"), ("v3", "0 DISABLED"),
])  # fmt: skip
def test_svm_in_cpuid(level: str, state: str) -> None:
    guests = Guests(level).boot(2, SPLIT)
    guests("g vcpu 0 stop", "g vcpu 0 cpuid svm=1 x2apic=1", "g vcpu 0 start")
    assert guests.state()["apicv_state"] == state
    active = state != "0 DISABLED"
    assert guests.vcpu(0)["apicv_active"] == str(int(active))
    if not active:
        return
    # An interrupt for the guest waits until its own guest exits for another reason.
    guests("g vcpu 0 nested vmrun", "g dev add d irq=40 gsi=24 vec=0x41 dst=0")
    guests.clear()
    guests("g dev fire d")
    assert (guests.vcpu(0)["irr"], guests.vcpu(0)["isr"]) == ("0x41", "-")
    assert guests.sums("exits") == (0,)
    guests("g vcpu 0 nested vmexit")
    assert guests.vcpu(0)["isr"] == "0x41"


# Patch 11: interrupt windows.


@pytest.mark.parametrize("level", ["5.3", "v3-10", "v3-16-11"])
def test_no_window_opens(level: str) -> None:
    guests = Guests(level).boot(2, SPLIT)
    guests("g vcpu 0 cli", "g extint 48")
    before = guests.counts(0, "exits", "irq_window_exits", "irq_injections")
    assert guests("g vcpu 0 sti") == []
    assert guests.vcpu(0)["v_irq"] == "0"
    assert guests.counts(0, "exits", "irq_window_exits", "irq_injections") == before
    # Any exit with interrupts on lets user space inject.
    lines = guests("g vcpu 0 apic write 0x370 0x10000")
    assert "kvm_inj_virq: irq 48" in lines
    assert guests.counts(0, "request_irq_exits", "irq_window_exits") == (1, 0)
    assert guests.vcpu(0)["apicv_active"] == "1"
    copy = Machine("seed")
    copy.load(guests.machine.save())
    assert copy.state() == guests.machine.state()


@pytest.mark.parametrize("level", ["v3-11", "v3"])
def test_a_window_suspends_avic(level: str) -> None:
    guests = Guests(level).boot(2, SPLIT)
    guests("g vcpu 0 cli", "g extint 48")
    assert guests.state()["apicv_state"] == "1 SUSPENDED"
    assert "kvm_inj_virq: irq 48" in guests("g vcpu 0 sti")
    assert guests.counts(0, "irq_window_exits") == (1,)
    assert guests.state()["apicv_state"] == "2 ACTIVATED"


# Patches 12 to 15: the EOI that nobody sees; patch 16: PIC and IOAPIC in the kernel.

EXTINT, ACK = (
    "ok result=hung at=49 source=pit why=extint",
    ("ok result=hung at=66 source=pit why=irq_ack"),
)
RTC = "ok result=hung at=2 source=rtc why=pending_eoi"


@pytest.mark.parametrize(("level", "force", "reinject", "without"), [
    ("5.3", False, "ok", "ok"), ("v3-15", False, "ok", "ok"),
    ("5.3", True, EXTINT, EXTINT), ("v3-10", True, EXTINT, EXTINT),
    ("v3-16-11", False, EXTINT, EXTINT),
    ("v3-11", True, ACK, RTC), ("v3-14", True, ACK, RTC),
    ("v3-16-15", False, ACK, RTC), ("v3-16-12-15", False, ACK, RTC),
    ("v3-15", True, "ok", "ok"), ("v3-16", False, "ok", "ok"),
])  # fmt: skip
def test_where_a_boot_hangs(level: str, force: bool, reinject: str, without: str) -> None:
    assert booted(level, force=force) == reinject
    assert booted(level, options="reinject=0", force=force) == without


@pytest.mark.parametrize(("level", "reinject", "without"), [
    ("v3-10", EXTINT.replace("49", "33"), EXTINT.replace("49", "33")),
    ("v3-14", ACK.replace("66", "42"), RTC), ("v3-15", "ok", "ok"),
])  # fmt: skip
def test_where_freebsd_hangs(level: str, reinject: str, without: str) -> None:
    assert booted(level, "freebsd-boot", force=True) == reinject
    assert booted(level, "freebsd-boot", "reinject=0", force=True) == without


@pytest.mark.parametrize("level", ["5.3", "v3-10", "v3-11", "v3-16-15", "v3"])
def test_a_split_irqchip_never_hangs(level: str) -> None:
    assert booted(level, options=SPLIT) == "ok"


def test_ticks_are_late_without_a_window() -> None:
    for level, late in (("v3-10", True), ("v3-11", False)):
        guests = Guests(level, listens=False)
        guests.preset(f"linux-boot vcpus=2 {SPLIT}")
        windows, injected = guests.sums("irq_window_exits", "request_irq_exits")
        assert (windows, injected) == ((0, 16) if late else (16, 16))


def test_a_boot_that_hangs_can_be_looked_at() -> None:
    guests = Guests("v3-16-15", listens=False)
    guests.preset("linux-boot vcpus=2")
    assert guests.state()["pit"] == "reinject=1 irq_ack=0 pending=2"
    guests = Guests("v3-16-15", listens=False)
    guests.preset("linux-boot vcpus=2 reinject=0")
    assert guests.state()["rtc_pending_eoi"] == "1"


@pytest.mark.parametrize(("level", "limited"), [("5.3", False), ("v3-15", False), ("v3-16", True)])
def test_ids_of_the_kernel_irqchip(level: str, limited: bool) -> None:
    guests = Guests(level, listens=False)
    guests("vm create g", "vm create s irqchip=split")
    guests.refuses(EINVAL, "s vcpu add count=256")
    if limited:
        guests.refuses(EINVAL, "g vcpu add count=256")
    else:
        guests("g vcpu add count=256")


# What a vCPU lacks that was made while AVIC was off.


def test_a_vcpu_that_is_born_without_avic_has_no_entry() -> None:
    guests = Guests("v3").boot(2, SPLIT)
    guests("g vcpu 0 cli", "g extint 48", "g vcpu add", "g vcpu 2 start")
    assert guests.vcpu(2)["valid"] == "0"
    copy = Machine("seed")
    copy.load(guests.machine.save())
    assert copy.state() == guests.machine.state()
    warnings = guests.machine.read(f"{FOLDER}/warnings")
    guests("g vcpu 0 sti")
    assert guests.vcpu(2)["valid"] == "1"
    assert "no entry in the table" in guests.machine.read(f"{FOLDER}/warnings")
    assert guests.machine.read(f"{FOLDER}/warnings") != warnings
    guests = Guests("5.6").boot(2, "reinject=0 irqchip=split")
    guests("g vcpu 0 cli", "g extint 48", "g vcpu add")
    assert guests.vcpu(2)["valid"] == "1"


# Names.


@pytest.mark.parametrize(("name", "others"), [
    ("v3-16-01", "02"), ("v3-16-02", "04, 07, 12"), ("v3-16-03", "04"),
    ("v3-16-04", "05, 06, 08, 09, 10, 11"), ("v3-16-07", "08"), ("v3-16-12", "15"),
    ("v3-16-13", "15"), ("v3-16-14", "15"),
])  # fmt: skip
def test_a_patch_that_others_need(name: str, others: str) -> None:
    guests = Guests("v3")
    guests.refuses(EINVAL, name, PROFILE)
    last = guests.machine.read("sys/kernel/debug/fakesys/last_error")
    assert f"patch {name[-2:]} of v3 is needed by patch" in last
    assert f" {others}: " in last


def test_the_names_are_listed() -> None:
    guests = Guests("v3")
    listed = guests.machine.read(PROFILE).split()
    assert listed[:17] == list(LEVELS)
    assert listed[17:] == ["[v3]", "5.6", "6.1", "6.12", "6.18", "7.x"]
    guests.machine.write(PROFILE, "v3-16-15")
    assert guests.machine.read(PROFILE).split()[-1] == "[v3-16-15]"
    copy = Machine("seed")
    copy.load(guests.machine.save())
    assert copy.read(PROFILE) == guests.machine.read(PROFILE)
    for name in ("v3-17", "v3-16-17", "v6-03", "v3-16-", "4.0"):
        guests.refuses(EINVAL, name, PROFILE)


def test_patches_that_no_file_tells_apart() -> None:
    # 03, 04, 07 and 12 to 14 prepare others; 06 and 08 act with 09 only.
    for one, other in (("5.3", "v3-01"), ("v3-02", "v3-03"), ("v3-03", "v3-04"),
                       ("v3-06", "v3-07"), ("v3-11", "v3-12"), ("v3-12", "v3-13"),
                       ("v3-13", "v3-14"), ("v3-16", "v3")):  # fmt: skip
        assert APICV_KERNELS[one].policy == APICV_KERNELS[other].policy
        assert APICV_KERNELS[one].features == APICV_KERNELS[other].features


# A device that interrupts all the time: what AVIC is for.


@pytest.mark.parametrize(("level", "options", "avic", "exits"), [
    ("v3", "", 1, 0), ("v3", SPLIT, 1, 0), ("v3", "", 0, 2000),
    ("5.3", "", 1, 2000), ("5.3", SPLIT, 1, 0),
])  # fmt: skip
def test_exits_per_second(level: str, options: str, avic: int, exits: int) -> None:
    guests = Guests(level, listens=False)
    guests(f"modprobe avic={avic}")
    guests.preset(f"netperf vcpus=4 rate=500 seconds=2 {options}")
    per_second = exits // 2
    assert guests.last() == f"ok interrupts=1000 exits={exits} exits_per_second={per_second}"


def test_netperf_refuses() -> None:
    guests = Guests("v3")
    path = f"{FOLDER}/preset"
    guests.refuses(EINVAL, "netperf vcpus=4 rate=0", path)
    guests.refuses(EINVAL, "netperf vcpus=4 irqchip=none", path)
    guests.refuses(EINVAL, "netperf vcpus=300", path)

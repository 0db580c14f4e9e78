"""Presets: what the boots of well-known guests come to, exactly."""

from __future__ import annotations

from collections import Counter
from errno import EEXIST, EINVAL

import pytest

from tests.avic_kit import KERNELS, PRESET, Guests, events, only

OFF, ON = "kvm_apicv_deactivate_request", "kvm_apicv_activate_request"
TOTALS = (
    "exits", "irq_exits", "irq_window_exits", "irq_injections", "io_exits", "req_event",
    "halt_exits", "halt_wakeup",
)  # fmt: skip


@pytest.mark.parametrize("vcpus", [1, 17, 240])
def test_linux_boots(vcpus: int) -> None:
    guests = Guests("v3")
    lines = guests.preset(f"linux-boot vcpus={vcpus}")
    assert guests.last() == "ok"
    m = vcpus - 1
    assert guests.sums(*TOTALS) == (
        146 + 7 * m, 64 + m, 16, 128, 64, 208 + 2 * m, m, 3 * m,
    )  # fmt: skip
    told = Counter(events(lines))
    assert told[OFF] == told[ON] == 16
    assert {line for line in lines if line.startswith(OFF)} == {f"{OFF}: vcpu=0, disable=suspended"}
    assert told["kvm_avic_incomplete_ipi"] == 5 * m
    assert told["kvm_avic_unaccelerated_access"] == 2
    assert told["kvm_eoi"] == 0
    assert told["kvm_inj_virq"] == 128
    acked = Counter(only(lines, "kvm_ack_irq"))
    assert acked == {
        "kvm_ack_irq: irqchip PIC master pin 0": 64,
        "kvm_ack_irq: irqchip IOAPIC pin 2": 72,
        "kvm_ack_irq: irqchip IOAPIC pin 8": 8,
    }
    state = guests.state()
    assert (state["apicv_state"], state["access_page"]) == ("2 ACTIVATED", "present")
    assert (state["flips_off"], state["flips_on"]) == ("16", "16")
    assert all(guests.active(number) for number in range(vcpus))


def test_the_numbers_of_240() -> None:
    guests = Guests("v3")
    guests.preset("linux-boot vcpus=240")
    assert guests.sums(*TOTALS) == (1819, 303, 16, 128, 64, 686, 239, 717)


@pytest.mark.parametrize("listening", [True, False])
def test_every_ap_is_woken_by_init_and_sipi_and_kicked_by_the_second(listening: bool) -> None:
    guests = Guests("v3")
    if not listening:
        guests = deaf()
    guests.preset("linux-boot vcpus=4")
    for number in (1, 2, 3):
        assert guests.counts(number, *TOTALS) == (2, 1, 0, 0, 0, 2, 1, 3)


def deaf() -> Guests:
    """Nobody listens to entries and exits, so that they are booked for all vCPUs at once."""
    return Guests("v3", listens=False)


@pytest.mark.parametrize("vcpus", [2, 17])
def test_it_is_the_same_when_nobody_listens(vcpus: int) -> None:
    loud, quiet = Guests("v3"), deaf()
    for guests in (loud, quiet):
        guests.preset(f"linux-boot vcpus={vcpus}")
    assert quiet.lines == []
    assert loud.everything() == quiet.everything()


@pytest.mark.parametrize("synic", [0, 1])
def test_windows_boots(synic: int) -> None:
    guests = Guests("v3")
    lines = guests.preset(f"windows2019-boot vcpus=5 hv_synic={synic}")
    told = Counter(events(lines))
    state = guests.state()
    if not synic:
        assert guests.sums(*TOTALS) == (146 + 28, 68, 16, 128, 64, 216, 4, 12)
        assert (told[OFF], told[ON], state["flips_off"]) == (16, 16, "16")
        assert state["apicv_state"] == "2 ACTIVATED"
        assert only(lines, "kvm_ack_irq").count("kvm_ack_irq: irqchip IOAPIC pin 8") == 1024
        return
    disabled = [f"{OFF}: vcpu={number}, disable=disabled" for number in range(5)]
    assert only(lines, OFF) == disabled
    # Every window's end asks in vain.
    assert only(lines, ON) == [f"{ON}: vcpu=0"] * 16
    assert (state["apicv_state"], state["flips_off"], state["flips_on"]) == ("0 DISABLED", "1", "0")
    assert state["access_page"] == "absent"
    assert not any(guests.active(number) for number in range(5))
    # Everything is delivered the old way: 1024 ticks, 8 of the timer, IPIs, 16 of the device.
    assert told["kvm_avic_incomplete_ipi"] == 0
    injections, eois = guests.sums("irq_injections")[0], told["kvm_eoi"]
    assert injections == 128 + eois
    assert eois == 1024 + 8 + 4 + 4 + 16


@pytest.mark.parametrize(("vcpus", "logical"), [(8, True), (9, False)])
def test_freebsd_boots(vcpus: int, logical: bool) -> None:
    guests = Guests("v3")
    lines = guests.preset(f"freebsd-boot vcpus={vcpus}")
    m = vcpus - 1
    assert guests.last() == "ok"
    assert Counter(events(lines))[OFF] == 8
    # One more exit for each AP that writes its LDR.
    assert guests.sums("exits", "irq_injections", "halt_wakeup") == (
        1 + 64 + 24 + 1 + 7 * m + (m if logical else 0), 80, 3 * m,
    )  # fmt: skip
    wakes = [line for line in only(lines, "kvm_avic_incomplete_ipi") if "id=1" in line]
    assert len(wakes) == m
    assert all(("8fd" in line) == logical for line in wakes)
    assert bool(guests.view("logid")) == logical


def test_more_than_freebsd_was_tested_with() -> None:
    guests = Guests("v3")
    guests.preset("freebsd-boot vcpus=129")
    assert guests.last() == "ok untested-scale"


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("preset", ["linux-boot", "windows2019-boot hv_synic=1", "freebsd-boot"])
def test_every_kernel_boots_every_guest(kernel: str, preset: str) -> None:
    guests = Guests(kernel)
    guests.preset(f"{preset} vcpus=3 name=other reinject=0")
    state = guests.state("other")
    assert state["profile"] == kernel
    assert guests.vcpu(2, "other")["run"] == "guest"
    assert guests.vcpu(2, "other")["irr"] == guests.vcpu(2, "other")["isr"] == "-"
    off = "synic" in preset and kernel in ("v3", "5.6")
    assert (state["apicv_state"] == "2 ACTIVATED") != off


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_split_irqchip(kernel: str) -> None:
    guests = Guests(kernel)
    lines = guests.preset("linux-boot vcpus=3 irqchip=split")
    told = Counter(events(lines))
    # 48 and 16 vectors from user space; each of the latter needs a window.
    assert guests.sums("irq_window_exits", "request_irq_exits") == (16, 16)
    assert told["kvm_userspace_exit"] == 64 + 16
    assert guests.state()["apicv_state"] == "2 ACTIVATED"
    assert told["kvm_set_irq"] == 0


@pytest.mark.parametrize(("vcpus", "active"), [(512, True), (513, False)])
def test_many_vcpus_with_x2avic(vcpus: int, active: bool) -> None:
    guests = Guests("6.18", listens=False)
    guests("modprobe avic=1 x2avic=1")
    guests.preset(f"linux-boot vcpus={vcpus} reinject=0")
    assert guests.state()["inhibits"] == ("0x0" if active else "0x1000")
    assert guests.active(vcpus - 2) == active
    assert guests.vcpu(vcpus - 1)["valid"] == str(int(active))


def test_what_cannot_boot() -> None:
    guests = Guests("v3")
    guests.refuses(EINVAL, "linux-boot vcpus=289", PRESET)
    guests.refuses(EINVAL, "linux-boot vcpus=256", PRESET)
    guests.refuses(EINVAL, "linux-boot vcpus=2 irqchip=none", PRESET)
    guests.refuses(EINVAL, "linux-boot", PRESET)
    guests.refuses(EINVAL, "linux-boot vcpus=2 hv_synic=1", PRESET)
    guests.refuses(EINVAL, "plan9-boot vcpus=2", PRESET)
    guests("vm create g")
    guests.refuses(EEXIST, "linux-boot vcpus=2", PRESET)
    assert guests.last().startswith("error EEXIST ")
    guests.refuses(34, f"linux-boot vcpus={1 << 70}", PRESET)
    guests.preset("linux-boot vcpus=2 name=h")
    assert guests.last() == "ok"

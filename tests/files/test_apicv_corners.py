"""Ways of interrupts that are rarely taken."""

from __future__ import annotations

from errno import EINVAL

import pytest

from tests.avic_kit import KERNELS, PRESET, Guests, only

ACCEPT = "kvm_apic_accept_irq"


@pytest.mark.parametrize("kernel", KERNELS)
def test_kvm_looks_for_logical_ids_as_hardware_does(kernel: str) -> None:
    guests = Guests(kernel).boot(2, "reinject=0")
    for number, ldr in enumerate((0x12000000, 0x14000000)):
        guests(f"g vcpu {number} apic write 0xe0 0xfffffff")
        guests(f"g vcpu {number} apic write 0xd0 {ldr:#x}")
    lines = guests("g vcpu 0 ipi dst=0x14 vec=0x42 mode=logical dm=lowest")
    assert only(lines, ACCEPT) == [f"{ACCEPT}: apicid 1 vec 66 (LowPrio|edge)"]
    # All of them.
    lines = guests("g vcpu 0 ipi dst=0xff vec=0 mode=logical dm=nmi")
    assert len(only(lines, ACCEPT)) == 2
    lines = guests("g vcpu 0 ipi dst=0x26 vec=0 mode=logical dm=nmi")
    assert only(lines, ACCEPT) == []


@pytest.mark.parametrize("mode", ["res", "extint"])
def test_modes_that_a_local_apic_ignores(mode: str) -> None:
    guests = Guests("v3").boot(1)
    guests("g vcpu 0 lvt0 masked", f"g ioapic 5 vec=0x35 dm={mode}")
    guests.clear()
    assert len(only(guests("g pulse 5"), ACCEPT)) == 1
    assert guests.counts(0, "exits", "req_event") == (0, 0)
    assert guests.vcpu(0)["irr"] == "-"


def test_a_nmi_wakes_a_vcpu_that_refuses_interrupts() -> None:
    guests = Guests("v3").boot(2)
    guests("g vcpu 1 cli", "g vcpu 1 hlt", "g vcpu 0 ipi dst=1 vec=0 dm=nmi")
    assert guests.vcpu(1)["run"] == "guest"
    assert guests.counts(1, "nmi_injections") == (1,)


def test_a_sleep_with_interrupts_off_is_taken_up_again() -> None:
    guests = Guests("v3").boot(2)
    guests("g vcpu 1 cli", "g vcpu 0 ipi dst=1 vec=0x40", "g vcpu 1 hlt")
    assert guests.vcpu(1)["run"] == "halted"
    guests("g vcpu 1 stop", "g vcpu 1 start")
    assert (guests.vcpu(1)["run"], guests.vcpu(1)["irr"]) == ("halted", "0x40")


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_extint_is_waiting_when_the_guest_halts(kernel: str) -> None:
    guests = Guests(kernel).boot(1, "reinject=0")
    guests("g pic base=0x30 imr=0", "g vcpu 0 lvt0 masked", "g pulse 5", "g vcpu 0 lvt0 extint")
    guests("g vcpu 0 hlt")
    assert guests.vcpu(0)["run"] == "guest"


def test_a_handler_of_a_vcpu_that_went_to_sleep_is_dropped() -> None:
    guests = Guests("v3").boot(2, handler="auto")
    guests("g ioapic 9 vec=0x45 dst=1 trig=level", "g vcpu 1 preempt", "g irq 9 1", "g irq 9 0")
    guests("g vcpu 0 ipi dst=1 vec=0 dm=init", "g vcpu 1 resume")
    assert guests.vcpu(1)["run"] == "uninit"
    assert guests.vcpu(1)["isr"] == "-"


@pytest.mark.parametrize("kernel", KERNELS)
def test_levels_to_many_running_vcpus(kernel: str) -> None:
    """A handler that ends a level interrupt exits, so it is not done at once."""
    guests = Guests(kernel, listens=False).boot(3, "reinject=0", handler="auto")
    guests("g ioapic 9 vec=0x45 dst=255 trig=level", "g irq 9 1", "g irq 9 0")
    guests("g handler manual", "g vcpu 0 ipi sh=others vec=0x45")
    guests("g handler auto", "g vcpu 1 eoi", "g vcpu 1 iret")
    assert guests.vcpu(1)["isr"] == "-"
    guests("g vcpu 2 eoi", "g vcpu 2 iret", "g vcpu 0 ipi sh=others vec=0x45")
    assert [guests.vcpu(number)["isr"] for number in range(3)] == ["-"] * 3


def test_presets_take_no_more_than_the_kernel_does() -> None:
    guests = Guests("6.18")
    guests.refuses(EINVAL, "linux-boot vcpus=1025", PRESET)
    guests.refuses(EINVAL, "linux-boot vcpus=4097", PRESET)

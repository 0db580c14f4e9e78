"""Ends of interrupts: hidden, trapped or emulated; what IOAPIC, clock and timer hear of them."""

from __future__ import annotations

import pytest

from tests.avic_kit import KERNELS, Guests, events, only

LEVEL = "g ioapic 9 vec=0x39 trig=level"
EDGE = "g ioapic 5 vec=0x35"


def guests_of(kernel: str, options: str = "reinject=0", *, active: bool = True) -> Guests:
    """vCPU 0 with AVIC on or off; the PICs are masked, nobody listens to them."""
    if not active and kernel not in ("v3", "5.6"):
        options = "reinject=1"
    guests = Guests(kernel).boot(2, options)
    guests("g vcpu 0 lvt0 masked")
    if "split" not in options:
        guests("g pic base=0x30 imr=0xffff")
    if not active and kernel in ("v3", "5.6"):
        guests("g vcpu 1 stop", "g vcpu 1 hv synic", "g vcpu 1 start")
    assert guests.active(0) == active
    guests.clear()
    return guests


@pytest.mark.parametrize("kernel", KERNELS)
def test_edge_with_avic_is_hidden(kernel: str) -> None:
    guests = guests_of(kernel)
    guests(EDGE, "g pulse 5")
    assert guests.vcpu(0)["isr"] == "0x35"
    assert guests("g vcpu 0 eoi") == []
    assert guests.vcpu(0)["isr"] == "-"
    assert guests.counts(0, "exits", "req_event") == (0, 0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_level_with_avic_is_trapped(kernel: str) -> None:
    guests = guests_of(kernel)
    guests(LEVEL, "g irq 9 1", "g irq 9 0")
    assert "pin9 vec=0x39 dst=0x0 dm=0 mode=phys trig=level mask=0 remote_irr=1" in (
        guests.view("ioapic")
    )
    lines = guests("g vcpu 0 eoi")
    assert lines[1:5] == [
        "kvm_avic_unaccelerated_access: vcpu=0, offset=0xb0(APIC_EOI), trap, write, vec=0x39",
        "kvm_apic: apic_write APIC_EOI = 0x0",
        "kvm_eoi: apicid 0 vector 57",
        "kvm_ack_irq: irqchip IOAPIC pin 9",
    ]
    assert events(lines) == [
        "kvm_exit", "kvm_avic_unaccelerated_access", "kvm_apic", "kvm_eoi", "kvm_ack_irq",
        "kvm_entry",
    ]  # fmt: skip
    assert guests.counts(0, "exits", "req_event", "insn_emulation") == (1, 1, 0)
    assert "pin9 vec=0x39 dst=0x0 dm=0 mode=phys trig=level mask=0 remote_irr=0" in (
        guests.view("ioapic")
    )


# A write to the APIC that KVM emulates.
EMULATED = ("kvm_exit", "kvm_page_fault", "kvm_emulate_insn", "kvm_mmio")


@pytest.mark.parametrize("kernel", KERNELS)
def test_edge_without_avic_is_emulated(kernel: str) -> None:
    guests = guests_of(kernel, active=False)
    guests(EDGE, "g pulse 5")
    guests.clear()
    lines = guests("g vcpu 0 eoi")
    assert "reason npf" in lines[0]
    assert "fee000b0" in lines[0]
    assert lines[4:6] == ["kvm_apic: apic_write APIC_EOI = 0x0", "kvm_eoi: apicid 0 vector 53"]
    assert events(lines) == [*EMULATED, "kvm_apic", "kvm_eoi", "kvm_entry"]
    assert guests.counts(0, "exits", "req_event", "insn_emulation") == (1, 1, 1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_level_without_avic_is_emulated(kernel: str) -> None:
    guests = guests_of(kernel, active=False)
    guests(LEVEL, "g irq 9 1", "g irq 9 0")
    lines = guests("g vcpu 0 eoi")
    assert events(lines) == [*EMULATED, "kvm_apic", "kvm_eoi", "kvm_ack_irq", "kvm_entry"]
    assert "kvm_ack_irq: irqchip IOAPIC pin 9" in lines


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_eoi_of_nothing(kernel: str) -> None:
    guests = guests_of(kernel)
    assert guests("g vcpu 0 eoi") == []
    guests = guests_of(kernel, active=False)
    lines = guests("g vcpu 0 eoi")
    assert events(lines) == [*EMULATED, "kvm_apic", "kvm_eoi", "kvm_entry"]
    assert "kvm_eoi: apicid 0 vector -1" in lines
    assert guests.counts(0, "req_event") == (0,)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_level_pin_that_is_still_high_is_sent_again(kernel: str) -> None:
    guests = guests_of(kernel)
    guests(LEVEL)
    lines = guests("g irq 9 1")
    assert "kvm_apic_accept_irq: apicid 0 vec 57 (Fixed|level)" in lines
    lines = guests("g vcpu 0 eoi")
    assert "kvm_apic_accept_irq: apicid 0 vec 57 (Fixed|level)" in lines
    # The handler is not left yet, so it waits.
    assert guests.vcpu(0)["irr"] == "0x39"
    guests("g irq 9 0", "g vcpu 0 iret")
    assert guests.vcpu(0)["isr"] == "0x39"
    assert only(guests("g vcpu 0 eoi"), "kvm_apic_accept_irq") == []


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_level_pin_with_remote_irr_is_held(kernel: str) -> None:
    guests = guests_of(kernel)
    guests(LEVEL, "g irq 9 1", "g irq 9 0")
    lines = guests("g irq 9 1 status")
    assert only(lines, "kvm_apic_accept_irq") == []
    assert guests.last() == "ok status=-1"


@pytest.mark.parametrize("kernel", ["v3", "6.18"])
def test_a_level_interrupt_that_floods_is_put_off(kernel: str) -> None:
    guests = guests_of(kernel)
    guests(LEVEL, "g handler auto", "g irq 9 1")
    assert guests.lines[-1].startswith(("kvm_entry", "kvm_ioapic_delayed_eoi_inj"))
    assert len(only(guests.lines, "kvm_eoi")) == 10_000
    assert only(guests.lines, "kvm_ioapic_delayed_eoi_inj") == [
        "kvm_ioapic_delayed_eoi_inj: dst 0 vec 57 (Fixed|physical|level)"
    ]
    guests.lines.clear()
    guests.machine.clock.advance(0.01)
    assert len(only(guests.lines, "kvm_eoi")) == 10_000
    guests("g irq 9 0")
    guests.machine.clock.advance(0.01)
    assert only(guests.lines, "kvm_ioapic_delayed_eoi_inj") == []


def test_a_flood_ends_with_its_vm() -> None:
    guests = guests_of("v3")
    guests(LEVEL, "g handler auto", "g irq 9 1", "vm destroy g")
    guests.lines.clear()
    guests.machine.clock.advance(1)
    assert guests.lines == []


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_level_eoi_goes_to_user_space_where_the_ioapic_is(kernel: str) -> None:
    guests = guests_of(kernel, "irqchip=split")
    # Meant for more than one vCPU, so it is not posted but sent by KVM.
    guests("g dev add d irq=40 gsi=24 vec=0x51 dst=255 trig=level", "g dev fire d")
    lines = guests("g vcpu 0 eoi")
    assert "kvm_userspace_exit: reason KVM_EXIT_IOAPIC_EOI (26)" in lines
    assert "kvm_eoi: apicid 0 vector 81" in lines


# --- The lazy end ---


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_lazy_end_of_an_edge_pin(kernel: str) -> None:
    guests = guests_of(kernel)
    guests(EDGE)
    told = kernel in ("v3", "5.6")
    lines = guests("g pulse 5")
    assert only(lines, "kvm_ack_irq") == ["kvm_ack_irq: irqchip IOAPIC pin 5"] * told
    # Its vector is still being served: nothing ended.
    assert only(guests("g pulse 5"), "kvm_ack_irq") == []
    for _ in range(2):
        guests("g vcpu 0 eoi", "g vcpu 0 iret")
    assert only(guests("g pulse 5"), "kvm_ack_irq") == ["kvm_ack_irq: irqchip IOAPIC pin 5"] * told


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_lazy_end_comes_before_the_coalescing_test(kernel: str) -> None:
    guests = guests_of(kernel)
    guests(EDGE, "g irq 5 1", "g vcpu 0 eoi", "g vcpu 0 iret")
    lines = guests("g irq 5 1")
    assert (only(lines, "kvm_ack_irq") != []) == (kernel in ("v3", "5.6"))
    assert lines[-1].endswith("(Fixed|physical|edge) (coalesced)")


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_lazy_end_of_a_level_pin(kernel: str) -> None:
    guests = guests_of(kernel)
    guests(LEVEL)
    # 5.6 did not ask how the pin is triggered.
    lines = guests("g irq 9 1")
    assert (only(lines, "kvm_ack_irq") != []) == (kernel == "5.6")


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_lazy_end_without_avic(kernel: str) -> None:
    guests = guests_of(kernel, active=False)
    guests(EDGE)
    assert only(guests("g pulse 5"), "kvm_ack_irq") == []


def test_the_lazy_end_looks_at_masked_pins_too() -> None:
    guests = guests_of("v3")
    lines = guests("g pulse 5")
    assert only(lines, "kvm_ack_irq") == ["kvm_ack_irq: irqchip IOAPIC pin 5"]


def test_the_lazy_end_takes_the_first_idle_vcpu_only() -> None:
    guests = guests_of("v3")
    guests("g ioapic 5 vec=0x35 dst=255", "g pulse 5")
    assert (guests.vcpu(0)["isr"], guests.vcpu(1)["isr"]) == ("0x35", "0x35")
    assert only(guests("g pulse 5"), "kvm_ack_irq") == []
    for _ in range(2):
        guests("g vcpu 1 eoi", "g vcpu 1 iret")
    assert len(only(guests("g pulse 5"), "kvm_ack_irq")) == 1


# --- The clock ---


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_clock_waits_for_its_eoi(kernel: str) -> None:
    guests = guests_of(kernel)
    guests("g ioapic 8 vec=0x28 dst=1", "g rtc tick")
    assert guests.state()["rtc_pending_eoi"] == "1"
    lines = guests("g rtc tick")
    assert guests.last() == "ok coalesced=1"
    assert only(lines, "kvm_ioapic_set_irq")[0].endswith("vec 40 (Fixed|physical|edge) (coalesced)")
    guests("g vcpu 1 eoi", "g vcpu 1 iret")
    # Nobody heard of that; the lazy step of the next tick finds it.
    assert guests.state()["rtc_pending_eoi"] == "1"
    guests("g rtc tick")
    assert guests.last() == "ok coalesced=0"


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_clock_without_avic(kernel: str) -> None:
    guests = guests_of(kernel, active=False)
    guests("g ioapic 8 vec=0x28 dst=1", "g rtc tick")
    assert guests.state()["rtc_pending_eoi"] == "1"
    lines = guests("g vcpu 1 eoi")
    assert "kvm_ack_irq: irqchip IOAPIC pin 8" in lines
    assert guests.state()["rtc_pending_eoi"] == "0"


@pytest.mark.parametrize("kernel", KERNELS)
def test_lines_without_status_do_not_watch_the_clock(kernel: str) -> None:
    guests = guests_of(kernel)
    guests("g ioapic 8 vec=0x28 dst=1", "g pulse 8")
    assert guests.state()["rtc_pending_eoi"] == "0"


# --- The timer ---


@pytest.mark.parametrize("kernel", KERNELS)
def test_ticks_without_reinjection_need_no_acknowledgement(kernel: str) -> None:
    guests = guests_of(kernel)
    guests("g ioapic 2 vec=0x30", "g pit tick 3")
    assert guests.view("pit") == "reinject 0\nirq_ack 1\npending 0\n"
    assert len(only(guests.lines, "kvm_set_irq")) == 6


@pytest.mark.parametrize("kernel", ["5.6", "6.1", "6.12", "6.18", "7.x"])
def test_ticks_that_are_owed_come_with_the_acknowledgement(kernel: str) -> None:
    guests = guests_of(kernel, "reinject=1", active=False)
    guests("g pit reinject 1", "g ioapic 2 vec=0x30", "g pit tick 3")
    assert len(only(guests.lines, "kvm_set_irq")) == 2
    lines = guests("g vcpu 0 eoi")
    assert "kvm_ack_irq: irqchip IOAPIC pin 2" in lines
    assert len(only(lines, "kvm_set_irq")) == 2
    assert guests.view("pit") == "reinject 1\nirq_ack 0\npending 2\n"


def test_reinjection_forgets_what_was_owed() -> None:
    guests = guests_of("v3", "reinject=1")
    guests("g ioapic 2 vec=0x30", "g pit tick 3")
    assert guests.view("pit") == "reinject 1\nirq_ack 0\npending 2\n"
    guests("g pit reinject 0", "g pit reinject 1")
    assert guests.view("pit") == "reinject 1\nirq_ack 1\npending 0\n"


def test_unmasking_the_pic_forgets_what_was_owed() -> None:
    guests = guests_of("v3", "reinject=1")
    guests("g ioapic 2 vec=0x30", "g pit tick 3", "g pic base=0x30 imr=0xfffe")
    assert guests.view("pit") == "reinject 1\nirq_ack 1\npending 0\n"


# --- The PIC ---


def pic_guests(kernel: str, options: str = "") -> Guests:
    guests = Guests(kernel).boot(1, "reinject=0")
    guests(f"g pic base=0x30 imr=0 {options}".rstrip(), "g vcpu 0 lvt0 extint")
    guests.clear()
    return guests


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_pic_wakes_for_nothing_until_it_was_mended(kernel: str) -> None:
    """P4: an acknowledgement sets an event again, so the vector is injected twice."""
    guests = pic_guests(kernel)
    twice = kernel in ("v3", "5.6", "6.1", "6.12")
    lines = guests("g pulse 5")
    name = {"v3": "irq 53", "5.6": "irq 53"}.get(kernel, "IRQ 0x35")
    again = f"kvm_inj_virq: {name}" + (" [reinjected]" if kernel in ("6.1", "6.12") else "")
    assert only(lines, "kvm_inj_virq") == [f"kvm_inj_virq: {name}", again][: 1 + twice]
    assert guests.counts(0, "irq_injections", "req_event", "exits") == (
        (2, 2, 1) if twice else (1, 1, 1)
    )
    guests.clear()
    guests("g vcpu 0 piceoi")
    assert guests.counts(0, "exits", "io_exits", "req_event") == (1, 1, int(twice))


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_masked_pic_pin_that_toggles_kicks_until_it_was_mended(kernel: str) -> None:
    guests = pic_guests(kernel)
    guests("g pic base=0x30 imr=0xffff")
    guests.clear()
    guests("g pulse 5")
    kicks = int(kernel in ("v3", "5.6", "6.1", "6.12"))
    assert guests.counts(0, "irq_exits", "req_event") == (kicks, kicks)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_pic_ends_interrupts_by_itself(kernel: str) -> None:
    guests = pic_guests(kernel, "aeoi=1")
    lines = guests("g pulse 5")
    assert only(lines, "kvm_ack_irq")[-1] == "kvm_ack_irq: irqchip PIC master pin 5"
    assert "isr=0x00" in guests.view("pic").splitlines()[1]


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_slave(kernel: str) -> None:
    guests = pic_guests(kernel)
    lines = guests("g pulse 10")
    assert "kvm_pic_set_irq: chip 1 pin 2 (edge)" in lines
    name = {"v3": "irq 58", "5.6": "irq 58"}.get(kernel, "IRQ 0x3a")
    assert f"kvm_inj_virq: {name}" in lines
    assert guests.view("pic") == (
        "output 0\n"
        "master base=0x30 irr=0x00 isr=0x04 imr=0x00 elcr=0x00 aeoi=0\n"
        "slave base=0x38 irr=0x00 isr=0x04 imr=0x00 elcr=0x00 aeoi=0\n"
    )


def test_an_automatic_handler_ends_slave_and_master() -> None:
    guests = pic_guests("v3")
    guests("g handler auto")
    lines = guests("g pulse 10")
    assert only(lines, "kvm_pio") == [
        "kvm_pio: pio_write at 0xa0 size 1 count 1 val 0x20 ",
        "kvm_pio: pio_write at 0x20 size 1 count 1 val 0x20 ",
    ]
    assert only(lines, "kvm_ack_irq")[-2:] == [
        "kvm_ack_irq: irqchip PIC slave pin 10", "kvm_ack_irq: irqchip PIC master pin 2",
    ]  # fmt: skip
    assert guests.vcpu(0)["if"] == "1"


def test_a_pin_that_is_lower_in_priority_waits() -> None:
    guests = pic_guests("6.18")
    guests("g pulse 3", "g pulse 5")
    assert "irr=0x20 isr=0x08" in guests.view("pic")
    guests("g vcpu 0 iret")
    lines = guests("g vcpu 0 piceoi")
    assert "kvm_inj_virq: IRQ 0x35" in lines


def test_a_pic_in_user_space_is_written_with_an_exit_only() -> None:
    guests = Guests("v3").boot(1, "irqchip=split")
    lines = guests("g vcpu 0 piceoi")
    assert events(lines) == ["kvm_exit", "kvm_pio", "kvm_entry"]

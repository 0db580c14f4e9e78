"""The enum of the series' third version: every transition, what each does, and its hazards."""

from __future__ import annotations

import pytest

from tests.avic_kit import Guests, events, only

OFF, ON = "kvm_apicv_deactivate_request", "kvm_apicv_activate_request"
PAIR = (OFF, ON)
DISABLED, SUSPENDED, ACTIVATED = "0 DISABLED", "1 SUSPENDED", "2 ACTIVATED"
ACTIVATE, DEACTIVATE = 1 << 33, 1 << 34


def fresh() -> Guests:
    """vCPU 0 takes the PIC's interrupts, vCPU 1 is held in user space."""
    guests = Guests("v3").boot().with_pic()
    guests("g vcpu 1 stop")
    guests.clear()
    return guests


def suspended() -> Guests:
    guests = fresh()
    guests("g vcpu 0 cli", "g pit tick")
    assert guests.state()["apicv_state"] == SUSPENDED
    return guests


def disabled() -> Guests:
    guests = fresh()
    guests("g vcpu 1 hv synic")
    assert guests.state()["apicv_state"] == DISABLED
    return guests


def never_on() -> Guests:
    guests = Guests("v3")
    guests("modprobe avic=0", "vm create g", "g vcpu add count=2")
    guests.with_pic()
    assert guests.state()["apicv_state"] == DISABLED
    return guests


def stays(guests: Guests, *commands: str) -> list[str]:
    """The requests traced by these commands, which leave the state as it is."""
    state = {**guests.state()}
    found: list[str] = []
    for text in commands:
        found += only(guests(text), *PAIR)
    for name in ("apicv_state", "flips_off", "flips_on", "access_page", "memslot_updates"):
        assert guests.state()[name] == state[name]
    return found


def test_activated_by_the_irqchip() -> None:
    guests = Guests("v3")
    guests("vm create g irqchip=none")
    assert guests.state()["apicv_state"] == DISABLED
    assert guests("g irqchip") == []
    assert guests.state()["apicv_state"] == ACTIVATED
    assert (guests.state()["flips_on"], guests.state()["access_page"]) == ("0", "absent")
    guests("g vcpu add")
    assert guests.state()["access_page"] == "present"


def test_never_on() -> None:
    guests = never_on()
    assert stays(guests, "g vcpu 0 cli", "g pit tick", "g vcpu 0 sti") == []
    assert stays(guests, "g vcpu 1 hv synic") == [f"{OFF}: vcpu=1, disable=disabled"]
    assert stays(guests, "g vcpu 1 cpuid svm=1") == []


def test_activated_to_suspended_and_back() -> None:
    guests = fresh()
    guests("g vcpu 0 cli")
    assert only(guests("g pit tick"), *PAIR) == [f"{OFF}: vcpu=0, disable=suspended"]
    assert guests.state()["apicv_state"] == SUSPENDED
    assert guests.state()["access_page"] == "absent"
    assert int(guests.vcpu(1)["req"], 16) == DEACTIVATE
    assert only(guests("g vcpu 0 sti"), *PAIR) == [f"{ON}: vcpu=0"]
    assert guests.state()["apicv_state"] == ACTIVATED
    assert guests.state()["access_page"] == "present"
    # The request that it never saw is gone; the other is a no-op for it.
    assert int(guests.vcpu(1)["req"], 16) == ACTIVATE
    assert guests.vcpu(1)["apicv_active"] == "1"


def test_activated_hears_no_vintr() -> None:
    """With AVIC on hardware ignores V_IRQ, so there is no such exit."""
    guests = fresh()
    assert stays(guests, "g vcpu 0 cli", "g vcpu 0 sti") == []


@pytest.mark.parametrize("cause", ["hv synic", "cpuid svm=1"])
def test_activated_to_disabled(cause: str) -> None:
    guests = fresh()
    lines = guests(f"g vcpu 1 {cause}")
    assert only(lines, *PAIR) == [f"{OFF}: vcpu=1, disable=disabled"]
    assert events(lines) == [OFF, "kvm_exit", "kvm_entry"]
    assert guests.state()["apicv_state"] == DISABLED
    assert (guests.state()["flips_off"], guests.state()["access_page"]) == ("1", "absent")


def test_suspended_asks_for_no_second_window() -> None:
    guests = suspended()
    assert stays(guests, "g pit tick", "g pit tick") == []


def test_suspended_refuses_synic_and_then_comes_back() -> None:
    """H2: switching SynIC on while AVIC is suspended does not stick."""
    guests = suspended()
    assert stays(guests, "g vcpu 1 hv synic") == [f"{OFF}: vcpu=1, disable=disabled"]
    assert only(guests("g vcpu 0 sti"), *PAIR) == [f"{ON}: vcpu=0"]
    assert guests.state()["apicv_state"] == ACTIVATED
    guests("g vcpu 1 start")
    assert guests.active(1)


def test_suspended_hears_of_svm_where_the_vcpu_still_has_avic() -> None:
    guests = suspended()
    assert guests.vcpu(1)["apicv_active"] == "1"
    assert stays(guests, "g vcpu 1 cpuid svm=1") == [f"{OFF}: vcpu=1, disable=disabled"]
    guests("g vcpu 1 start", "g vcpu 1 stop")
    assert guests.vcpu(1)["apicv_active"] == "0"
    assert stays(guests, "g vcpu 1 cpuid svm=1") == []


def test_disabled_for_good() -> None:
    guests = disabled()
    assert stays(guests, "g vcpu 0 cli", "g pit tick") == []
    assert stays(guests, "g vcpu 0 sti") == [f"{ON}: vcpu=0"]
    assert stays(guests, "g vcpu 1 hv synic") == [f"{OFF}: vcpu=1, disable=disabled"]
    # vCPU 1 has not run since, so it still has AVIC on.
    assert stays(guests, "g vcpu 1 cpuid svm=1") == [f"{OFF}: vcpu=1, disable=disabled"]
    guests("g vcpu 1 start", "g vcpu 1 stop")
    assert stays(guests, "g vcpu 1 cpuid svm=1") == []


def test_split_asks_for_a_window_too() -> None:
    guests = Guests("v3").boot(options="irqchip=split")
    guests("g vcpu 0 cli")
    assert only(guests("g extint 0x31"), *PAIR) == [f"{OFF}: vcpu=0, disable=suspended"]
    assert only(guests("g vcpu 0 sti"), *PAIR) == [f"{ON}: vcpu=0"]


def test_none_asks_for_no_window() -> None:
    guests = Guests("v3").boot(options="irqchip=none")
    guests("g vcpu 0 cli")
    assert only(guests("g extint 0x31"), *PAIR) == []
    assert guests.vcpu(0)["v_irq"] == "1"
    lines = guests("g vcpu 0 sti")
    assert only(lines, *PAIR) == []
    assert "kvm_inj_virq: irq 49" in lines


def test_blocked_vcpus_sleep_through_flips() -> None:
    guests = Guests("v3").boot(3).with_pic()
    guests("g vcpu 1 hlt", "g vcpu 2 hlt")
    guests.clear()
    guests("g vcpu 0 cli")
    lines = guests("g pit tick")
    assert [line for line in lines if "vcpu 1" in line or "vcpu 2" in line] == []
    assert int(guests.vcpu(1)["req"], 16) == DEACTIVATE
    guests("g vcpu 0 sti")
    assert int(guests.vcpu(1)["req"], 16) == ACTIVATE
    assert guests.counts(1, "exits", "halt_wakeup") == (0, 0)


def test_a_deactivation_is_seen_before_the_wake_up_is_finished() -> None:
    guests = Guests("v3").boot(2).with_pic()
    guests("g vcpu 1 hlt", "g vcpu 0 cli", "g pit tick")
    assert guests.vcpu(1)["apicv_active"] == "1"
    lines = guests("g vcpu 0 ipi dst=1 vec=0x40")
    assert events(lines)[-3:] == ["kvm_entry", "kvm_vcpu_wakeup", "kvm_entry"]
    assert guests.vcpu(1)["apicv_active"] == "0"
    # Taken off before it was marked, so the mark stays as HLT left it.
    assert guests.vcpu(1)["is_running"] == "0"
    # It woke for this vector, which now waits for an event.
    assert guests.vcpu(1)["irr"] == "0x40"


def test_a_deactivation_sets_no_event() -> None:
    """A vector in IRR waits for the next event, or for AVIC to come back."""
    guests = Guests("v3").boot(2).with_pic()
    guests("g vcpu 1 cli", "g vcpu 0 ipi dst=1 vec=0x40", "g vcpu 0 cli", "g pit tick")
    guests("g vcpu 1 sti")
    assert guests.vcpu(1)["irr"] == "0x40"
    assert guests.counts(1, "req_event", "irq_injections") == (0, 0)
    guests("g vcpu 0 sti")
    assert guests.vcpu(1)["isr"] == "0x40"
    assert guests.counts(1, "req_event", "irq_injections") == (0, 0)


def test_activation_brings_ids_up_to_date() -> None:
    guests = Guests("v3").boot(2).with_pic()
    guests("g vcpu 1 apic write 0xd0 0x2000000")
    assert guests.view("logid") == "1 0x80000001\n"
    guests("g vcpu 0 cli", "g pit tick", "g vcpu 1 apic write 0xd0 0x4000000")
    guests("g vcpu 1 apic write 0x20 0x5000000")
    assert guests.view("logid") == "1 0x80000001\n"
    assert [row.split()[0] for row in guests.view("physid").splitlines()] == ["0", "1"]
    guests("g vcpu 0 sti")
    assert guests.view("logid") == "2 0x80000005\n"
    assert [row.split()[0] for row in guests.view("physid").splitlines()] == ["0", "5"]


def test_h1_a_window_of_one_vcpu_ends_that_of_another() -> None:
    """vCPU 1's window re-activates AVIC while vCPU 0 still waits with V_IRQ, which then counts
    for nothing."""
    guests = Guests("v3").boot(2).with_pic()
    guests("g ioapic 5 vec=0x35 dst=1", "g vcpu 1 cli", "g vcpu 0 cli", "g pit tick")
    # AVIC is off, so the IOAPIC's interrupt needs a window on vCPU 1.
    guests("g pulse 5")
    assert guests.vcpu(1)["v_irq"] == "1"
    assert only(guests("g vcpu 1 sti"), *PAIR) == [f"{ON}: vcpu=1"]
    assert guests.vcpu(0)["v_irq"] == "1"
    assert guests.active(0)
    lines = guests("g vcpu 0 sti")
    assert lines == []
    assert guests.counts(0, "irq_injections") == (0,)
    assert "output 1" in guests.view("pic")
    # Any event of its own makes it look again.
    lines = guests("g vcpu 1 ipi dst=0 vec=0 dm=nmi")
    assert only(lines, "kvm_inj_virq") == ["kvm_inj_virq: irq 48", "kvm_inj_virq: irq 48"]


def test_h1_does_not_happen_where_windows_are_counted() -> None:
    guests = Guests("7.x").boot(2, "reinject=0").with_pic()
    guests("g ioapic 5 vec=0x35 dst=1", "g vcpu 1 cli", "g vcpu 0 cli", "g pit tick", "g pulse 5")
    guests("g vcpu 1 sti")
    assert not guests.active(0)
    assert "kvm_inj_virq: IRQ 0x30" in guests("g vcpu 0 sti")


def test_h3_a_stale_mark_is_warned_about() -> None:
    guests = Guests("v3").boot(2).with_pic()
    guests("g vcpu 0 cli", "g pit tick", "g vcpu 1 hlt")
    assert guests.vcpu(1)["is_running"] == "1"
    guests("g vcpu 0 sti")
    assert guests.warnings() == ""
    guests("g vcpu 0 ipi dst=1 vec=0x40 dm=lowest")
    assert guests.warnings().startswith("1 WARNING: avic_vcpu_load")
    guests("g vcpu 0 cli", "g vcpu 0 piceoi", "g pit tick", "g vcpu 1 iret", "g vcpu 1 eoi")


def test_h3_a_doorbell_rings_in_vain() -> None:
    """The entry says running, so nobody wakes the vCPU that sleeps."""
    guests = Guests("v3").boot(2).with_pic()
    guests("g vcpu 0 cli", "g pit tick", "g vcpu 1 hlt", "g vcpu 0 sti")
    assert guests("g vcpu 0 ipi dst=1 vec=0x40") == []
    assert guests.vcpu(1)["run"] == "halted"
    assert guests.vcpu(1)["irr"] == "0x40"


@pytest.mark.parametrize("kernel", ["6.1", "6.12", "6.18", "7.x"])
def test_h3_is_mended(kernel: str) -> None:
    guests = Guests(kernel).boot(2, "reinject=0").with_pic()
    guests("g vcpu 0 cli", "g pit tick")
    assert guests.vcpu(1)["is_running"] == "0"
    guests("g vcpu 1 hlt", "g vcpu 0 sti")
    guests("g vcpu 0 ipi dst=1 vec=0x40")
    assert guests.vcpu(1)["isr"] == "0x40"
    assert guests.warnings() == ""


def timer_at_ioapic(kernel: str = "v3", vcpus: int = 1, handler: str = "manual") -> Guests:
    """The PICs are masked; the timer goes to vCPU 0 through pin 2."""
    guests = Guests(kernel).boot(vcpus, handler=handler)
    guests("g vcpu 0 lvt0 masked", "g pic base=0x30 imr=0xffff", "g ioapic 2 vec=0x30")
    return guests


def test_h4_the_timer_stalls_at_the_ioapic() -> None:
    """The only acknowledgement is the lazy one within the next tick; one tick too early and
    there never is another."""
    guests = timer_at_ioapic()
    guests("g pit tick")
    assert guests.vcpu(0)["isr"] == "0x30"
    assert guests.view("pit") == "reinject 1\nirq_ack 1\npending 0\n"
    # It has not been EOIed yet.
    lines = guests("g pit tick")
    assert only(lines, "kvm_ack_irq") == []
    assert guests.view("pit") == "reinject 1\nirq_ack 0\npending 1\n"
    for _ in range(2):
        guests("g vcpu 0 eoi", "g vcpu 0 iret")
    assert guests("g pit tick 100") == []
    assert guests.vcpu(0)["irr"] == guests.vcpu(0)["isr"] == "-"
    assert guests.view("pit") == "reinject 1\nirq_ack 0\npending 101\n"
    guests("g pit load")
    assert only(guests("g pit tick"), "kvm_set_irq") != []


def test_h4_ends_when_the_pin_is_unmasked_anew() -> None:
    guests = timer_at_ioapic()
    guests("g pit tick 2")
    assert guests("g pit tick") == []
    guests("g ioapic 2 mask=1", "g ioapic 2 mask=0")
    assert guests.view("pit") == "reinject 1\nirq_ack 1\npending 0\n"


@pytest.mark.parametrize("kernel", ["5.6", "6.1", "6.12", "6.18", "7.x"])
def test_h4_is_why_reinjection_inhibits(kernel: str) -> None:
    guests = timer_at_ioapic(kernel)
    guests("g pit tick 2")
    assert guests.view("pit") == "reinject 1\nirq_ack 0\npending 2\n"
    # Every EOI is seen: the tick that waited comes with the first.
    guests("g vcpu 0 eoi")
    assert guests.view("pit") == "reinject 1\nirq_ack 0\npending 1\n"
    guests("g vcpu 0 iret")
    guests("g vcpu 0 eoi", "g vcpu 0 iret")
    assert guests.view("pit") == "reinject 1\nirq_ack 1\npending 0\n"
    assert only(guests("g pit tick"), "kvm_set_irq") != []


def test_h4_does_not_happen_through_the_pic() -> None:
    guests = Guests("v3").boot(1).with_pic()
    for _ in range(3):
        assert only(guests("g pit tick"), "kvm_set_irq") != []
    guests("g vcpu 0 piceoi")
    assert guests.view("pit") == "reinject 1\nirq_ack 1\npending 0\n"


def clock_of_two(kernel: str = "v3") -> Guests:
    guests = timer_at_ioapic(kernel, 2, handler="auto")
    guests("g pit reinject 0", "g ioapic 8 vec=0x28 dst=3 mode=logical")
    guests("g vcpu 0 apic write 0xd0 0x1000000", "g vcpu 1 apic write 0xd0 0x2000000")
    return guests


def test_h5_the_clock_of_two_vcpus_never_ends() -> None:
    """One lazy step frees the same first vCPU every time."""
    guests = clock_of_two()
    guests("g rtc tick")
    assert guests.state()["rtc_pending_eoi"] == "2"
    for _ in range(3):
        lines = guests("g rtc tick")
        assert any(line.endswith("(coalesced)") for line in only(lines, "kvm_ioapic_set_irq"))
        assert guests.last() == "ok coalesced=1"
        assert guests.state()["rtc_pending_eoi"] == "1"


def test_h5_needs_avic() -> None:
    guests = clock_of_two()
    guests("g vcpu 1 stop", "g vcpu 1 hv synic", "g vcpu 1 start")
    guests("g rtc tick 3")
    assert guests.last() == "ok coalesced=0"
    assert guests.state()["rtc_pending_eoi"] == "0"


def test_h5_needs_two_destinations() -> None:
    guests = clock_of_two()
    guests("g ioapic 8 vec=0x28 dst=1 mode=phys", "g rtc tick 5")
    assert guests.last() == "ok coalesced=0"
    assert guests.state()["rtc_pending_eoi"] == "1"

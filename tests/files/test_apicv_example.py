"""One window, from the tick that cannot be delivered to the PIC's EOI, line by line."""

from __future__ import annotations

from tests.avic_kit import EXIT, FOLDER, Guests, events, only

PAIR = ("kvm_apicv_activate_request", "kvm_apicv_deactivate_request")
INHIBIT = "kvm_apicv_inhibit_changed"

TICK = """\
kvm_set_irq: gsi 0 level 1 source 2
kvm_pic_set_irq: chip 0 pin 0 (edge)
kvm_ack_irq: irqchip IOAPIC pin 2
kvm_ioapic_set_irq: pin 2 dst 0 vec 0 (Fixed|physical|edge|masked)
kvm_set_irq: gsi 0 level 0 source 2
kvm_pic_set_irq: chip 0 pin 0 (edge)
kvm_ioapic_set_irq: pin 2 dst 0 vec 0 (Fixed|physical|edge|masked)
kvm_exit: reason interrupt rip 0xffffffff81000000 info 0 0
kvm_apicv_deactivate_request: vcpu=0, disable=suspended
kvm_exit: reason interrupt rip 0xffffffff81000000 info 0 0
kvm_entry: vcpu 0
kvm_entry: vcpu 1"""

STI = """\
kvm_exit: reason vintr rip 0xffffffff81000000 info 0 0
kvm_apicv_activate_request: vcpu=0
kvm_exit: reason interrupt rip 0xffffffff81000000 info 0 0
kvm_inj_virq: irq 48
kvm_inj_virq: irq 48
kvm_entry: vcpu 0
kvm_entry: vcpu 1"""

PICEOI = """\
kvm_exit: reason io rip 0xffffffff81000000 info 200210 ffffffff81000002
kvm_pio: pio_write at 0x20 size 1 count 1 val 0x20\x20
kvm_ack_irq: irqchip PIC master pin 0
kvm_entry: vcpu 0"""

COUNTERS = ("exits", "irq_exits", "irq_window_exits", "io_exits", "irq_injections", "req_event")


def test_the_third_version_line_by_line() -> None:
    guests = Guests("v3").boot(options="pit=1").with_pic()
    assert guests.state()["apicv_state"] == "2 ACTIVATED"
    assert guests("g vcpu 0 cli") == []
    assert guests("g pit tick") == TICK.splitlines()
    state = guests.state()
    assert state["apicv_state"] == "1 SUSPENDED"
    assert state["access_page"] == "absent"
    for number in (0, 1):
        vcpu = guests.vcpu(number)
        assert (vcpu["apicv_active"], vcpu["avic_en"], vcpu["is_running"]) == ("0", "0", "1")
    assert guests.vcpu(0)["v_irq"] == "1"
    assert guests("g vcpu 0 sti") == STI.splitlines()
    assert guests.state()["apicv_state"] == "2 ACTIVATED"
    assert guests.state()["access_page"] == "present"
    assert [guests.active(number) for number in (0, 1)] == [True, True]
    assert guests.vcpu(0)["v_irq"] == "0"
    assert "master base=0x30 irr=0x00 isr=0x01" in guests.view("pic")
    assert guests("g vcpu 0 piceoi") == PICEOI.splitlines()
    assert guests.counts(0, *COUNTERS) == (3, 1, 1, 1, 2, 4)
    assert guests.counts(1, *COUNTERS) == (2, 2, 0, 0, 0, 0)
    assert guests.sums("exits", "irq_exits") == (5, 3)
    state = guests.state()
    assert (state["flips_off"], state["flips_on"], state["memslot_updates"]) == ("1", "1", "4")


def test_creation_in_the_third_version_is_silent_about_apicv() -> None:
    guests = Guests("v3")
    guests("vm create g irqchip=kernel pit=1")
    assert events(guests.lines) == ["kvm_update_master_clock"]
    assert guests.state()["apicv_state"] == "2 ACTIVATED"
    assert only(guests("g vcpu add count=2"), *PAIR) == []


def test_the_recent_kernel() -> None:
    guests = Guests("6.18")
    assert only(guests("vm create g irqchip=kernel pit=1 reinject=0"), INHIBIT) == [
        f"{INHIBIT}: set reason=2, inhibits=0x4 ABSENT",
        f"{INHIBIT}: cleared reason=2, inhibits=0x0",
        f"{INHIBIT}: set reason=9, inhibits=0x200 PIT_REINJ",
        f"{INHIBIT}: cleared reason=9, inhibits=0x0",
    ]
    assert only(guests("g vcpu add count=2"), INHIBIT) == []
    guests("g vcpu 1 start")
    guests.with_pic()
    guests("g vcpu 0 cli")
    window = f"{INHIBIT}: set reason=8, inhibits=0x100 IRQWIN"
    assert only(guests("g pit tick"), INHIBIT) == [window, window]
    lines = guests("g vcpu 0 sti")
    assert only(lines, INHIBIT) == [f"{INHIBIT}: cleared reason=8, inhibits=0x0"]
    assert only(lines, "kvm_inj_virq") == ["kvm_inj_virq: IRQ 0x30"]
    guests("g vcpu 0 piceoi")
    assert guests.counts(0, "exits", "req_event", "irq_injections") == (3, 3, 1)
    assert guests.counts(1, "req_event") == (1,)


def test_as_merged() -> None:
    guests = Guests("5.6")
    request = "kvm_apicv_update_request"
    assert only(guests("vm create g pit=1 reinject=0"), request) == [
        f"{request}: deactivate bit=4",
        f"{request}: activate bit=4",
    ]
    guests("g vcpu add count=2", "g vcpu 1 start")
    guests.with_pic()
    guests("g vcpu 0 cli")
    assert only(guests("g pit tick"), request) == [f"{request}: deactivate bit=3"]
    assert only(guests("g vcpu 0 sti"), request) == [f"{request}: activate bit=3"]


def test_counted_windows() -> None:
    guests = Guests("7.x").boot(options="reinject=0").with_pic()
    guests("g vcpu 0 cli")
    assert only(guests("g pit tick"), INHIBIT) == [
        f"{INHIBIT}: set reason=8, inhibits=0x100 IRQWIN"
    ]
    assert guests.state()["irq_window_req"] == "1"
    lines = only(guests("g vcpu 0 sti"), INHIBIT, "kvm_inj_virq")
    # The window ends with the injection, whose entry the request then cancels.
    assert lines == [
        f"{INHIBIT}: cleared reason=8, inhibits=0x0",
        "kvm_inj_virq: IRQ 0x30",
        "kvm_inj_virq: IRQ 0x30 [reinjected]",
    ]
    assert guests.state()["irq_window_req"] == "0"


def test_a_reason_of_its_own_line_looks_at_counted_windows_again() -> None:
    guests = Guests("7.x")
    assert only(guests("vm create g pit=0"), INHIBIT) == [
        f"{INHIBIT}: set reason=2, inhibits=0x4 ABSENT",
        f"{INHIBIT}: cleared reason=2, inhibits=0x0",
        f"{INHIBIT}: cleared reason=8, inhibits=0x0",
    ]


def test_an_interrupt_that_fits_at_once_flips_nothing() -> None:
    for kernel in ("v3", "5.6", "6.1", "6.12", "6.18", "7.x"):
        guests = Guests(kernel).boot(options="reinject=0").with_pic()
        lines = guests("g pit tick")
        assert only(lines, INHIBIT, "kvm_apicv_update_request", *PAIR) == []
        assert only(lines, "kvm_inj_virq") != []


def test_the_trace_file_shows_the_same() -> None:
    guests = Guests("v3").boot(options="pit=1").with_pic()
    machine = guests.machine
    tracing = "sys/kernel/tracing"
    machine.write(f"{tracing}/set_event", "kvm:*")
    machine.write(f"{tracing}/trace", "")
    guests("g vcpu 0 cli", "g pit tick")
    shown = [
        line.split(": ", 1)[1]
        for line in machine.read(f"{tracing}/trace").splitlines()
        if not line.startswith("#")
    ]
    assert shown == TICK.splitlines()
    assert EXIT.format("interrupt", 0, 0) in shown
    assert machine.read(f"{FOLDER}/last") == "ok\n"

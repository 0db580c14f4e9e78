"""How each kernel writes the events of interrupt virtualization."""

from __future__ import annotations

import pytest

from tests.avic_kit import KERNELS, Guests, formats

OLD = ("v3", "5.6")
# Events that not every kernel has.
SOME = {
    "kvm_apicv_activate_request": ("v3",),
    "kvm_apicv_deactivate_request": ("v3",),
    "kvm_apicv_update_request": ("5.6",),
    "kvm_apicv_inhibit_changed": ("6.1", "6.12", "6.18", "7.x"),
    "kvm_apicv_accept_irq": ("6.1", "6.12", "6.18", "7.x"),
    "kvm_avic_kick_vcpu_slowpath": ("6.1", "6.12", "6.18", "7.x"),
    "kvm_avic_doorbell": ("6.1", "6.12", "6.18", "7.x"),
    "kvm_avic_incomplete_ipi": KERNELS,
    "kvm_avic_unaccelerated_access": KERNELS,
    "kvm_avic_ga_log": ("6.1", "6.12", "6.18", "7.x"),
}


@pytest.mark.parametrize("kernel", KERNELS)
def test_which_events_there_are(kernel: str) -> None:
    guests = Guests(kernel)
    known = {event.event for _, event in formats(guests.machine.subsystems.kvm.features)}
    tracing = set(guests.machine.listdir("sys/kernel/tracing/events/kvm"))
    for name, kernels in SOME.items():
        assert (name in known) == (name in tracing) == (kernel in kernels)


def starts(lines: list[str], name: str) -> str:
    return next(line for line in lines if line.startswith(f"{name}: "))


RIP = "rip 0xffffffff81000000"
ENTRY = {
    "v3": "kvm_entry: vcpu 1",
    "5.6": "kvm_entry: vcpu 1",
    "6.1": f"kvm_entry: vcpu 1, {RIP}",
    "6.12": f"kvm_entry: vcpu 1, {RIP}",
    "6.18": f"kvm_entry: vcpu 1, {RIP} intr_info 0x00000000 error_code 0x00000000",
}
REGISTERS = (
    f"{RIP} info1 0x0000000000000000 info2 0x0000000000000000 intr_info 0x00000000"
    " error_code 0x00000000"
)
EXIT = {
    "v3": f"kvm_exit: reason interrupt {RIP} info 0 0",
    "5.6": f"kvm_exit: vcpu 1 reason interrupt {RIP} info 0 0",
    "6.1": f"kvm_exit: vcpu 1 reason interrupt {REGISTERS}",
    "6.12": f"kvm_exit: vcpu 1 reason interrupt {REGISTERS}",
    "6.18": f"kvm_exit: vcpu 1 reason interrupt {REGISTERS} requests 0x0000000000000000",
}
for table in (ENTRY, EXIT):
    table["7.x"] = table["6.18"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_entry_and_exit(kernel: str) -> None:
    guests = Guests(kernel).boot(2)
    assert guests("g vcpu 1 preempt") == [EXIT[kernel]]
    entry = ENTRY[kernel].split(" intr_info")[0]
    assert guests("g vcpu 1 resume")[0].startswith(entry)


@pytest.mark.parametrize("kernel", KERNELS)
def test_injection(kernel: str) -> None:
    guests = Guests(kernel).boot(1, "irqchip=none")
    lines = guests("g extint 0x31")
    text = "irq 49" if kernel in OLD else "IRQ 0x31"
    assert starts(lines, "kvm_inj_virq") == f"kvm_inj_virq: {text}"
    entry = starts(lines, "kvm_entry")
    # The vector is in EVENTINJ.
    assert ("intr_info 0x80000031" in entry) == (kernel in ("6.18", "7.x"))


@pytest.mark.parametrize("kernel", KERNELS)
def test_level_of_ipis(kernel: str) -> None:
    guests = Guests(kernel).boot(2)
    lines = guests("g vcpu 0 ipi dst=1 vec=0 dm=init-deassert")
    shown = "edge" if kernel == "v3" else "level"
    assert starts(lines, "kvm_apic_accept_irq") == (
        f"kvm_apic_accept_irq: apicid 1 vec 0 (INIT|{shown})"
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_numbers_of_zero(kernel: str) -> None:
    """The kernel's printf writes 0x before a zero, too."""
    guests = Guests(kernel).boot(3, "reinject=0")
    guests("g vcpu 1 hlt")
    lines = guests("g vcpu 0 ipi sh=others vec=0x40")
    assert "icrh:icrl=0x00000000:000c0040" in starts(lines, "kvm_avic_incomplete_ipi")
    if kernel not in OLD:
        assert "icrh:icrl=0x000000:000c0040" in starts(lines, "kvm_avic_kick_vcpu_slowpath")
    guests("g vcpu 0 apic write 0x310 0x1000000", "g vcpu 2 hlt")


@pytest.mark.parametrize("kernel", KERNELS)
def test_pins(kernel: str) -> None:
    guests = Guests(kernel).boot(1, "reinject=0")
    guests("g vcpu 0 lvt0 masked", "g pic base=0x30 imr=0xffff")
    guests("g ioapic 5 vec=0x35 dst=1 mode=logical trig=level dm=lowest mask=1")
    lines = guests("g irq 5 1")
    assert starts(lines, "kvm_ioapic_set_irq") == (
        "kvm_ioapic_set_irq: pin 5 dst 1 vec 53 (LowPrio|logical|level|masked)"
    )
    assert starts(lines, "kvm_pic_set_irq") == "kvm_pic_set_irq: chip 0 pin 5 (edge|masked)"
    assert starts(lines, "kvm_set_irq") == "kvm_set_irq: gsi 5 level 1 source 0"

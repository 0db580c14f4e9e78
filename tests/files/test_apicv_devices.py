"""Assigned devices and their posted interrupts; what differs with the irqchip elsewhere."""

from __future__ import annotations

from errno import EBUSY, EEXIST, EINVAL, ENODEV, ENOENT, ENXIO

import pytest

from tests.avic_kit import KERNELS, NEW, Guests, events, only

OLD = ("v3", "5.6")
ADD = "g dev add d irq=40 gsi=24 vec=0x41 dst=1"
GA_LOG = "kvm_avic_ga_log"


def ga_log(kernel: str, vmid: int, vcpuid: int) -> list[str]:
    """The line of an entry of the log, in kernels that trace it."""
    return [] if kernel in ("v3", "5.6") else [f"{GA_LOG}: vmid={vmid}, vcpuid={vcpuid}"]


IRTE = "kvm_pi_irte_update"
MSI = "kvm_msi_set_irq"


def assigned(kernel: str, options: str = "reinject=0", vcpus: int = 2) -> Guests:
    guests = Guests(kernel).boot(vcpus, options)
    guests("g vcpu 0 lvt0 masked")
    guests.clear()
    return guests


def mode(guests: Guests) -> str:
    words = dict(word.split("=") for word in guests.view("irtes").split()[1:])
    return words["mode"]


def flip_off(guests: Guests) -> None:
    """AVIC off for a while, by a window on vCPU 0."""
    guests("g pic base=0x30 imr=0", "g vcpu 0 lvt0 extint", "g vcpu 0 cli", "g pit tick")
    assert not guests.active(1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_added_for_one_vcpu_with_avic(kernel: str) -> None:
    guests = assigned(kernel)
    lines = guests(ADD)
    assert lines[0] == f"{MSI}: dst 1 vec 65 (Fixed|physical|edge)"
    assert events(lines) == [MSI, IRTE]
    prefix = "PI is" if kernel in ("6.12", "6.18", "7.x") else "VT-d PI is"
    assert lines[1].startswith(
        f"{IRTE}: {prefix} enabled and being updated for irq 40, vcpu 1, gsi: 0x18, gvec: 0x41"
    )
    tag = {"v3": 0x101, "5.6": 0x101}.get(kernel, 0x201)
    assert guests.view("irtes") == (
        f"d irq=40 gsi=24 vec=0x41 dst=0x1 mode=ga vcpu=1 tag={tag:#x}\n"
    )
    assert guests.vcpu(1)["ir"] == "1"


@pytest.mark.parametrize("route", ["dst=255", "dst=1 dm=smi", "dst=1 dm=nmi", "dst=9"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_added_for_anything_else(kernel: str, route: str) -> None:
    guests = assigned(kernel)
    lines = guests(f"g dev add d irq=40 gsi=24 vec=0x41 {route}")
    assert events(lines) == [MSI]
    assert mode(guests) == "legacy"
    assert guests.vcpu(1)["ir"] == "0"


@pytest.mark.parametrize("kernel", KERNELS)
def test_added_while_avic_is_off_stays_legacy(kernel: str) -> None:
    guests = assigned(kernel)
    flip_off(guests)
    assert events(guests(ADD)) == [MSI]
    guests("g vcpu 0 sti")
    assert guests.active(1)
    assert mode(guests) == "legacy"
    guests("g dev route d vec=0x42 dst=1")
    assert mode(guests) == "ga"


@pytest.mark.parametrize("kernel", KERNELS)
def test_switched_with_the_vcpu(kernel: str) -> None:
    guests = assigned(kernel)
    guests(ADD)
    flip_off(guests)
    assert mode(guests) == "legacy"
    assert guests.vcpu(1)["ir"] == "1"
    lines = guests("g vcpu 0 sti")
    assert only(lines, IRTE, MSI) == []
    assert mode(guests) == "ga"


@pytest.mark.parametrize("kernel", KERNELS)
def test_routed_elsewhere(kernel: str) -> None:
    guests = assigned(kernel)
    guests(ADD)
    assert events(guests("g dev route d vec=0x42 dst=0")) == [MSI, IRTE]
    assert (guests.vcpu(0)["ir"], guests.vcpu(1)["ir"]) == ("1", "0")
    guests("g dev route d vec=0x42 dst=255")
    assert (guests.vcpu(0)["ir"], mode(guests)) == ("0", "legacy")
    guests("g vcpu 0 apic write 0xd0 0x4000000", "g dev route d vec=0x43 dst=4 mode=logical")
    assert (guests.vcpu(0)["ir"], mode(guests)) == ("1", "ga")
    assert guests.lines[0] == f"{MSI}: dst 4 vec 67 (Fixed|logical|edge)"


@pytest.mark.parametrize("kernel", KERNELS)
def test_fired_at_a_running_vcpu(kernel: str) -> None:
    guests = assigned(kernel)
    guests(ADD)
    assert guests("g dev fire d") == []
    assert guests.vcpu(1)["isr"] == "0x41"
    assert guests.sums("exits", "irq_injections", "req_event") == (0, 0, 0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_fired_at_a_halted_vcpu(kernel: str) -> None:
    guests = assigned(kernel)
    guests(ADD, "g vcpu 1 hlt")
    lines = guests("g dev fire d")
    traced = ga_log(kernel, 1, 1)
    assert lines[: len(traced)] == traced
    assert events(lines[len(traced) :]) == ["kvm_vcpu_wakeup", "kvm_entry"]
    assert guests.vcpu(1)["isr"] == "0x41"
    assert guests.counts(1, "halt_wakeup", "irq_injections") == (1, 0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_fired_at_a_preempted_vcpu(kernel: str) -> None:
    guests = assigned(kernel)
    guests(ADD, "g vcpu 1 preempt")
    assert guests("g dev fire d") == ga_log(kernel, 1, 1)
    guests("g vcpu 1 resume")
    assert guests.vcpu(1)["isr"] == "0x41"


@pytest.mark.parametrize("kernel", KERNELS)
def test_fired_without_avic(kernel: str) -> None:
    guests = assigned(kernel)
    guests(ADD)
    flip_off(guests)
    lines = guests("g dev fire d")
    assert lines[:2] == [
        f"{MSI}: dst 1 vec 65 (Fixed|physical|edge)",
        "kvm_apic_accept_irq: apicid 1 vec 65 (Fixed|edge)",
    ]
    assert guests.counts(1, "irq_injections") == (1,)


@pytest.mark.parametrize("kernel", KERNELS)
def test_taken_away(kernel: str) -> None:
    guests = assigned(kernel)
    guests(ADD)
    lines = guests("g dev del d")
    assert "disabled for irq 40" in lines[-1]
    assert guests.view("irtes") == ""
    assert guests.vcpu(1)["ir"] == "0"
    guests.refuses(ENOENT, "g dev fire d")
    guests("g dev add d irq=40 gsi=24 vec=0x41 dst=255")
    assert guests("g dev del d") == []


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_ga_log(kernel: str) -> None:
    guests = assigned(kernel)
    guests("g vcpu 1 hlt")
    assert guests("galog vmid=7 vcpu=1") == ga_log(kernel, 7, 1)
    assert guests("galog vmid=1 vcpu=9") == ga_log(kernel, 1, 9)
    assert guests.vcpu(1)["run"] == "halted"
    # Woken, it finds nothing to do.
    assert guests("galog vmid=1 vcpu=1") == ga_log(kernel, 1, 1)
    assert guests.counts(1, "halt_wakeup") == (1,)
    assert guests.vcpu(1)["run"] == "halted"


def test_avic_ids_of_vms() -> None:
    guests = Guests("v3")
    guests("vm create a", "vm create b", "vm destroy a", "vm create c", "c vcpu add")
    guests("c dev add d irq=1 gsi=24 vec=0x41 dst=0")
    assert "tag=0x300" in guests.view("irtes", "c")


# --- Where the irqchip is ---


@pytest.mark.parametrize("kernel", KERNELS)
def test_split_takes_a_vector_at_once(kernel: str) -> None:
    guests = assigned(kernel, "irqchip=split")
    guests("g vcpu 0 lvt0 extint")
    guests.clear()
    lines = guests("g extint 0x31")
    name = "irq 49" if kernel in OLD else "IRQ 0x31"
    assert f"kvm_inj_virq: {name}" in lines
    assert guests.counts(0, "exits", "irq_window_exits", "request_irq_exits", "req_event") == (
        1, 0, 0, 1,
    )  # fmt: skip
    assert guests.active()


@pytest.mark.parametrize("kernel", KERNELS)
def test_split_asks_for_a_window(kernel: str) -> None:
    guests = assigned(kernel, "irqchip=split")
    guests("g vcpu 0 lvt0 extint", "g vcpu 0 cli")
    guests.clear()
    guests("g extint 0x31")
    assert guests.counts(0, "exits", "req_event") == (1, 1 if kernel in OLD else 2)
    assert not guests.active(0)
    assert guests.vcpu(0)["v_irq"] == "1"
    lines = guests("g vcpu 0 sti")
    assert "kvm_userspace_exit: reason KVM_EXIT_IRQ_WINDOW_OPEN (7)" in lines
    name = "irq 49" if kernel in OLD else "IRQ 0x31"
    assert only(lines, "kvm_inj_virq")[0] == f"kvm_inj_virq: {name}"
    assert guests.counts(0, "irq_window_exits", "request_irq_exits") == (1, 1)
    assert guests.active(0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_none_has_interrupts_from_user_space_only(kernel: str) -> None:
    guests = Guests(kernel).boot(1, "irqchip=none")
    lines = guests("g extint 0x31")
    assert only(lines, "kvm_inj_virq") != []
    guests("g vcpu 0 cli", "g extint 0x32")
    guests.refuses(EEXIST, "g extint 0x33")
    lines = guests("g vcpu 0 sti")
    assert guests.counts(0, "request_irq_exits") == (1,)
    assert only(lines, "kvm_inj_virq") != []
    for verb in ("apic read 0x30", "eoi", "ipi dst=0 vec=0x40", "lvt0 masked", "apicbase off"):
        guests.refuses(ENODEV, f"g vcpu 0 {verb}")


def test_a_halted_vcpu_is_woken_by_user_space() -> None:
    guests = assigned("v3", "irqchip=split")
    guests("g vcpu 0 lvt0 extint", "g vcpu 0 hlt")
    lines = guests("g extint 0x31")
    assert "kvm_inj_virq: irq 49" in lines
    assert guests.vcpu(0)["run"] == "guest"
    guests("g vcpu 0 cli", "g vcpu 0 hlt", "g extint 0x31")
    assert guests.vcpu(0)["run"] == "halted"


def test_who_can_queue_a_vector() -> None:
    guests = assigned("v3")
    guests.refuses(ENXIO, "g extint 0x31")
    guests("vm create s irqchip=split")
    guests.refuses(EINVAL, "s extint 0x31")
    guests("s vcpu add", "s vcpu 0 stop")
    guests.refuses(EBUSY, "s extint 0x31")
    guests.refuses(ENOENT, "x extint 0x31")


@pytest.mark.parametrize("kernel", NEW)
def test_a_nested_guest_is_interrupted_without_the_apic(kernel: str) -> None:
    guests = assigned(kernel)
    guests(ADD, "g vcpu 1 stop", "g vcpu 1 cpuid svm=1", "g vcpu 1 start", "g vcpu 1 nested vmrun")
    assert mode(guests) == "legacy"
    lines = guests("g dev fire d")
    assert "kvm_inj_virq: IRQ 0x41" in lines
    guests("g vcpu 1 nested vmexit")
    assert mode(guests) == "ga"

"""Interrupt lines of devices through PIC and IOAPIC to local APICs, and the way of EOIs back.

Like virt/kvm/irqchip.c:kvm_set_irq, arch/x86/kvm/ioapic.c, i8254.c (v6.1). GSI routing is the one
that QEMU sets: GSI 0 to PIC pin 0 and IOAPIC pin 2, GSI 1-15 to both (2 to the PIC only).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from fakesys.subsystems.apicv.chips.ioapic import RTC_PIN, Ioapic, PinResult, RedirectEntry
from fakesys.subsystems.apicv.chips.lapic import Mode
from fakesys.subsystems.apicv.chips.pic import Pic
from fakesys.subsystems.apicv.chips.pit import PIT_SOURCE
from fakesys.subsystems.apicv.engine import delivery, requests
from fakesys.subsystems.apicv.engine.delivery import LEVEL_PIN, LapicIrq
from fakesys.subsystems.apicv.state.policy import LazyEoi
from fakesys.subsystems.apicv.state.vcpu import ApicVcpu
from fakesys.subsystems.apicv.state.vm import ApicVm

PIT_GSI = 0
PIT_IOAPIC_PIN = 2
USER_SOURCE = 0
"""Interrupt source id of KVM_IRQ_LINE: KVM_USERSPACE_IRQ_SOURCE_ID."""
STORM_PAUSE = 0.01
"""Seconds until a storming level pin is delivered again: HZ / 100."""


class IrqchipId(Enum):
    """The irqchips by their number in the event kvm_ack_irq."""

    PIC_MASTER = 0
    PIC_SLAVE = 1
    IOAPIC = 2


def make_controllers(vm: ApicVm) -> None:
    """Create PIC and IOAPIC, as KVM_CREATE_IRQCHIP does."""
    vm.ioapic = Ioapic()
    vm.pic = Pic(
        wake=lambda: wake_for_pic(vm),
        acked=lambda pin: _notify_pic_acked(vm, pin),
        wakes_for_nothing=vm.policy.pic_wakes_for_nothing,
    )


def _notify_pic_acked(vm: ApicVm, pin: int) -> None:
    notify_acked_irq(vm, IrqchipId.PIC_MASTER if pin < 8 else IrqchipId.PIC_SLAVE, pin)


def wake_for_pic(vm: ApicVm) -> None:
    """Make the first vCPU that accepts interrupts of the PIC look at its output.

    Like i8259.c:pic_unlock (v6.1).
    """
    for vcpu in vm.vcpus.values():
        if vcpu.lapic.accepts_pic:
            requests.request_event(vm, vcpu)
            return


def set_irq(
    vm: ApicVm, gsi: int, *, high: bool, source: int = USER_SOURCE, status: bool = False
) -> int:
    """Raise or lower a GSI. Like virt/kvm/irqchip.c:kvm_set_irq (v6.1).

    Returns how many vCPUs and chips took the interrupt, summed over the routes of the GSI: 0 if
    it was coalesced, -1 if it is masked at each. `status`: the caller is told, so the ticks of
    the RTC are checked for lost EOIs.
    """
    vm.tracer.kvm_set_irq(gsi, source, high=high)
    result = -1
    for taken in _set_routes(vm, gsi, source, high=high, status=status):
        if taken >= 0:
            result = taken + max(result, 0)
    return result


def _set_routes(vm: ApicVm, gsi: int, source: int, *, high: bool, status: bool) -> Iterator[int]:
    if vm.pic is not None and gsi < 16:
        chip = vm.pic.chip_of(gsi)

        def traced(result: int) -> None:
            vm.tracer.kvm_pic_set_irq(chip, gsi, coalesced=result == 0)

        yield vm.pic.set_irq(gsi, source, level=high, traced=traced)
    pin = PIT_IOAPIC_PIN if gsi == PIT_GSI else gsi
    if vm.ioapic is not None and gsi != PIT_IOAPIC_PIN:
        yield _set_ioapic(vm, vm.ioapic, pin, source, high=high, status=status)


def _set_ioapic(
    vm: ApicVm, ioapic: Ioapic, pin: int, source: int, *, high: bool, status: bool
) -> int:
    line_is_high = ioapic.set_source(pin, source, level=high)
    before = vm.tracer.ioapic_bits(ioapic.pins[pin])
    result = _raise(vm, ioapic, pin, status=status) if line_is_high else 1
    if not line_is_high:
        ioapic.lower(pin)
    vm.tracer.kvm_ioapic_set_irq(before, pin, coalesced=result == 0)
    return result


def _raise(vm: ApicVm, ioapic: Ioapic, pin: int, *, status: bool) -> int:
    _lazy_update_eoi(vm, ioapic, pin)
    if pin == RTC_PIN and status and vm.rtc.pending_eoi > 0:
        return 0
    raised = ioapic.raise_pin(pin)
    if raised is PinResult.COALESCED:
        return 0
    return send(vm, ioapic, pin, status=status) if raised is PinResult.DELIVER else -1


def send(vm: ApicVm, ioapic: Ioapic, pin: int, *, status: bool = False) -> int:
    """Deliver the interrupt of a pin; return how many vCPUs got it, -1 for none.

    Precondition: `Ioapic.service` of the pin returned DELIVER. Like ioapic.c:ioapic_service (v6.1).
    """
    entry = ioapic.pins[pin]
    message = LapicIrq(entry.vector, Mode(entry.mode), LEVEL_PIN if entry.level else 0)
    got = delivery.deliver(vm, destination(vm, entry), message)
    if pin == RTC_PIN and status:
        vm.rtc.record_delivery([vcpu.id for vcpu in got], entry.vector)
    ioapic.record_delivery(pin, len(got))
    return len(got) or -1


def destination(vm: ApicVm, entry: RedirectEntry) -> int:
    """Return the mask of the vCPUs that a redirection entry addresses."""
    if entry.logical:
        return vm.map.logical(entry.dest)
    return vm.map.physical(entry.dest)


def _lazy_update_eoi(vm: ApicVm, ioapic: Ioapic, pin: int) -> None:
    """Find out whether the last interrupt of the pin has ended, as AVIC hides EOIs of edge pins.

    Like [v3] ioapic.c:ioapic_lazy_update_eoi: one vCPU among the destinations that does not have
    the vector in IRR or ISR is enough.
    """
    rule, entry = vm.policy.lazy_eoi, ioapic.pins[pin]
    if rule is LazyEoi.NEVER:
        return
    if not vm.inhibit.active or (entry.level and rule is not LazyEoi.NOTIFIES_ANY_TRIGGER):
        return
    for vcpu in vm.members(destination(vm, entry)):
        if vcpu.lapic.is_busy(entry.vector):
            continue
        vm.rtc.record_eoi(vcpu.id, entry.vector)
        if rule is not LazyEoi.RTC_ONLY:
            end_pin(vm, ioapic, pin, level=entry.level)
        return


def end_pin(vm: ApicVm, ioapic: Ioapic, pin: int, *, level: bool) -> None:
    """Handle the EOI of a pin. Like ioapic.c:kvm_ioapic_update_eoi_one (v6.1).

    Differs: a delayed pin is not sent again before its time has come. Otherwise two vCPUs that
    alternately send EOIs for a storming line would keep a command running for ever.
    """
    notify_acked_irq(vm, IrqchipId.IOAPIC, pin)
    entry = ioapic.pins[pin]
    if not level or not entry.level or not ioapic.end_level(pin) or ioapic.delayed >> pin & 1:
        return
    if not ioapic.is_storm(pin):
        send(vm, ioapic, pin)
        return
    vm.tracer.kvm_ioapic_delayed_eoi_inj(entry)
    vm.eoi_inject.append(vm.after(STORM_PAUSE, lambda: eoi_inject_work(vm, ioapic)))


def eoi_inject_work(vm: ApicVm, ioapic: Ioapic) -> None:
    """Send the delayed pins again. Like ioapic.c:kvm_ioapic_eoi_inject_work (v6.1).

    Precondition: a timer of `ApicVm.eoi_inject` is due.
    """
    vm.eoi_inject = [timer for timer in vm.eoi_inject if timer.action is not None]
    ioapic.delayed = 0
    for pin, entry in enumerate(ioapic.pins):
        waits = entry.level and ioapic.irr >> pin & 1
        if waits and ioapic.service(pin) is PinResult.DELIVER:
            send(vm, ioapic, pin)


def end_vector(vm: ApicVm, vcpu: ApicVcpu, vector: int) -> None:
    """Handle an EOI that KVM saw. Like ioapic.c:kvm_ioapic_update_eoi (v6.1).

    Precondition: the vector is no longer in ISR of the vCPU.
    """
    ioapic = vm.ioapic
    if ioapic is None or not _is_in_eoi_map(vm, ioapic, vcpu, vector):
        return
    level = vcpu.lapic.is_level(vector)
    vm.rtc.record_eoi(vcpu.id, vector)
    for pin, entry in enumerate(ioapic.pins):
        if entry.vector == vector:
            end_pin(vm, ioapic, pin, level=level)


def _is_in_eoi_map(vm: ApicVm, ioapic: Ioapic, vcpu: ApicVcpu, vector: int) -> bool:
    """Return whether the IOAPIC wants EOIs of the vector from this vCPU.

    Like ioapic.c:kvm_ioapic_scan_entry (v6.1).
    """
    return any(
        entry.vector == vector
        and (entry.level or pin == RTC_PIN or _has_notifier(vm, pin))
        and destination(vm, entry) & vcpu.bit
        for pin, entry in enumerate(ioapic.pins)
    )


def _has_notifier(vm: ApicVm, pin: int) -> bool:
    return pin == PIT_IOAPIC_PIN and vm.pit is not None and vm.pit.reinject


def notify_acked_irq(vm: ApicVm, chip: IrqchipId, pin: int) -> None:
    """Call the ack notifiers of a pin. Like virt/kvm/eventfd.c:kvm_notify_acked_irq (v6.1)."""
    vm.tracer.kvm_ack_irq(chip.value, pin)
    is_timer = (chip, pin) in ((IrqchipId.PIC_MASTER, 0), (IrqchipId.IOAPIC, PIT_IOAPIC_PIN))
    if is_timer and vm.pit is not None:
        vm.pit.acknowledge()


def run_pit(vm: ApicVm) -> None:
    """Run the worker of the PIT once. Like i8254.c:pit_do_work (v6.1)."""
    if vm.pit is not None and vm.pit.work():
        set_irq(vm, PIT_GSI, high=True, source=PIT_SOURCE)
        set_irq(vm, PIT_GSI, high=False, source=PIT_SOURCE)


def configure_pin(vm: ApicVm, ioapic: Ioapic, pin: int, new: RedirectEntry) -> None:
    """Set a redirection entry. Like ioapic.c:ioapic_write_indirect (v6.1)."""
    old = ioapic.pins[pin]
    new.remote_irr = old.remote_irr and new.level
    ioapic.pins[pin] = new
    if old.masked and not new.masked and pin == PIT_IOAPIC_PIN and vm.pit is not None:
        vm.pit.restart()
    if new.level and ioapic.irr >> pin & 1 and ioapic.service(pin) is PinResult.DELIVER:
        send(vm, ioapic, pin)


def configure_pic(vm: ApicVm, pic: Pic, base: int, imr: int, *, auto_eoi: bool) -> None:
    """Set the state of both PICs. Unmasking pin 0 makes the PIT forget its pending ticks."""
    was_masked = bool(pic.master.imr & 1)
    pic.configure(base, imr, auto_eoi=auto_eoi)
    if was_masked and not imr & 1 and vm.pit is not None:
        vm.pit.restart()

"""ApicTracer of devices through PIC and IOAPIC to local APICs, and acknowledgements back.

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
"""Interrupt source id of KVM_IRQ_LINE."""
STORM_PAUSE = 0.01
"""Seconds until a level pin that is_storm is delivered again: HZ / 100."""


class IrqchipId(Enum):
    """Irqchips by their number in kvm_ack_irq."""

    PIC_MASTER = 0
    PIC_SLAVE = 1
    IOAPIC = 2


def make_controllers(vm: ApicVm) -> None:
    """KVM_CREATE_IRQCHIP."""
    vm.ioapic = Ioapic()
    vm.pic = Pic(
        wake=lambda: wake_for_pic(vm),
        acked=lambda pin: acked(vm, IrqchipId.PIC_MASTER if pin < 8 else IrqchipId.PIC_SLAVE, pin),
        wakes_for_nothing=vm.policy.pic_wakes_for_nothing,
    )


def wake_for_pic(vm: ApicVm) -> None:
    """The first vCPU that takes interrupts of the PIC must look."""
    for vcpu in vm.vcpus.values():
        if vcpu.lapic.accepts_pic:
            requests.request_event(vm, vcpu)
            return


def set_irq(
    vm: ApicVm, gsi: int, *, high: bool, source: int = USER_SOURCE, status: bool = False
) -> int:
    """Raise or lower a GSI; how many took it, 0 when coalesced, -1 when masked everywhere."""
    vm.tracer.kvm_set_irq(gsi, source, high=high)
    result = -1
    for one in _set_routes(vm, gsi, source, high=high, status=status):
        if one >= 0:
            result = one + max(result, 0)
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
    """Deliver a pin's interrupt; how many vCPUs got it, -1 for none."""
    entry = ioapic.pins[pin]
    message = LapicIrq(entry.vector, Mode(entry.mode), LEVEL_PIN if entry.level else 0)
    got = delivery.deliver(vm, destination(vm, entry), message)
    if pin == RTC_PIN and status:
        vm.rtc.record_delivery([vcpu.id for vcpu in got], entry.vector)
    ioapic.record_delivery(pin, len(got))
    return len(got) or -1


def destination(vm: ApicVm, entry: RedirectEntry) -> int:
    """The vCPUs that a redirection entry means."""
    if entry.logical:
        return vm.map.logical(entry.dest)
    return vm.map.physical(entry.dest)


def _lazy_update_eoi(vm: ApicVm, ioapic: Ioapic, pin: int) -> None:
    """AVIC hides EOIs of edge interrupts: look now whether the last one ended.

    Like [v3] ioapic.c:ioapic_lazy_update_eoi: the first matching vCPU that is idle counts.
    """
    rule, entry = vm.policy.lazy_eoi, ioapic.pins[pin]
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
    """A vector of this pin was EOIed. ioapic.c:kvm_ioapic_update_eoi_one.

    Differs: a pin that is put off is sent by nobody meanwhile, or two vCPUs that end a flood in
    turns would never come to rest.
    """
    acked(vm, IrqchipId.IOAPIC, pin)
    entry = ioapic.pins[pin]
    if not level or not entry.level or not ioapic.end_level(pin) or ioapic.delayed >> pin & 1:
        return
    if not ioapic.is_storm(pin):
        send(vm, ioapic, pin)
        return
    vm.tracer.kvm_ioapic_delayed_eoi_inj(entry)
    vm.later(STORM_PAUSE, lambda: _send_delayed(vm, ioapic))


def _send_delayed(vm: ApicVm, ioapic: Ioapic) -> None:
    ioapic.delayed = 0
    for pin, entry in enumerate(ioapic.pins):
        waits = entry.level and ioapic.irr >> pin & 1
        if waits and ioapic.service(pin) is PinResult.DELIVER:
            send(vm, ioapic, pin)


def end_vector(vm: ApicVm, vcpu: ApicVcpu, vector: int) -> None:
    """A vCPU EOIed a vector, and it was not hidden. ioapic.c:kvm_ioapic_update_eoi."""
    ioapic = vm.ioapic
    if ioapic is None or not _is_told(vm, ioapic, vcpu, vector):
        return
    level = vcpu.lapic.is_level(vector)
    vm.rtc.record_eoi(vcpu.id, vector)
    for pin, entry in enumerate(ioapic.pins):
        if entry.vector == vector:
            end_pin(vm, ioapic, pin, level=level)


def _is_told(vm: ApicVm, ioapic: Ioapic, vcpu: ApicVcpu, vector: int) -> bool:
    """Is the vector in this vCPU's EOI map? ioapic.c:kvm_ioapic_scan_entry."""
    return any(
        entry.vector == vector
        and (entry.level or pin == RTC_PIN or _has_notifier(vm, pin))
        and destination(vm, entry) & vcpu.bit
        for pin, entry in enumerate(ioapic.pins)
    )


def _has_notifier(vm: ApicVm, pin: int) -> bool:
    return pin == PIT_IOAPIC_PIN and vm.pit is not None and vm.pit.reinject


def acked(vm: ApicVm, chip: IrqchipId, pin: int) -> None:
    """Tell who wants to know that a pin's interrupt ended. eventfd.c:kvm_notify_acked_irq."""
    vm.tracer.kvm_ack_irq(chip.value, pin)
    is_timer = (chip, pin) in ((IrqchipId.PIC_MASTER, 0), (IrqchipId.IOAPIC, PIT_IOAPIC_PIN))
    if is_timer and vm.pit is not None:
        vm.pit.acknowledge()


def run_pit(vm: ApicVm) -> None:
    """The PIT's worker does what is due, once. i8254.c:pit_do_work."""
    if vm.pit is not None and vm.pit.work():
        set_irq(vm, PIT_GSI, high=True, source=PIT_SOURCE)
        set_irq(vm, PIT_GSI, high=False, source=PIT_SOURCE)


def configure_pin(vm: ApicVm, ioapic: Ioapic, pin: int, new: RedirectEntry) -> None:
    """The host sets a redirection entry. ioapic.c:ioapic_write_indirect."""
    old = ioapic.pins[pin]
    new.remote_irr = old.remote_irr and new.level
    ioapic.pins[pin] = new
    if old.masked and not new.masked and pin == PIT_IOAPIC_PIN and vm.pit is not None:
        vm.pit.restart()
    if new.level and ioapic.irr >> pin & 1 and ioapic.service(pin) is PinResult.DELIVER:
        send(vm, ioapic, pin)


def configure_pic(vm: ApicVm, pic: Pic, base: int, imr: int, *, auto_eoi: bool) -> None:
    """The host sets both PICs. Unmasking pin 0 forgives the PIT what it owes."""
    was_masked = bool(pic.master.imr & 1)
    pic.configure(base, imr, auto_eoi=auto_eoi)
    if was_masked and not imr & 1 and vm.pit is not None:
        vm.pit.restart()

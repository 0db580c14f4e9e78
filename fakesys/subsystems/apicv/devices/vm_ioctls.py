"""Ioctls of a VM and what devices do to its controllers: lines, pins, PIT, RTC, queued vectors.

Each public function is a whole command. It raises KernelError before any change.
"""

from __future__ import annotations

from errno import EEXIST, EINVAL, ENODEV, ENXIO

from fakesys.core.errors import KernelError
from fakesys.subsystems.apicv.chips.ioapic import PINS, RTC_PIN, Ioapic, RedirectEntry
from fakesys.subsystems.apicv.chips.pic import Pic
from fakesys.subsystems.apicv.chips.pit import Pit
from fakesys.subsystems.apicv.engine import routing, vcpu_enter, vcpu_run
from fakesys.subsystems.apicv.engine.quiesce import command
from fakesys.subsystems.apicv.state.inhibit_reasons import Reason
from fakesys.subsystems.apicv.state.vcpu import EVENT, ApicVcpu, RunState
from fakesys.subsystems.apicv.state.vm import ApicVm


def controllers(vm: ApicVm) -> tuple[Pic, Ioapic]:
    """Return PIC and IOAPIC. Raises ENODEV if they are not in the kernel."""
    if vm.pic is None or vm.ioapic is None:
        raise KernelError(ENODEV, f"{vm.kvm.name} has no PIC and IOAPIC in the kernel")
    return vm.pic, vm.ioapic


def pit_of(vm: ApicVm) -> Pit:
    """Return the PIT. Raises ENODEV if there is none in the kernel."""
    if vm.pit is None:
        raise KernelError(ENODEV, f"{vm.kvm.name} has no PIT in the kernel")
    return vm.pit


def set_line(vm: ApicVm, gsi: int, *, high: bool, status: bool = False) -> int:
    """Do KVM_IRQ_LINE, or KVM_IRQ_LINE_STATUS; return what `routing.set_irq` returns.

    Raises ENODEV without controllers in the kernel, EINVAL for a GSI without a route.
    """
    require_gsi(vm, gsi)
    with command(vm):
        return routing.set_irq(vm, gsi, high=high, status=status)


def pulse(vm: ApicVm, gsi: int, *, status: bool = False) -> int:
    """Raise and lower a GSI; return what `routing.set_irq` returns for raising it.

    Raises as `set_line`.
    """
    require_gsi(vm, gsi)
    with command(vm):
        result = routing.set_irq(vm, gsi, high=True, status=status)
        routing.set_irq(vm, gsi, high=False, status=status)
    return result


def require_gsi(vm: ApicVm, gsi: int) -> None:
    """Raise ENODEV without controllers in the kernel, EINVAL for a GSI without a route."""
    controllers(vm)
    if gsi >= PINS:
        raise KernelError(EINVAL, f"GSI {gsi} has no route")


def tick_rtc(vm: ApicVm, count: int = 1) -> int:
    """Let the real time clock tick; return how many ticks were coalesced. Raises ENODEV."""
    return sum(pulse(vm, RTC_PIN, status=True) == 0 for _ in range(count))


def tick_pit(vm: ApicVm, count: int = 1) -> None:
    """Let the PIT tick; each tick is handled to its end before the next. Raises ENODEV."""
    pit = pit_of(vm)
    for _ in range(count):
        with command(vm):
            pit.tick()


def set_reinject(vm: ApicVm, *, on: bool) -> None:
    """Do KVM_REINJECT_CONTROL. Raises ENODEV. Like i8254.c:kvm_pit_set_reinject (v6.1)."""
    pit = pit_of(vm)
    if pit.reinject == on:
        return
    with command(vm):
        pit.reinject = on
        if vm.policy.pit_reinject_inhibits:
            change = vm.inhibit.set if on else vm.inhibit.clear
            change(Reason.PIT_REINJ)
        if on:
            pit.restart()


def load_pit(vm: ApicVm) -> None:
    """Load the counter of the PIT. Raises ENODEV."""
    pit_of(vm).restart()


def configure_pic(vm: ApicVm, base: int, imr: int, *, auto_eoi: bool) -> None:
    """Set the state of both PICs; see `Pic.configure`. Raises ENODEV."""
    pic, _ = controllers(vm)
    with command(vm):
        routing.configure_pic(vm, pic, base, imr, auto_eoi=auto_eoi)


def configure_pin(vm: ApicVm, pin: int, new: RedirectEntry) -> None:
    """Set the redirection entry of a pin. Raises ENODEV.

    Precondition: `pin_of` accepted the pin.
    """
    _, ioapic = controllers(vm)
    with command(vm):
        routing.configure_pin(vm, ioapic, pin, new)


def pin_of(vm: ApicVm, pin: int) -> RedirectEntry:
    """Return the redirection entry of a pin. Raises ENODEV, and EINVAL if there is no such pin."""
    _, ioapic = controllers(vm)
    if pin >= PINS:
        raise KernelError(EINVAL, f"the IOAPIC has no pin {pin}")
    return ioapic.pins[pin]


def queue_extint(vm: ApicVm, vector: int) -> None:
    """Let the PIC in user space interrupt vCPU 0: now, or when its guest takes interrupts.

    Like x86.c:kvm_vcpu_ioctl_interrupt (v6.1). Raises ENXIO with a PIC in the kernel, EINVAL
    without vCPU 0, EEXIST if a vector is queued already, EBUSY unless vCPU 0 is in guest or halted.
    """
    if vm.pic is not None:
        raise KernelError(ENXIO, f"{vm.kvm.name} has its PIC in the kernel")
    vcpu = vm.vcpus.get(0)
    if vcpu is None:
        raise KernelError(EINVAL, f"{vm.kvm.name} has no vCPU 0")
    if vcpu.user_pic.vector is not None:
        raise KernelError(EEXIST, f"vector {vcpu.user_pic.vector} waits already")
    vcpu_run.require(vcpu, RunState.GUEST, RunState.HALTED)
    with command(vm, vcpu):
        _queue(vm, vcpu, vector)


def _queue(vm: ApicVm, vcpu: ApicVcpu, vector: int) -> None:
    was = vcpu.run
    vcpu_run.to_user_space(vm, vcpu)
    vcpu.kvm_run.begin()
    vcpu.user_pic.vector = vector
    vcpu.user_pic.wants_window = not vcpu.interrupts_on
    vcpu.run = RunState.HOST
    if not vcpu.user_pic.wants_window:
        vcpu.requests |= EVENT
    if was is RunState.HALTED and vcpu.user_pic.wants_window:
        vcpu_enter.block(vm, vcpu, RunState.HALTED)
        return
    vcpu_run.load(vm, vcpu)
    vcpu_enter.enter(vm, vcpu)

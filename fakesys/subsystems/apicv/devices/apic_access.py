"""Accesses of a guest to its local APIC registers, and to the MSR that moves or disables the APIC.

Like arch/x86/kvm/svm/avic.c: is_avic_unaccelerated_access_trap, avic_unaccel_trap_write;
lapic.c: kvm_lapic_reg_write, kvm_lapic_set_base (v6.1).
"""

from __future__ import annotations

from errno import EINVAL

from fakesys.core.errors import KernelError
from fakesys.subsystems.apicv.chips import lapic
from fakesys.subsystems.apicv.devices import ipi
from fakesys.subsystems.apicv.engine import guest_steps, vcpu_enter, vcpu_load
from fakesys.subsystems.apicv.engine.apic_ids import ids_changed
from fakesys.subsystems.apicv.state.inhibit_reasons import Reason
from fakesys.subsystems.apicv.state.vcpu import UPDATE, ApicVcpu
from fakesys.subsystems.apicv.state.vm import ApicVm

TRAPS = frozenset(
    (
        lapic.ID, lapic.EOI, lapic.RRR, lapic.LDR, lapic.DFR, lapic.SPIV, lapic.ESR, lapic.LVTT,
        lapic.LVTTHMR, lapic.LVTPC, lapic.LVT0, lapic.LVT1, lapic.LVTERR, lapic.TMICT, lapic.TDCR,
    )
)  # fmt: skip
"""Writes after which the guest exits; the register has its new value already."""
APR = 0x90
FAULTING_READS = frozenset((APR, lapic.RRR, lapic.TMCCT))
PLAIN_WRITES = frozenset((lapic.TPR, lapic.ICR2))
"""Writes that AVIC completes without an exit."""
LAST_REGISTER = 0x3F0
LVT_MASK = 0x107FF
MSR_APICBASE = 0x1B
# KVM_TRACE_MMIO_READ
MMIO_READ = 1


def require_register(offset: int) -> None:
    """Raise EINVAL for an offset at which no register can be."""
    if offset % 0x10 or offset > LAST_REGISTER:
        raise KernelError(EINVAL, f"there is no APIC register at {offset:#x}")


def read(vm: ApicVm, vcpu: ApicVcpu, offset: int) -> int:
    """Read a register as the guest; return its value.

    Precondition: the vCPU is tracked and in guest, within a command.
    """
    if vm.hides_apic(vcpu):
        return 0
    value = vcpu.lapic.read(offset)
    accelerated = vm.accelerates(vcpu)
    if accelerated and offset not in FAULTING_READS:
        return value
    if accelerated:
        guest_steps.leave_for_fault(vm, vcpu, offset, write=False)
    else:
        guest_steps.leave_for_page(vcpu, offset, value, write=False)
    vm.tracer.kvm_apic(offset, value, write=False)
    if not accelerated and not vcpu.lapic.x2apic:
        data = value.to_bytes(8, "little")[:4]
        vcpu.kvm_run.mmio(MMIO_READ, vcpu.lapic.base | offset, data)
    vcpu_enter.enter(vm, vcpu)
    return value


def write(vm: ApicVm, vcpu: ApicVcpu, offset: int, value: int) -> None:
    """Write a register as the guest: EOI and ICR have effects, others may trap or be emulated.

    Precondition: the vCPU is tracked and in guest, within a command.
    """
    if vm.hides_apic(vcpu):
        return
    if offset == lapic.EOI:
        guest_steps.apic_eoi(vm, vcpu)
    elif offset == lapic.ICR:
        high = vcpu.lapic.icr2
        ipi.send(vm, vcpu, high if vcpu.lapic.x2apic else high >> 24, value)
    elif offset in PLAIN_WRITES and vm.accelerates(vcpu):
        _set(vm, vcpu, offset, value)
        vcpu_enter.continue_guest(vm, vcpu)
    else:
        _write_with_exit(vm, vcpu, offset, value)


def _write_with_exit(vm: ApicVm, vcpu: ApicVcpu, offset: int, value: int) -> None:
    accelerated = vm.accelerates(vcpu)
    if not accelerated:
        guest_steps.leave_for_page(vcpu, offset, value, write=True)
    elif offset in TRAPS:
        guest_steps.leave_for_trap(vm, vcpu, offset, 0)
    else:
        guest_steps.leave_for_fault(vm, vcpu, offset, write=True)
    vm.tracer.kvm_apic(offset, value, write=True)
    _set(vm, vcpu, offset, value)
    if vcpu.apicv_active:
        vcpu_load.sync_tables(vm, vcpu)
    vcpu_enter.enter(vm, vcpu)


def _set(vm: ApicVm, vcpu: ApicVcpu, offset: int, value: int) -> None:
    local = vcpu.lapic
    if offset == lapic.ID:
        if not local.x2apic:
            local.id = value >> 24 & 0xFF
            ids_changed(vm)
    elif offset == lapic.LDR:
        local.ldr = value & 0xFF000000
        ids_changed(vm)
    elif offset == lapic.DFR:
        local.dfr = value | 0x0FFFFFFF
        ids_changed(vm)
    elif offset == lapic.TPR:
        local.tpr = value & 0xFF
    elif offset == lapic.LVT0:
        local.lvt0 = value & LVT_MASK
    elif offset == lapic.ICR2:
        local.icr2 = value
    elif offset in TRAPS:
        local.others[offset] = value & 0xFFFFFFFF


def require_base(vcpu: ApicVcpu, *, x2apic: bool) -> None:
    """Raise EINVAL where writing the base would be a general protection fault."""
    if x2apic and not vcpu.cpuid.x2apic:
        raise KernelError(EINVAL, "CPUID of the vCPU has no x2APIC")


def write_base(
    vm: ApicVm, vcpu: ApicVcpu, *, base: int | None = None, enabled: bool = True,
    x2apic: bool = False,
) -> None:  # fmt: skip
    """Write MSR_IA32_APICBASE as the guest; None leaves the address as it is.

    Precondition: `require_base` accepted it.
    """
    local = vcpu.lapic
    value = (local.base if base is None else base) | enabled << 11 | x2apic << 10
    value |= (vcpu.id == 0) << 8
    guest_steps.leave_for_msr(vcpu, MSR_APICBASE, value, write=True)
    set_base(vm, vcpu, base=base, enabled=enabled, x2apic=x2apic)
    vcpu_enter.enter(vm, vcpu)


def set_base(
    vm: ApicVm, vcpu: ApicVcpu, *, base: int | None = None, enabled: bool = True,
    x2apic: bool = False,
) -> None:  # fmt: skip
    """Set the base MSR without an exit. Like lapic.c:kvm_lapic_set_base (v6.1)."""
    local = vcpu.lapic
    changed = (local.enabled, local.x2apic) != (enabled, x2apic)
    local.enabled, local.x2apic = enabled, x2apic
    if x2apic:
        local.id = vcpu.id
    if base is not None:
        local.base = base
    if changed and vm.policy.off_without_apic and vm.has_lapics:
        vcpu.requests |= UPDATE
    if enabled and local.base != lapic.BASE:
        vm.inhibit.set(Reason.APIC_BASE_MODIFIED)
    ids_changed(vm)

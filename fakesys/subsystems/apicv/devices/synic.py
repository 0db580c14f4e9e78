"""Hyper-V's synthetic interrupt controller, as far as it inhibits AVIC.

Like arch/x86/kvm/hyperv.c: kvm_hv_activate_synic, synic_update_vector (v6.1), [v3/09].
"""

from __future__ import annotations

from errno import EINVAL, ENODEV

from fakesys.core.errors import KernelError
from fakesys.subsystems.apicv.engine import guest_steps, vcpu_enter, vcpu_load, vcpu_run
from fakesys.subsystems.apicv.engine.quiesce import command
from fakesys.subsystems.apicv.state.inhibit_reasons import Reason
from fakesys.subsystems.apicv.state.policy import SynicRule
from fakesys.subsystems.apicv.state.vcpu import ApicVcpu
from fakesys.subsystems.apicv.state.vm import ApicVm
from fakesys.subsystems.kvm.events.hyperv.synic import KvmHvSynicSetMsr

SINTS = 16
FIRST_VECTOR = 16
SINT_MASKED = 1 << 16
SINT_AUTO_EOI = 1 << 17
MSR_SINT0 = 0x40000090


def enable(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Enable KVM_CAP_HYPERV_SYNIC2 of a vCPU.

    Raises EBUSY while it is in guest, ENODEV without local APICs in the kernel.
    """
    _require_lapic(vm)
    vcpu_run.require_outside(vcpu)
    with command(vm, vcpu):
        activate(vm, vcpu)


def activate(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Enable the controller of a vCPU, and switch AVIC off as the kernel does.

    Precondition: the vCPU is tracked, and not in guest. Like hyperv.c:kvm_hv_activate_synic.
    """
    vcpu.synic.enabled = True
    if vm.policy.synic is SynicRule.AT_ENABLE:
        vm.inhibit.set(Reason.HYPERV, vcpu)
    elif vm.policy.synic is SynicRule.ONE_VCPU and vcpu.apicv_active:
        # The ioctl loads the vCPU with AVIC on and puts it with AVIC off: its entry stays so.
        vcpu_load.load(vm, vcpu)
        vcpu.apicv_active = False


def write_sint(
    vm: ApicVm, vcpu: ApicVcpu, sint: int, vector: int, *, auto_eoi: bool, masked: bool
) -> None:
    """Write HV_X64_MSR_SINTx as the guest.

    Raises EBUSY unless the vCPU is in guest, ENODEV without local APICs in the kernel, EINVAL where
    the guest would get a general protection fault.
    """
    _require_lapic(vm)
    vcpu_run.require_in_guest(vcpu)
    if not vcpu.synic.enabled or sint >= SINTS or (vector < FIRST_VECTOR and not masked):
        raise KernelError(EINVAL, f"SINT{sint} cannot be set to vector {vector}")
    with command(vm, vcpu):
        value = vector | (SINT_MASKED if masked else 0) | (SINT_AUTO_EOI if auto_eoi else 0)
        guest_steps.leave_for_msr(vcpu, MSR_SINT0 + sint, value, write=True)
        event = KvmHvSynicSetMsr(vcpu_id=vcpu.id, msr=MSR_SINT0 + sint, data=value, host=False)
        vcpu.kvm_run.emit(KvmHvSynicSetMsr, lambda: event)
        _set(vm, vcpu, sint, vector if auto_eoi and not masked else None)
        vcpu_enter.enter(vm, vcpu)


def _require_lapic(vm: ApicVm) -> None:
    if not vm.has_lapics:
        raise KernelError(ENODEV, f"{vm.kvm.name} has no local APICs in the kernel")


def _set(vm: ApicVm, vcpu: ApicVcpu, sint: int, auto_eoi_vector: int | None) -> None:
    before = bool(vcpu.synic.auto_eoi)
    vcpu.synic.auto_eoi.pop(sint, None)
    if auto_eoi_vector is not None:
        vcpu.synic.auto_eoi[sint] = auto_eoi_vector
    after = bool(vcpu.synic.auto_eoi)
    if before == after or vm.policy.synic is not SynicRule.WITH_AUTO_EOI:
        return
    vm.synic_auto_eoi_used += 1 if after else -1
    if vm.synic_auto_eoi_used:
        vm.inhibit.set(Reason.HYPERV)
    else:
        vm.inhibit.clear(Reason.HYPERV)

"""How a vCPU serves an APICv request: it switches AVIC on or off for itself.

Like [v3] x86.c: kvm_vcpu_activate_apicv, kvm_vcpu_deactivate_apicv; kvm_vcpu_update_apicv,
svm_refresh_apicv_exec_ctrl (v6.1).
"""

from __future__ import annotations

from fakesys.subsystems.apicv.engine import vcpu_load
from fakesys.subsystems.apicv.state.policy import InhibitStyle, NestedRule
from fakesys.subsystems.apicv.state.vcpu import (
    ACTIVATE,
    APICV_REQUESTS,
    DEACTIVATE,
    EVENT,
    ApicVcpu,
)
from fakesys.subsystems.apicv.state.vm import ApicVm


def serve_requests(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Serve the APICv requests that are pending on this vCPU.

    Precondition: the vCPU is tracked (`requests.sync_vcpu`).
    """
    found = vcpu.requests & APICV_REQUESTS
    if not found:
        return
    vcpu.requests &= ~APICV_REQUESTS
    if vm.policy.style is not InhibitStyle.ENUM:
        update(vm, vcpu)
        return
    if found & ACTIVATE:
        set_active(vm, vcpu, active=True)
    if found & DEACTIVATE:
        set_active(vm, vcpu, active=False)


def update(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Follow the VM, unless this vCPU has a reason of its own to have AVIC off."""
    set_active(vm, vcpu, active=vm.inhibit.active and not _has_own_reason(vm, vcpu))


def _has_own_reason(vm: ApicVm, vcpu: ApicVcpu) -> bool:
    if vcpu.in_l2 and vm.policy.nested is NestedRule.WHILE_IN_L2:
        return True
    return vm.policy.off_without_apic and not vcpu.lapic.enabled


def set_active(vm: ApicVm, vcpu: ApicVcpu, *, active: bool) -> None:
    """Switch AVIC on or off in the control block of this vCPU, with all that depends on it."""
    if vcpu.apicv_active == active or not vm.has_lapics:
        return
    vcpu.apicv_active = active
    if active:
        vcpu_load.require_entry(vm, vcpu)
        if vm.policy.follows_state:
            vcpu_load.sync_tables(vm, vcpu)
    for device in vcpu.avic.ir_list.values() if vm.policy.devices_follow else ():
        device.guest_mode = active
    if vm.policy.off_clears_running:
        if active and not vcpu.blocked:
            vcpu_load.load(vm, vcpu)
        else:
            vm.set_running(vcpu, running=False)
    if vm.policy.off_sets_event and not active:
        vcpu.requests |= EVENT

"""An exit of any reason, which a guest makes by what it executes.

Like arch/x86/kvm/svm/svm.c:svm_invoke_exit_handler, vmx/vmx.c:__vmx_handle_exit (v6.1).
"""

from __future__ import annotations

from fakesys.subsystems.apicv.engine import guest_steps, requests, vcpu_enter, vcpu_run
from fakesys.subsystems.apicv.engine.quiesce import command
from fakesys.subsystems.apicv.state.vcpu import EVENT, ApicVcpu
from fakesys.subsystems.apicv.state.vm import ApicVm
from fakesys.subsystems.kvm.vcpu_run import instructions
from fakesys.subsystems.kvm.vcpu_run.instructions import ExitValues


def leave(vm: ApicVm, vcpu: ApicVcpu, name: str, values: ExitValues, count: int = 1) -> None:
    """Let the guest exit `count` times for the reason of this name, and enter it again.

    Raises EBUSY unless the vCPU is in guest, EINVAL for a reason that the processor has not.
    """
    vcpu_run.require_in_guest(vcpu)
    reason = instructions.reason_named(vcpu.kvm_run, name)
    if name.lower() == "hlt":
        with command(vm, vcpu):
            guest_steps.halt(vm, vcpu)
        return
    for _ in range(count):
        with command(vm, vcpu):
            vcpu.kvm_run.requests = vcpu.requests
            instructions.leave(vcpu.kvm_run, name, values)
            requests.left_guest(vcpu)
            if reason.counter == "irq_window_exits":
                vcpu.requests |= EVENT
            vcpu_enter.enter(vm, vcpu)

"""The host's control of a vCPU thread (start, stop, preempt, resume) and ioctls of a vCPU.

Each function is a whole command. It raises KernelError before any change.
"""

from __future__ import annotations

from errno import EBUSY, EINTR, EINVAL

from fakesys.core.errors import KernelError
from fakesys.subsystems.apicv.engine import requests, vcpu_enter, vcpu_load
from fakesys.subsystems.apicv.engine.quiesce import command
from fakesys.subsystems.apicv.state.inhibit_reasons import Reason
from fakesys.subsystems.apicv.state.policy import NestedRule
from fakesys.subsystems.apicv.state.vcpu import UPDATE, ApicVcpu, RunState
from fakesys.subsystems.apicv.state.vm import ApicVm
from fakesys.subsystems.kvm.vcpu_run import nested
from fakesys.subsystems.kvm.vcpu_run.reasons import INTERRUPT, VMMCALL, VMRUN

EXIT_INTR = 10
"""KVM_EXIT_INTR."""


def require(vcpu: ApicVcpu, *states: RunState) -> None:
    """Raise EBUSY unless the vCPU is in one of these states."""
    if vcpu.run not in states:
        raise KernelError(EBUSY, f"vCPU {vcpu.id} is {vcpu.run.value}")


def require_outside(vcpu: ApicVcpu) -> None:
    """Raise EBUSY while the vCPU is in guest: its thread is inside KVM_RUN then."""
    if vcpu.run is RunState.GUEST:
        raise KernelError(EBUSY, f"vCPU {vcpu.id} is in guest; stop it first")


def start(vm: ApicVm, vcpu: ApicVcpu, cpu: int | None = None) -> None:
    """Call KVM_RUN, on host CPU `cpu` if one is given.

    Raises EBUSY unless the vCPU waits for INIT, which is skipped, or is stopped.
    """
    require(vcpu, RunState.UNINIT, RunState.STOPPED)
    with command(vm, vcpu):
        asleep_again = vcpu.run is RunState.STOPPED and vcpu.stopped_from in (
            RunState.HALTED,
            RunState.UNINIT,
        )
        _move(vm, vcpu, cpu)
        vcpu.kvm_run.begin(blocks=asleep_again)
        vcpu.stats.blocking = 0
        vcpu.run = RunState.HOST
        if asleep_again:
            _sleep_on(vm, vcpu)
            return
        vcpu.startup.waits_for_sipi = False
        load(vm, vcpu)
        vcpu_enter.enter(vm, vcpu)


def _sleep_on(vm: ApicVm, vcpu: ApicVcpu) -> None:
    vcpu.run = vcpu.stopped_from
    vcpu_enter.block(vm, vcpu, vcpu.stopped_from)
    if vcpu_enter.is_runnable(vm, vcpu):
        vcpu_enter.unblock(vm, vcpu)


def stop(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Bring the thread to user space by a signal. Raises EBUSY if it is there, or preempted."""
    require(vcpu, RunState.GUEST, RunState.HALTED, RunState.UNINIT)
    with command(vm, vcpu):
        to_user_space(vm, vcpu)


def to_user_space(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Do what `stop` does, within a command."""
    was = vcpu.run
    vm.tracer.act(vcpu)
    if was is not RunState.GUEST:
        vm.tracer.is_signalled()
    if was is RunState.GUEST:
        requests.exit_guest(vcpu, INTERRUPT)
    elif vcpu.kvm_run.in_guest:
        # A command that accesses memory is underway.
        vcpu.kvm_run.exit(INTERRUPT)
    vcpu.kvm_run.leave(EXIT_INTR, EINTR)
    _rest(vm, vcpu, RunState.GUEST if was is RunState.PREEMPTED else was)


def hold(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Bring the thread to user space by a signal, unless it is there already."""
    if vcpu.run is not RunState.STOPPED:
        with command(vm, vcpu):
            to_user_space(vm, vcpu)


def _rest(vm: ApicVm, vcpu: ApicVcpu, was: RunState) -> None:
    vcpu.stats.blocking = 0
    vcpu.stopped_from = was
    vcpu.run = RunState.STOPPED
    vcpu.kicked = False
    vm.runnable &= ~vcpu.bit
    vcpu_enter.drop_handlers(vm, vcpu)
    vcpu_load.put(vm, vcpu)
    vm.tracer.sleeps(vcpu)


def preempt(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Schedule the thread out of its host CPU. Raises EBUSY unless the vCPU is in guest."""
    require(vcpu, RunState.GUEST)
    with command(vm, vcpu):
        requests.exit_guest(vcpu, INTERRUPT)
        vcpu.run = RunState.PREEMPTED
        vcpu_load.put(vm, vcpu)
        vm.tracer.is_preempted(vcpu)


def resume(vm: ApicVm, vcpu: ApicVcpu, cpu: int | None = None) -> None:
    """Schedule the thread in, on host CPU `cpu` if one is given.

    Raises EBUSY unless the vCPU is preempted.
    """
    require(vcpu, RunState.PREEMPTED)
    with command(vm, vcpu):
        _move(vm, vcpu, cpu)
        vcpu.run = RunState.HOST
        load(vm, vcpu)
        vcpu_enter.enter(vm, vcpu)


def _move(vm: ApicVm, vcpu: ApicVcpu, cpu: int | None) -> None:
    if cpu is not None:
        vcpu.kvm.move_to(cpu)
        # The task that acts is on the new CPU from here on.
        vm.tracer.act(None)
        vm.tracer.act(vcpu)


def load(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Load the vCPU after user space or another task ran on its CPU.

    `vcpu_enter.unblock` does this for a vCPU that was blocked.
    """
    if not vcpu.avic.is_running and vm.policy.toggles_running:
        vcpu_load.set_running(vm, vcpu, running=True)
        return
    vcpu.avic.is_running = True
    vcpu_load.load(vm, vcpu)


def require_in_guest(vcpu: ApicVcpu) -> None:
    """Raise EBUSY unless the vCPU is in guest."""
    require(vcpu, RunState.GUEST)


def set_cpuid(vm: ApicVm, vcpu: ApicVcpu, *, svm: bool | None, x2apic: bool | None) -> None:
    """Do KVM_SET_CPUID2; None leaves a bit as it is. Like [v3] svm.c:svm_cpuid_update.

    Raises EBUSY while the vCPU is in guest.
    """
    require_outside(vcpu)
    with command(vm, vcpu):
        if x2apic is not None:
            vcpu.cpuid.x2apic = x2apic
        if svm is not None:
            vcpu.cpuid.svm = svm
        if not vcpu.apicv_active:
            return
        if vm.policy.hides_x2apic:
            vcpu.cpuid.x2apic = False
        at_cpuid = vm.policy.nested is NestedRule.AT_CPUID
        if at_cpuid and vm.module.nested and vcpu.cpuid.svm:
            vm.inhibit.set(Reason.NESTED, vcpu)


def set_guest_debug(vm: ApicVm, vcpu: ApicVcpu, *, block_irq: bool) -> None:
    """Do KVM_SET_GUEST_DEBUG; kernels before 5.16 ignore KVM_GUESTDBG_BLOCKIRQ.

    Raises EBUSY while the vCPU is in guest.
    """
    require_outside(vcpu)
    with command(vm, vcpu):
        if Reason.BLOCKIRQ not in vm.policy.numbers:
            return
        vcpu.block_irq = block_irq
        if any(other.block_irq for other in vm.vcpus.values()):
            vm.inhibit.set(Reason.BLOCKIRQ)
        else:
            vm.inhibit.clear(Reason.BLOCKIRQ)


def run_nested(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Let the guest run a nested guest (VMRUN).

    Raises EBUSY unless the vCPU is in guest, EINVAL without nested SVM or if it is in L2 already.
    """
    require_in_guest(vcpu)
    if not (vcpu.cpuid.svm and vm.module.nested) or vcpu.in_l2:
        raise KernelError(EINVAL, f"vCPU {vcpu.id} cannot run a nested guest now")
    with command(vm, vcpu):
        requests.exit_guest(vcpu, VMRUN)
        nested.vmenter(vcpu.kvm_run)
        vcpu.stats.nested_run += 1
        vcpu.stats.guest_mode = 1
        vcpu.in_l2 = True
        _update_for_nested(vm, vcpu)
        vcpu_enter.enter(vm, vcpu)


def leave_nested(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Exit from the nested guest to the guest.

    Raises EBUSY unless the vCPU is in guest, EINVAL unless it is in L2.
    """
    require_in_guest(vcpu)
    if not vcpu.in_l2:
        raise KernelError(EINVAL, f"vCPU {vcpu.id} is in no nested guest")
    with command(vm, vcpu):
        requests.exit_nested(vcpu, VMMCALL)
        nested.vmexit(vcpu.kvm_run, VMMCALL)
        vcpu.stats.guest_mode = 0
        vcpu.in_l2 = False
        _update_for_nested(vm, vcpu)
        vcpu_enter.enter(vm, vcpu)


def _update_for_nested(vm: ApicVm, vcpu: ApicVcpu) -> None:
    if vm.policy.nested is NestedRule.WHILE_IN_L2:
        vcpu.requests |= UPDATE

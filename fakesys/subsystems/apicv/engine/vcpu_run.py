"""Host-side control of vCPUs: start, stop, preempt, and the ioctls of a vCPU.

Raises KernelError before any change: EBUSY in the wrong state, EINVAL for what cannot be.
"""

from __future__ import annotations

from errno import EBUSY, EINVAL

from fakesys.core.errors import KernelError
from fakesys.subsystems.apicv.engine import requests, vcpu_enter, vcpu_load
from fakesys.subsystems.apicv.engine.quiesce import command
from fakesys.subsystems.apicv.state.inhibit_reasons import Reason
from fakesys.subsystems.apicv.state.policy import NestedRule
from fakesys.subsystems.apicv.state.tracer import Exit
from fakesys.subsystems.apicv.state.vcpu import UPDATE, ApicVcpu, RunState
from fakesys.subsystems.apicv.state.vm import ApicVm


def require(vcpu: ApicVcpu, *states: RunState) -> None:
    """Raises EBUSY unless the vCPU is in one of these states."""
    if vcpu.run not in states:
        raise KernelError(EBUSY, f"vCPU {vcpu.id} is {vcpu.run.value}")


def require_outside(vcpu: ApicVcpu) -> None:
    """Raises EBUSY while the vCPU is in guest: its thread is inside KVM_RUN then."""
    if vcpu.run is RunState.GUEST:
        raise KernelError(EBUSY, f"vCPU {vcpu.id} is in guest; stop it first")


def start(vm: ApicVm, vcpu: ApicVcpu, cpu: int | None = None) -> None:
    """KVM_RUN of one that waits for INIT or is held in user space. Raises EBUSY."""
    require(vcpu, RunState.UNINIT, RunState.STOPPED)
    with command(vm, vcpu):
        asleep_again = vcpu.run is RunState.STOPPED and vcpu.stopped_from in (
            RunState.HALTED,
            RunState.UNINIT,
        )
        _move(vcpu, cpu)
        vcpu.stats.blocking = 0
        vcpu.run = RunState.HOST
        if asleep_again:
            _sleep_on(vm, vcpu)
            return
        vcpu.waits_for_sipi = False
        load(vm, vcpu)
        vcpu_enter.enter(vm, vcpu)


def _sleep_on(vm: ApicVm, vcpu: ApicVcpu) -> None:
    vcpu.run = vcpu.stopped_from
    vcpu_enter.block(vm, vcpu, vcpu.stopped_from)
    if vcpu_enter.is_runnable(vm, vcpu):
        vcpu_enter.unblock(vm, vcpu)


def stop(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """A signal brings its thread to user space. Raises EBUSY when it is there or preempted."""
    require(vcpu, RunState.GUEST, RunState.HALTED, RunState.UNINIT)
    with command(vm, vcpu):
        to_user_space(vm, vcpu)


def to_user_space(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """As `stop`, within a command."""
    was = vcpu.run
    if was is RunState.GUEST:
        requests.exit_guest(vm, vcpu, Exit.INTERRUPT)
        vcpu.stats.irq_exits += 1
    vcpu.stats.signal_exits += 1
    vm.tracer.interrupted(vcpu)
    _rest(vm, vcpu, was)


def hold(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """It is in user space as if its thread had never been in KVM_RUN: no exit, no signal."""
    if vcpu.run in (RunState.GUEST, RunState.HALTED, RunState.UNINIT):
        with command(vm, vcpu):
            _rest(vm, vcpu, vcpu.run)


def _rest(vm: ApicVm, vcpu: ApicVcpu, was: RunState) -> None:
    vcpu.stats.blocking = 0
    vcpu.stopped_from = was
    vcpu.run = RunState.STOPPED
    vcpu.kicked = False
    vm.runnable &= ~vcpu.bit
    vcpu_enter.drop_handlers(vm, vcpu)
    vcpu_load.put(vm, vcpu)


def preempt(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """The host schedules something else on its CPU. Raises EBUSY unless it is in guest."""
    require(vcpu, RunState.GUEST)
    with command(vm, vcpu):
        requests.exit_guest(vm, vcpu, Exit.INTERRUPT)
        vcpu.stats.irq_exits += 1
        vcpu.run = RunState.PREEMPTED
        vcpu_load.put(vm, vcpu)


def resume(vm: ApicVm, vcpu: ApicVcpu, cpu: int | None = None) -> None:
    """It is scheduled again, maybe on another CPU. Raises EBUSY unless it is preempted."""
    require(vcpu, RunState.PREEMPTED)
    with command(vm, vcpu):
        _move(vcpu, cpu)
        vcpu.run = RunState.HOST
        load(vm, vcpu)
        vcpu_enter.enter(vm, vcpu)


def _move(vcpu: ApicVcpu, cpu: int | None) -> None:
    if cpu is not None:
        vcpu.kvm.move_to(cpu)


def load(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Scheduled in, after user space or another task: not the end of a sleep."""
    if not vcpu.avic_is_running and vm.policy.toggles_running:
        vcpu_load.set_running(vm, vcpu, running=True)
        return
    vcpu.avic_is_running = True
    vcpu_load.load(vm, vcpu)


def require_in_guest(vcpu: ApicVcpu) -> None:
    """Raises EBUSY unless the guest of this vCPU is running."""
    require(vcpu, RunState.GUEST)


def set_cpuid(vm: ApicVm, vcpu: ApicVcpu, *, svm: bool | None, x2apic: bool | None) -> None:
    """KVM_SET_CPUID2. Raises EBUSY in guest. [v3] svm.c:svm_cpuid_update."""
    require_outside(vcpu)
    with command(vm, vcpu):
        if x2apic is not None:
            vcpu.wants_x2apic = x2apic
        if svm is not None:
            vcpu.has_svm = svm
        if not vcpu.apicv_active:
            return
        if vm.policy.hides_x2apic:
            vcpu.wants_x2apic = False
        at_cpuid = vm.policy.nested is NestedRule.AT_CPUID
        if at_cpuid and vm.module.nested and vcpu.has_svm:
            vm.inhibit.set(Reason.NESTED, vcpu)


def set_guest_debug(vm: ApicVm, vcpu: ApicVcpu, *, block_irq: bool) -> None:
    """KVM_SET_GUEST_DEBUG. Raises EBUSY in guest. Kernels before 5.16 ignore the flag."""
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
    """VMRUN of a guest's guest. Raises EBUSY, EINVAL without nested SVM or in L2 already."""
    require_in_guest(vcpu)
    if not (vcpu.has_svm and vm.module.nested) or vcpu.in_l2:
        raise KernelError(EINVAL, f"vCPU {vcpu.id} cannot run a nested guest now")
    with command(vm, vcpu):
        requests.exit_guest(vm, vcpu, Exit.VMRUN)
        vcpu.stats.nested_run += 1
        vcpu.stats.guest_mode = 1
        vcpu.in_l2 = True
        _update_for_nested(vm, vcpu)
        vcpu_enter.enter(vm, vcpu)


def leave_nested(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """An exit of L2 that L1 sees. Raises EBUSY, EINVAL unless it is in L2."""
    require_in_guest(vcpu)
    if not vcpu.in_l2:
        raise KernelError(EINVAL, f"vCPU {vcpu.id} is in no nested guest")
    with command(vm, vcpu):
        requests.exit_guest(vm, vcpu, Exit.VMMCALL)
        vcpu.stats.guest_mode = 0
        vcpu.in_l2 = False
        _update_for_nested(vm, vcpu)
        vcpu_enter.enter(vm, vcpu)


def _update_for_nested(vm: ApicVm, vcpu: ApicVcpu) -> None:
    if vm.policy.nested is NestedRule.WHILE_IN_L2:
        vcpu.requests |= UPDATE

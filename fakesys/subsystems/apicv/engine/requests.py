"""Kicks, wake-ups, and requests to one vCPU or to all of them.

Like virt/kvm/kvm_main.c: kvm_vcpu_kick, kvm_vcpu_wake_up, kvm_make_all_cpus_request (v6.1).
A kick takes effect when the turn of the vCPU comes (`engine/quiesce.py`); a request to all vCPUs
makes those in guest exit at once.

The functions here keep the groups of vCPUs that `state/vm.py` describes. Every function that
changes a vCPU calls `sync_vcpu` first; every function that only reads one calls `update_fields`.
"""

from __future__ import annotations

from fakesys.subsystems.apicv.state.vcpu import APICV_REQUESTS, EVENT, ApicVcpu, RunState
from fakesys.subsystems.apicv.state.vm import ApicVm
from fakesys.subsystems.kvm.vcpu_run import nested
from fakesys.subsystems.kvm.vcpu_run.reasons import INTERRUPT, NO_INFO, ExitInfo, Reason


def sync_vcpu(vm: ApicVm, vcpu: ApicVcpu) -> ApicVcpu:
    """Give the vCPU its share of what happened to all, and track it singly from now on.

    Call this before changing any field of the vCPU. It makes the exit of a pending kick that all
    batched vCPUs got.
    """
    bit = 1 << vcpu.id
    if vm.touched & bit:
        return vcpu
    vm.touched |= bit
    if vm.tracked & bit:
        return vcpu
    vm.tracked |= bit
    if not vm.batched & bit:
        _take_last_request(vm, vcpu)
        return vcpu
    vm.batched &= ~bit
    _account(vm, vcpu)
    if vm.batch.kicked:
        vcpu.requests |= vm.batch.last_request
        exit_for_kick(vm, vcpu)
    return vcpu


def exit_guest(vcpu: ApicVcpu, reason: Reason, info: ExitInfo = NO_INFO) -> None:
    """Leave the guest: count and trace the exit.

    Precondition: the vCPU is tracked and in guest.
    """
    vcpu.kvm_run.requests = vcpu.requests
    vcpu.kvm_run.exit(reason, info)
    if vcpu.in_l2:
        nested.trace_exit(vcpu.kvm_run, reason, info)
    left_guest(vcpu)


def exit_nested(vcpu: ApicVcpu, reason: Reason) -> None:
    """Leave the nested guest for an exit that its own hypervisor handles."""
    vcpu.kvm_run.requests = vcpu.requests
    vcpu.kvm_run.exit_uncounted(reason)
    nested.trace_exit(vcpu.kvm_run, reason)
    left_guest(vcpu)


def left_guest(vcpu: ApicVcpu) -> None:
    """Note that the vCPU is in KVM, after an exit that its `VcpuRun` made."""
    vcpu.run = RunState.HOST
    vcpu.kicked = False


def exit_for_kick(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Leave the guest because of the IPI of a kick."""
    exit_guest(vcpu, INTERRUPT)
    vm.runnable |= 1 << vcpu.id


def kick(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Make a vCPU look at its requests: it leaves the guest, or wakes up."""
    sync_vcpu(vm, vcpu)
    if vcpu.run is RunState.GUEST:
        vcpu.kicked = True
        vm.runnable |= 1 << vcpu.id
        return
    wake(vm, vcpu)


def wake(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Wake the vCPU if it is blocked and has not been woken yet."""
    bit = 1 << vcpu.id
    if vm.runnable & bit or not vcpu.blocked:
        return
    sync_vcpu(vm, vcpu)
    if vcpu.run is not RunState.HALTED or not vm.polling.is_awake(
        vcpu.kvm_run, vm.now_ns - vcpu.blocked_since
    ):
        vcpu.stats.halt_wakeup += 1
        vm.tracer.wakes(vcpu)
    vm.runnable |= bit


def request_event(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Make KVM_REQ_EVENT to the vCPU, and kick it."""
    sync_vcpu(vm, vcpu)
    vcpu.requests |= EVENT
    kick(vm, vcpu)


def request_all(vm: ApicVm, request: int) -> None:
    """Make an APICv request to every vCPU.

    Those in guest exit at once; those that are blocked stay so and find the request when they
    wake up. Batched vCPUs are taken out of the batch only if entries and exits are recorded.
    """
    vm.batch.requests += 1
    vm.batch.last_request = request
    if vm.tracer.wants_entries:
        for vcpu in vm.members(vm.batched):
            sync_vcpu(vm, vcpu)
    vm.batch.kicked = vm.batch.kicked or bool(vm.batched)
    actor = vm.tracer.actor
    for vcpu in vm.members(vm.tracked):
        vcpu.requests = vcpu.requests & ~APICV_REQUESTS | request
        vm.touched |= 1 << vcpu.id
        if vcpu.run is RunState.GUEST:
            vm.tracer.act(vcpu)
            exit_for_kick(vm, vcpu)
    vm.tracer.act(actor)


def run_batched(vm: ApicVm) -> None:
    """Let all batched vCPUs serve the request that they were kicked for, and enter again."""
    batch = vm.batch
    batch.kicked = False
    batch.exits += 1
    active = vm.inhibit.active
    if active == batch.active:
        return
    batch.active = active
    if vm.policy.off_sets_event and not active:
        batch.events += 1
    if vm.policy.off_clears_running:
        runs = active and vm.module.ipiv
        vm.running = vm.running | vm.batched if runs else vm.running & ~vm.batched


def account_batched(vm: ApicVm) -> None:
    """Bring the counters and `apicv_active` of all batched vCPUs up to date."""
    for vcpu in vm.members(vm.batched):
        _account(vm, vcpu)


def update_fields(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Bring the fields of a vCPU up to date, for reading only; its group stays the same."""
    bit = 1 << vcpu.id
    if vm.batched & bit:
        _account(vm, vcpu)
    elif not vm.tracked & bit:
        _take_last_request(vm, vcpu)


def regroup(vm: ApicVm) -> None:
    """Sort the vCPUs that the command touched into the groups again.

    Precondition: nothing is left to do for any vCPU; `quiesce.quiesce` calls this at the end.
    """
    for vcpu in vm.members(vm.touched):
        bit = 1 << vcpu.id
        if vcpu.run is RunState.GUEST:
            if not can_be_batched(vm, vcpu):
                continue
            vm.batched |= bit
            vcpu.accounted.exits, vcpu.accounted.events = vm.batch.exits, vm.batch.events
        vcpu.accounted.requests = vm.batch.requests
        vm.tracked &= ~bit
    vm.touched = 0


def can_be_batched(vm: ApicVm, vcpu: ApicVcpu) -> bool:
    """Return whether a request would do the same to this vCPU as to all other batched ones."""
    lapic = vcpu.lapic
    if not vm.batched:
        vm.batch.active = vm.inhibit.active
    return (
        vcpu.apicv_active == vm.batch.active
        and not (
            vcpu.requests
            or vcpu.v_irq
            or vcpu.avic.ir_list
            or vcpu.in_l2
            or vcpu.user_pic.wants_window
        )
        and not (lapic.irr or lapic.accepts_pic or vcpu.nmi_pending or vcpu.injected)
        and lapic.ldr == vcpu.avic.ldr_reg
        and lapic.dfr == vcpu.avic.dfr_reg
    )


def _account(vm: ApicVm, vcpu: ApicVcpu) -> None:
    exits = vm.batch.exits - vcpu.accounted.exits
    if not exits:
        return
    vcpu.accounted.exits = vm.batch.exits
    vcpu.stats.exits += exits
    vcpu.stats.irq_exits += exits
    vcpu.stats.req_event += vm.batch.events - vcpu.accounted.events
    vcpu.accounted.events = vm.batch.events
    if vcpu.apicv_active != vm.batch.active:
        vcpu.apicv_active = vm.batch.active


def _take_last_request(vm: ApicVm, vcpu: ApicVcpu) -> None:
    if vcpu.accounted.requests == vm.batch.requests:
        return
    vcpu.accounted.requests = vm.batch.requests
    vcpu.requests = vcpu.requests & ~APICV_REQUESTS | vm.batch.last_request

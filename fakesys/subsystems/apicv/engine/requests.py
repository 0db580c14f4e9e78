"""Kicks, wakes, and requests to one vCPU or to all at once.

Like virt/kvm/kvm_main.c: kvm_vcpu_kick, kvm_vcpu_wake_up, kvm_make_all_cpus_request (v6.1).
A kick is carried out when the vCPU's turn comes (`entry.quiesce`); a request to all vCPUs
throws those in guest out at once.
"""

from __future__ import annotations

from fakesys.subsystems.apicv.state.tracer import Exit
from fakesys.subsystems.apicv.state.vcpu import APICV_REQUESTS, EVENT, ApicVcpu, RunState
from fakesys.subsystems.apicv.state.vm import ApicVm


def sync_vcpu(vm: ApicVm, vcpu: ApicVcpu) -> ApicVcpu:
    """Give the vCPU what it got in the crowd; from now on it is tracked by itself."""
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
        vcpu.requests |= vm.last_request
        exit_for_kick(vm, vcpu)
    return vcpu


def exit_guest(vm: ApicVm, vcpu: ApicVcpu, reason: Exit, info1: int = 0, info2: int = 0) -> None:
    """The vCPU leaves the guest."""
    vcpu.stats.exits += 1
    vm.tracer.kvm_exit(vcpu, reason, info1, info2)
    vcpu.run = RunState.HOST
    vcpu.kicked = False


def exit_for_kick(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """A kick reaches the vCPU in guest."""
    exit_guest(vm, vcpu, Exit.INTERRUPT)
    vcpu.stats.irq_exits += 1
    vm.runnable |= 1 << vcpu.id


def kick(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Make a vCPU look at its requests: out of the guest, or awake."""
    sync_vcpu(vm, vcpu)
    if vcpu.run is RunState.GUEST:
        vcpu.kicked = True
        vm.runnable |= 1 << vcpu.id
        return
    wake(vm, vcpu)


def wake(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Wake the vCPU if it sleeps and nobody woke it before."""
    bit = 1 << vcpu.id
    if vm.runnable & bit or not vcpu.blocked:
        return
    sync_vcpu(vm, vcpu)
    vcpu.stats.halt_wakeup += 1
    vm.runnable |= bit


def request_event(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """KVM_REQ_EVENT, and a kick."""
    sync_vcpu(vm, vcpu)
    vcpu.requests |= EVENT
    kick(vm, vcpu)


def request_all(vm: ApicVm, request: int) -> None:
    """An APICv request to every vCPU; those in guest leave it, sleeping ones sleep on."""
    vm.requests_made += 1
    vm.last_request = request
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
    """All plain vCPUs react to their kick and enter the guest again."""
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
        vm.running = vm.running | vm.batched if active else vm.running & ~vm.batched


def account_batched(vm: ApicVm) -> None:
    """Book the counts of all plain vCPUs."""
    for vcpu in vm.members(vm.batched):
        _account(vm, vcpu)


def update_fields(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Make the vCPU's own fields true, for somebody who only looks."""
    bit = 1 << vcpu.id
    if vm.batched & bit:
        _account(vm, vcpu)
    elif not vm.tracked & bit:
        _take_last_request(vm, vcpu)


def regroup(vm: ApicVm) -> None:
    """Sort the vCPUs that the command touched into their groups again."""
    for vcpu in vm.members(vm.touched):
        bit = 1 << vcpu.id
        if vcpu.run is RunState.GUEST:
            if not _can_be_batched(vm, vcpu):
                continue
            vm.batched |= bit
            vcpu.exits_seen, vcpu.events_seen = vm.batch.exits, vm.batch.events
        vcpu.requests_seen = vm.requests_made
        vm.tracked &= ~bit
    vm.touched = 0


def _can_be_batched(vm: ApicVm, vcpu: ApicVcpu) -> bool:
    """Would it react to a request like any other, without a line and without an interrupt?"""
    lapic = vcpu.lapic
    if not vm.batched:
        vm.batch.active = vm.inhibit.active
    return (
        vcpu.apicv_active == vm.batch.active
        and not (vcpu.requests or vcpu.v_irq or vcpu.ir_list or vcpu.in_l2 or vcpu.user_window)
        and not (lapic.irr or lapic.accepts_pic or vcpu.nmi_pending or vcpu.injected)
        and lapic.ldr == vcpu.ldr_reg
        and lapic.dfr == vcpu.dfr_reg
    )


def _account(vm: ApicVm, vcpu: ApicVcpu) -> None:
    exits = vm.batch.exits - vcpu.exits_seen
    if not exits:
        return
    vcpu.exits_seen = vm.batch.exits
    vcpu.stats.exits += exits
    vcpu.stats.irq_exits += exits
    vcpu.stats.req_event += vm.batch.events - vcpu.events_seen
    vcpu.events_seen = vm.batch.events
    if vcpu.apicv_active != vm.batch.active:
        vcpu.apicv_active = vm.batch.active
        vcpu.lapic.note_active(active=vcpu.apicv_active, scans=vm.policy.off_scans_irr)


def _take_last_request(vm: ApicVm, vcpu: ApicVcpu) -> None:
    if vcpu.requests_seen == vm.requests_made:
        return
    vcpu.requests_seen = vm.requests_made
    vcpu.requests = vcpu.requests & ~APICV_REQUESTS | vm.last_request

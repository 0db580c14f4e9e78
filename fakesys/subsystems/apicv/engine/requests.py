"""Kicks, wakes, and requests to one vCPU or to all at once.

Like virt/kvm/kvm_main.c: kvm_vcpu_kick, kvm_vcpu_wake_up, kvm_make_all_cpus_request (v6.1).
A kick is carried out when the vCPU's turn comes (`entry.quiesce`); a request to all vCPUs
throws those in guest out at once.
"""

from __future__ import annotations

from fakesys.subsystems.apicv.state.tracer import Exit
from fakesys.subsystems.apicv.state.vcpu import APICV_REQUESTS, EVENT, ApicVcpu, Run
from fakesys.subsystems.apicv.state.vm import ApicVm


def rouse(vm: ApicVm, vcpu: ApicVcpu) -> ApicVcpu:
    """Give the vCPU what it got in the crowd; from now on it is tracked by itself."""
    bit = 1 << vcpu.id
    if vm.dirty & bit:
        return vcpu
    vm.dirty |= bit
    if vm.eager & bit:
        return vcpu
    vm.eager |= bit
    if not vm.plain & bit:
        _take_last_request(vm, vcpu)
        return vcpu
    vm.plain &= ~bit
    _book(vm, vcpu)
    if vm.lazy.kicked:
        vcpu.requests |= vm.last_request
        throw_out(vm, vcpu)
    return vcpu


def leave(vm: ApicVm, vcpu: ApicVcpu, reason: Exit, info1: int = 0, info2: int = 0) -> None:
    """The vCPU leaves the guest."""
    vcpu.stats.exits += 1
    vm.lines.exit(vcpu, reason, info1, info2)
    vcpu.run = Run.HOST
    vcpu.kicked = False


def throw_out(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """A kick reaches the vCPU in guest."""
    leave(vm, vcpu, Exit.INTERRUPT)
    vcpu.stats.irq_exits += 1
    vm.todo |= 1 << vcpu.id


def kick(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Make a vCPU look at its requests: out of the guest, or awake."""
    rouse(vm, vcpu)
    if vcpu.run is Run.GUEST:
        vcpu.kicked = True
        vm.todo |= 1 << vcpu.id
        return
    wake(vm, vcpu)


def wake(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Wake the vCPU if it sleeps and nobody woke it before."""
    bit = 1 << vcpu.id
    if vm.todo & bit or not vcpu.blocked:
        return
    rouse(vm, vcpu)
    vcpu.stats.halt_wakeup += 1
    vm.todo |= bit


def request_event(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """KVM_REQ_EVENT, and a kick."""
    rouse(vm, vcpu)
    vcpu.requests |= EVENT
    kick(vm, vcpu)


def request_all(vm: ApicVm, request: int) -> None:
    """An APICv request to every vCPU; those in guest leave it, sleeping ones sleep on."""
    vm.requests_made += 1
    vm.last_request = request
    if vm.lines.crossings:
        for vcpu in vm.members(vm.plain):
            rouse(vm, vcpu)
    vm.lazy.kicked = vm.lazy.kicked or bool(vm.plain)
    actor = vm.lines.actor
    for vcpu in vm.members(vm.eager):
        vcpu.requests = vcpu.requests & ~APICV_REQUESTS | request
        vm.dirty |= 1 << vcpu.id
        if vcpu.run is Run.GUEST:
            vm.lines.act(vcpu)
            throw_out(vm, vcpu)
    vm.lines.act(actor)


def catch_up(vm: ApicVm) -> None:
    """All plain vCPUs react to their kick and enter the guest again."""
    lazy = vm.lazy
    lazy.kicked = False
    lazy.exits += 1
    active = vm.switch.active
    if active == lazy.active:
        return
    lazy.active = active
    if vm.policy.off_sets_event and not active:
        lazy.events += 1
    if vm.policy.off_clears_running:
        vm.marked = vm.marked | vm.plain if active else vm.marked & ~vm.plain


def book(vm: ApicVm) -> None:
    """Book the counts of all plain vCPUs."""
    for vcpu in vm.members(vm.plain):
        _book(vm, vcpu)


def refresh(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Make the vCPU's own fields true, for somebody who only looks."""
    bit = 1 << vcpu.id
    if vm.plain & bit:
        _book(vm, vcpu)
    elif not vm.eager & bit:
        _take_last_request(vm, vcpu)


def settle(vm: ApicVm) -> None:
    """Sort the vCPUs that the command touched into their groups again."""
    for vcpu in vm.members(vm.dirty):
        bit = 1 << vcpu.id
        if vcpu.run is Run.GUEST:
            if not _is_plain(vm, vcpu):
                continue
            vm.plain |= bit
            vcpu.exits_seen, vcpu.events_seen = vm.lazy.exits, vm.lazy.events
        vcpu.requests_seen = vm.requests_made
        vm.eager &= ~bit
    vm.dirty = 0


def _is_plain(vm: ApicVm, vcpu: ApicVcpu) -> bool:
    """Would it react to a request like any other, without a line and without an interrupt?"""
    lapic = vcpu.lapic
    if not vm.plain:
        vm.lazy.active = vm.switch.active
    return (
        vcpu.apicv_active == vm.lazy.active
        and not (vcpu.requests or vcpu.v_irq or vcpu.ir_list or vcpu.in_l2 or vcpu.user_window)
        and not (lapic.irr or lapic.accepts_pic or vcpu.nmi_pending or vcpu.injected)
        and lapic.ldr == vcpu.ldr_reg
        and lapic.dfr == vcpu.dfr_reg
    )


def _book(vm: ApicVm, vcpu: ApicVcpu) -> None:
    exits = vm.lazy.exits - vcpu.exits_seen
    if not exits:
        return
    vcpu.exits_seen = vm.lazy.exits
    vcpu.stats.exits += exits
    vcpu.stats.irq_exits += exits
    vcpu.stats.req_event += vm.lazy.events - vcpu.events_seen
    vcpu.events_seen = vm.lazy.events
    if vcpu.apicv_active != vm.lazy.active:
        vcpu.apicv_active = vm.lazy.active
        vcpu.lapic.note_active(active=vcpu.apicv_active, scans=vm.policy.off_scans_irr)


def _take_last_request(vm: ApicVm, vcpu: ApicVcpu) -> None:
    if vcpu.requests_seen == vm.requests_made:
        return
    vcpu.requests_seen = vm.requests_made
    vcpu.requests = vcpu.requests & ~APICV_REQUESTS | vm.last_request

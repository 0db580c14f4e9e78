"""Interprocessor interrupts: a write to ICR as AVIC hardware handles it, and what it leaves to KVM.

Like arch/x86/kvm/svm/avic.c: avic_incomplete_ipi_interception, avic_kick_target_vcpus (v6.1),
[5.3] svm.c; lapic.c:kvm_apic_send_ipi. Addresses of tables: AMD manual volume 2, chapter 15.29.
"""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct

from fakesys.subsystems.apicv.chips import lapic
from fakesys.subsystems.apicv.chips.lapic import Mode
from fakesys.subsystems.apicv.engine import delivery, guest_steps, requests, vcpu_enter
from fakesys.subsystems.apicv.engine.delivery import LapicIrq
from fakesys.subsystems.apicv.state.avic_tables import CLUSTER_DFR
from fakesys.subsystems.apicv.state.vcpu import ApicVcpu, IrqSource
from fakesys.subsystems.apicv.state.vm import ApicVm, bits_of
from fakesys.subsystems.kvm.vcpu_run.reasons import INCOMPLETE_IPI, ExitInfo

LOGICAL = 0x800
ASSERT = 0x4000
LEVEL = 0x8000
SHORTHAND = 0xC0000
SELF, ALL, OTHERS = 0x40000, 0x80000, 0xC0000
LOWEST_VECTOR = 16
BROADCAST = 0xFF
X2APIC_BROADCAST = 0xFFFFFFFF

INVALID_TARGET_WARNING = "WARNING: avic_incomplete_ipi_interception: Invalid IPI target"
UNKNOWN_FAILURE = "Unknown IPI interception"


class Failure(IntEnum):
    """Why hardware did not complete an IPI: bits 32-63 of EXITINFO2."""

    INVALID_TYPE = 0
    NOT_RUNNING = 1
    INVALID_TARGET = 2
    INVALID_VECTOR = 4


class Targets(Struct, frozen=True):
    """What hardware finds in its tables.

    `mask`: the vCPUs. `invalid`: index of the first entry that is not valid; -1 if all are.
    `single`: the destination names one id. `logical`: the logical id table was searched.
    """

    mask: int
    invalid: int = -1
    single: bool = False
    logical: bool = False


def send(vm: ApicVm, vcpu: ApicVcpu, dest: int, icrl: int) -> None:
    """Write ICR. `dest`: an APIC id or a logical destination; it is ignored with a shorthand.

    Precondition: the vCPU is tracked and in guest, within a command.
    """
    if vm.hides_apic(vcpu):
        return
    local = vcpu.lapic
    icrh = dest if local.x2apic else (dest & 0xFF) << 24
    local.icr2, local.icr = icrh, icrl
    if vm.accelerates(vcpu):
        _send_by_hardware(vm, vcpu, icrh, icrl)
        return
    guest_steps.leave_for_page(vcpu, lapic.ICR, _icr(vcpu, icrh, icrl), write=True)
    _write_icr(vm, vcpu, icrh, icrl)
    vcpu_enter.enter(vm, vcpu)


def _icr(vcpu: ApicVcpu, icrh: int, icrl: int) -> int:
    """Return what is written: in x2APIC mode both halves at once."""
    return icrh << 32 | icrl if vcpu.lapic.x2apic else icrl


def _write_icr(vm: ApicVm, vcpu: ApicVcpu, icrh: int, icrl: int) -> None:
    if vcpu.lapic.x2apic:
        vm.tracer.kvm_apic(lapic.ICR, icrh << 32 | icrl, write=True)
    else:
        vm.tracer.kvm_apic(lapic.ICR2, icrh, write=True)
        vm.tracer.kvm_apic(lapic.ICR, icrl, write=True)
    _send_by_kvm(vm, vcpu, icrh, icrl)


def _send_by_kvm(vm: ApicVm, vcpu: ApicVcpu, icrh: int, icrl: int) -> None:
    dest = icrh if vcpu.lapic.x2apic else icrh >> 24
    vm.tracer.kvm_apic_ipi(icrl, dest)
    mode = Mode(icrl >> 8 & 7)
    message = LapicIrq(icrl & 0xFF, mode, icrl & LEVEL, asserted=bool(icrl & ASSERT))
    delivery.deliver(vm, _matching(vm, vcpu, dest, icrl), message)


def _matching(vm: ApicVm, vcpu: ApicVcpu, dest: int, icrl: int) -> int:
    """Return the mask of the vCPUs that lapic.c:kvm_apic_match_dest (v6.1) finds."""
    shorthand = icrl & SHORTHAND
    if shorthand:
        all_vcpus = vm.map.physical(BROADCAST)
        return {SELF: vcpu.bit, ALL: all_vcpus, OTHERS: all_vcpus & ~vcpu.bit}[shorthand]
    wide = vcpu.lapic.x2apic
    if icrl & LOGICAL:
        return vm.map.logical(dest, wide=wide)
    return vm.map.physical(dest, wide=wide)


def _send_by_hardware(vm: ApicVm, vcpu: ApicVcpu, icrh: int, icrl: int) -> None:
    if icrl & (lapic.MODE_MASK | LEVEL):
        _exit_incomplete(vm, vcpu, icrh, icrl, Failure.INVALID_TYPE, 0)
        if vm.policy.rewrites_icr:
            _write_icr(vm, vcpu, icrh, icrl)
        else:
            _send_by_kvm(vm, vcpu, icrh, icrl)
        vcpu_enter.enter(vm, vcpu)
        return
    if icrl & 0xFF < LOWEST_VECTOR:
        _exit_incomplete(vm, vcpu, icrh, icrl, Failure.INVALID_VECTOR, 0)
        if vm.policy.rewrites_icr:
            vm.kvm.kvm.kernel.log(UNKNOWN_FAILURE)
        vcpu_enter.enter(vm, vcpu)
        return
    _deliver_fixed(vm, vcpu, icrh, icrl)


def _deliver_fixed(vm: ApicVm, vcpu: ApicVcpu, icrh: int, icrl: int) -> None:
    targets = _look_up(vm, vcpu, icrh, icrl)
    if targets.invalid >= 0:
        # Hardware delivers to none of the targets, the valid ones included.
        _invalid_target(vm, vcpu, icrh, icrl, targets.invalid)
        return
    asleep = targets.mask & ~vm.running
    post(vm, targets.mask, icrl & 0xFF)
    if asleep:
        index = _index_of(vm, vm.lowest(asleep), targets)
        _not_running(vm, vcpu, icrh, icrl, index, targets)


def _look_up(vm: ApicVm, vcpu: ApicVcpu, icrh: int, icrl: int) -> Targets:
    shorthand = icrl & SHORTHAND
    if shorthand == SELF:
        return Targets(vcpu.bit, single=True)
    wide = vcpu.lapic.x2apic
    dest = icrh if wide else icrh >> 24
    if shorthand or dest == (X2APIC_BROADCAST if wide else BROADCAST):
        all_vcpus = vm.tables.with_entry
        return Targets(all_vcpus & ~vcpu.bit if shorthand == OTHERS else all_vcpus)
    if icrl & LOGICAL:
        return _look_up_logical(vm, _logical_indices(vcpu, dest, wide=wide), wide=wide)
    known = vm.tables.physical.entries.get(dest)
    if known is None:
        return Targets(0, invalid=dest)
    return Targets(1 << known.vcpu_id, single=True)


def _look_up_logical(vm: ApicVm, indices: list[int], *, wide: bool) -> Targets:
    mask, invalid = 0, -1
    for index in indices:
        apic_id = index if wide else vm.tables.logical.entries.get(index)
        known = None if apic_id is None else vm.tables.physical.entries.get(apic_id)
        if known is not None:
            mask |= 1 << known.vcpu_id
        elif invalid < 0:
            invalid = index
    return Targets(mask, invalid, single=len(indices) == 1, logical=True)


def _logical_indices(vcpu: ApicVcpu, dest: int, *, wide: bool) -> list[int]:
    if wide:
        cluster = dest >> 16
        return [cluster << 4 | bit for bit in bits_of(dest & 0xFFFF)]
    if vcpu.lapic.dfr == CLUSTER_DFR:
        return [(dest >> 4) * 4 + bit for bit in bits_of(dest & 0xF)]
    return bits_of(dest)


def _index_of(vm: ApicVm, vcpu: ApicVcpu, targets: Targets) -> int:
    """Return the index of a target in the table that was searched: a physical or a logical id."""
    entry = vcpu.avic.entry
    assert entry is not None
    if not targets.logical or vcpu.lapic.x2apic:
        return entry.apic_id
    owners = vm.tables.physical.entries
    logical = vm.tables.logical.entries.items()
    return next(index for index, apic_id in logical if owners.get(apic_id) is entry)


def post(vm: ApicVm, mask: int, vector: int) -> None:
    """Set IRR of these vCPUs and ring the doorbells of those with IsRunning, as hardware does."""
    mask &= ~vm.irr_known.get(vector, 0)
    if not mask:
        return
    bit = 1 << vector
    waiting = 0
    batched = 0 if vm.batch.kicked else vm.batched & vm.running
    for vcpu in vm.members(mask):
        local = vcpu.lapic
        if local.irr & bit:
            waiting |= vcpu.bit
            continue
        if batched >> vcpu.id & 1 and vcpu.interrupts_on and vector >> 4 > local.ppr >> 4:
            # No other vector is pending, so the handler starts at once; see serve_by_hardware.
            _start_at_once(vm, vcpu, bit)
            continue
        requests.sync_vcpu(vm, vcpu)
        local.request(vector)
        if vm.is_running(vcpu):
            delivery.serve_by_hardware(vm, vcpu)
    vm.irr_known[vector] = vm.irr_known.get(vector, 0) | waiting


def _start_at_once(vm: ApicVm, vcpu: ApicVcpu, bit: int) -> None:
    level = bool(vcpu.lapic.tmr & bit)
    if vm.auto_handler and not level:
        return
    vcpu.lapic.isr |= bit
    vcpu.interrupts_on = False
    if vm.auto_handler:
        vm.handlers.append((vcpu, IrqSource.LAPIC))


def _exit_incomplete(
    vm: ApicVm, vcpu: ApicVcpu, icrh: int, icrl: int, failure: Failure, index: int
) -> None:
    index &= vm.policy.index_mask
    info = ExitInfo(icrh << 32 | icrl, failure << 32 | index)
    requests.exit_guest(vcpu, INCOMPLETE_IPI, info)
    vm.tracer.kvm_avic_incomplete_ipi(vcpu, icrh, icrl, failure, index)


def _invalid_target(vm: ApicVm, vcpu: ApicVcpu, icrh: int, icrl: int, index: int) -> None:
    _exit_incomplete(vm, vcpu, icrh, icrl, Failure.INVALID_TARGET, index)
    if vm.policy.loses_invalid_ipi:
        vm.warn_once(INVALID_TARGET_WARNING)
    else:
        _send_by_kvm(vm, vcpu, icrh, icrl)
    vcpu_enter.enter(vm, vcpu)


def _not_running(
    vm: ApicVm, vcpu: ApicVcpu, icrh: int, icrl: int, index: int, targets: Targets
) -> None:
    """Exit because some targets do not run, and wake those; IRR is set on all of them."""
    _exit_incomplete(vm, vcpu, icrh, icrl, Failure.NOT_RUNNING, index)
    if not vm.policy.completes_delivery:
        for target in vm.members(targets.mask & ~vm.running):
            requests.wake(vm, target)
        vcpu_enter.enter(vm, vcpu)
        return
    if not targets.single:
        vm.tracer.kvm_avic_kick_vcpu_slowpath(icrh, icrl, index & vm.policy.index_mask)
    message = LapicIrq(icrl & 0xFF)
    for target in vm.members(targets.mask):
        delivery.complete(vm, target, message)
    vcpu_enter.enter(vm, vcpu)

"""The interrupts of one vCPU in a snapshot."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fakesys.core.saved import U8, U16, U32, U63, Natural, Saved, check, check_range
from fakesys.subsystems.apicv.devices.synic import SINTS
from fakesys.subsystems.apicv.saved.chips import SavedLapic, restore_lapic, save_lapic
from fakesys.subsystems.apicv.state.avic_tables import PhysicalEntry, backing_page
from fakesys.subsystems.apicv.state.policy import InhibitStyle
from fakesys.subsystems.apicv.state.vcpu import (
    APICV_REQUESTS,
    EVENT,
    NMI,
    ApicVcpu,
    Cpuid,
    IrqSource,
    QueuedIrq,
    RunState,
    Startup,
    UserPic,
)
from fakesys.subsystems.apicv.state.vm import ApicVm

_REQUESTS = APICV_REQUESTS | EVENT | NMI
_STOPPABLE = (RunState.GUEST, RunState.HALTED, RunState.UNINIT)
Sint = Annotated[int, Meta(ge=0, lt=SINTS)]


class SavedQueuedIrq(Saved, frozen=True):
    """An interrupt that is to be injected again."""

    vector: U16
    source: IrqSource


class SavedEntry(Saved, frozen=True):
    """The entry in the physical id table. `listed`: the table has it at `apic_id`."""

    host_id: U16
    apic_id: U32
    listed: bool


class SavedStartup(Saved, frozen=True):
    """See `Startup`."""

    init_pending: bool
    sipi_pending: bool
    waits_for_sipi: bool


class SavedApicVcpu(Saved, frozen=True):
    """One vCPU; see `ApicVcpu`, `AvicVcpu`, `UserPic`, `Cpuid`, `Synic`."""

    run: RunState
    stopped_from: RunState
    blocked_since: U63
    interrupts_on: bool
    lapic: SavedLapic
    apicv_active: bool
    requests: Natural
    v_irq: bool
    injected: SavedQueuedIrq | None
    nmi_pending: bool
    smi_pending: bool
    in_l2: bool
    block_irq: bool
    counts_window: bool
    entry: SavedEntry | None
    ldr_reg: U32
    dfr_reg: Natural
    is_running: bool
    startup: SavedStartup
    user_vector: U8 | None
    wants_window: bool
    cpuid_svm: bool
    cpuid_x2apic: bool
    synic: bool
    auto_eoi: dict[Sint, U8]


def save_vcpu(vm: ApicVm, vcpu: ApicVcpu) -> SavedApicVcpu:
    """Return what a snapshot holds of a vCPU. Precondition: its fields are up to date."""
    startup = vcpu.startup
    return SavedApicVcpu(
        run=vcpu.run,
        stopped_from=vcpu.stopped_from,
        blocked_since=vcpu.blocked_since,
        interrupts_on=vcpu.interrupts_on,
        lapic=save_lapic(vcpu.lapic),
        apicv_active=vcpu.apicv_active,
        requests=vcpu.requests,
        v_irq=vcpu.v_irq,
        injected=_save_queued(vcpu.injected),
        nmi_pending=vcpu.nmi_pending,
        smi_pending=vcpu.smi_pending,
        in_l2=vcpu.in_l2,
        block_irq=vcpu.block_irq,
        counts_window=vcpu.counts_window,
        entry=_save_entry(vm, vcpu.avic.entry),
        ldr_reg=vcpu.avic.ldr_reg,
        dfr_reg=vcpu.avic.dfr_reg,
        is_running=vcpu.avic.is_running,
        startup=SavedStartup(
            init_pending=startup.init_pending,
            sipi_pending=startup.sipi_pending,
            waits_for_sipi=startup.waits_for_sipi,
        ),
        user_vector=vcpu.user_pic.vector,
        wants_window=vcpu.user_pic.wants_window,
        cpuid_svm=vcpu.cpuid.svm,
        cpuid_x2apic=vcpu.cpuid.x2apic,
        synic=vcpu.synic.enabled,
        auto_eoi=dict(vcpu.synic.auto_eoi),
    )


def restore_vcpu(saved: SavedApicVcpu, vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Fill a new vCPU, and list its entry in the table of the VM. Raises BadSnapshotError."""
    what = f"vCPU {vcpu.id}"
    _check_run(saved, vm, vcpu, what)
    check(not saved.requests & ~_REQUESTS, f"{what}: requests {saved.requests:#x}")
    check(not saved.apicv_active or vm.avic, f"{what}: AVIC is on, which {vm.kvm.name} has not")
    check(saved.user_vector is not None or not saved.wants_window, f"{what}: no vector is queued")
    counts = vm.policy.style is InhibitStyle.COUNTED
    check(counts or not saved.counts_window, f"{what}: this kernel counts no windows")
    check_range(saved.dfr_reg, 1 << 64, f"{what}: DFR")
    vcpu.run, vcpu.stopped_from = saved.run, saved.stopped_from
    vcpu.blocked_since, vcpu.interrupts_on = saved.blocked_since, saved.interrupts_on
    restore_lapic(saved.lapic, vcpu.lapic)
    vcpu.apicv_active, vcpu.requests = saved.apicv_active, saved.requests
    vcpu.v_irq, vcpu.nmi_pending = saved.v_irq, saved.nmi_pending
    vcpu.smi_pending = saved.smi_pending
    vcpu.in_l2, vcpu.block_irq = saved.in_l2, saved.block_irq
    vcpu.counts_window = saved.counts_window
    if saved.injected is not None:
        vcpu.injected = QueuedIrq(saved.injected.vector, saved.injected.source)
    startup = saved.startup
    vcpu.startup = Startup(startup.init_pending, startup.sipi_pending, startup.waits_for_sipi)
    vcpu.user_pic = UserPic(saved.user_vector, saved.wants_window)
    vcpu.cpuid = Cpuid(saved.cpuid_svm, saved.cpuid_x2apic)
    vcpu.synic.enabled = saved.synic
    vcpu.synic.auto_eoi.update(saved.auto_eoi)
    _restore_avic(saved, vm, vcpu, what)


def _save_queued(queued: QueuedIrq | None) -> SavedQueuedIrq | None:
    return None if queued is None else SavedQueuedIrq(vector=queued.vector, source=queued.source)


def _save_entry(vm: ApicVm, entry: PhysicalEntry | None) -> SavedEntry | None:
    if entry is None:
        return None
    listed = vm.tables.physical.entries.get(entry.apic_id) is entry
    return SavedEntry(host_id=entry.host_id, apic_id=entry.apic_id, listed=listed)


def _check_run(saved: SavedApicVcpu, vm: ApicVm, vcpu: ApicVcpu, what: str) -> None:
    check(saved.run is not RunState.HOST, f"{what} is neither in user space nor in guest")
    check(saved.stopped_from in _STOPPABLE, f"{what} cannot be stopped from there")
    check(saved.blocked_since <= vm.now_ns, f"{what} blocks in the future")
    in_guest = saved.run is RunState.GUEST
    # A command that accesses memory may be in the guest, too.
    check(vcpu.kvm_run.in_guest or not in_guest, f"{what} is in the guest, or it is not")
    stopped = saved.run is RunState.STOPPED
    check(stopped or not vcpu.kvm.closed, f"{what} is closed and not stopped")


def _restore_avic(saved: SavedApicVcpu, vm: ApicVm, vcpu: ApicVcpu, what: str) -> None:
    avic, entry, highest = vcpu.avic, saved.entry, vm.module.highest_id
    avic.ldr_reg, avic.dfr_reg, avic.is_running = saved.ldr_reg, saved.dfr_reg, saved.is_running
    has_entry = vm.avic and vcpu.id <= highest
    may_lack = vm.policy.entry_when_active and not saved.apicv_active
    right = has_entry if entry is not None else may_lack or not has_entry
    check(right, f"{what}: the entry in the table of physical ids")
    if entry is None:
        return
    check_range(entry.host_id, 1 << vm.policy.host_id_bits, f"{what}: the id of its host CPU")
    check_range(entry.apic_id, highest + 1, f"{what}: the index of its entry")
    moves = vm.policy.id_moves_entry
    check(moves or entry.apic_id == vcpu.id, f"{what}: the index of its entry")
    made = PhysicalEntry(vcpu.id, backing_page(vcpu.id), entry.host_id, entry.apic_id)
    avic.entry = made
    if entry.listed:
        taken = entry.apic_id in vm.tables.physical.entries
        check(not taken, f"two entries have index {entry.apic_id}")
        vm.tables.physical.add(entry.apic_id, made)

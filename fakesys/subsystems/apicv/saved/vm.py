"""The interrupts of one VM in a snapshot: controllers, tables, devices, groups of vCPUs."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fakesys.core.clock import SavedTimer
from fakesys.core.saved import U8, U32, Natural, Saved, Word, check, check_range, mask_text
from fakesys.subsystems.apicv.chips.lapic import Mode
from fakesys.subsystems.apicv.engine import requests, routing
from fakesys.subsystems.apicv.model import Apicv
from fakesys.subsystems.apicv.saved.chips import (
    SavedIoapic,
    SavedPic,
    SavedPit,
    pit_of,
    restore_ioapic,
    restore_pic,
    save_ioapic,
    save_pic,
    save_pit,
)
from fakesys.subsystems.apicv.saved.inhibit import SavedInhibit, restore_inhibit, save_inhibit
from fakesys.subsystems.apicv.saved.vcpus import SavedApicVcpu, restore_vcpu, save_vcpu
from fakesys.subsystems.apicv.state.policy import SynicRule
from fakesys.subsystems.apicv.state.vcpu import ApicVcpu, AssignedIrq, MsiRoute, RunState
from fakesys.subsystems.apicv.state.vm import ApicVm
from fakesys.subsystems.kvm.vm import Irqchip, Vm

# One bit for each id that a vCPU can have.
VcpuMask = Annotated[str, Meta(pattern=r"\A[0-9a-f]{1,1024}\Z")]
# Indexes of the table of logical ids: clusters of 4.
LogicalIndex = Annotated[int, Meta(ge=0, lt=64)]


class SavedDevice(Saved, frozen=True):
    """An interrupt of an assigned device. `target`: id of the vCPU that it is posted to."""

    name: Word
    host_irq: Natural
    gsi: Natural
    vector: U8
    dest: U32
    logical: bool
    mode: Mode
    level: bool
    target: Natural | None


class SavedTables(Saved, frozen=True):
    """AVIC's tables; physical entries are in `SavedApicVcpu`.

    `logical`: APIC id by index. `with_entry`, `running`: masks of vCPUs.
    """

    logical: dict[LogicalIndex, U32]
    with_entry: VcpuMask
    running: VcpuMask


class SavedControllers(Saved, frozen=True):
    """PIC, IOAPIC and what belongs to them; see `ApicVm`. `rtc`: owed EOIs, vector by vCPU id."""

    pic: SavedPic
    ioapic: SavedIoapic
    pit: SavedPit | None
    rtc: dict[Natural, U8]
    eoi_inject: list[SavedTimer]


class SavedApicVm(Saved, frozen=True):
    """One VM, its vCPUs in the order of their creation.

    `page`, `page_updates`: whether the APIC access page exists, and updates of its memslot.
    `tracked`, `batched`: masks of vCPUs, see `state/vm.py`.
    """

    vm_id: U32
    vcpus: list[SavedApicVcpu]
    page: bool
    page_updates: Natural
    inhibit: SavedInhibit
    controllers: SavedControllers | None
    tables: SavedTables
    devices: list[SavedDevice]
    sev: bool
    auto_handler: bool
    tracked: VcpuMask
    batched: VcpuMask


def save_vm(vm: ApicVm) -> SavedApicVm:
    """Return what a snapshot holds of a VM."""
    for vcpu in vm.vcpus.values():
        requests.update_fields(vm, vcpu)
    return SavedApicVm(
        vm_id=vm.vm_id,
        vcpus=[save_vcpu(vm, vcpu) for vcpu in vm.vcpus.values()],
        page=vm.access_page.present,
        page_updates=vm.access_page.memslot_updates,
        inhibit=save_inhibit(vm.inhibit),
        controllers=_save_controllers(vm),
        tables=SavedTables(
            logical=dict(vm.tables.logical.entries),
            with_entry=mask_text(vm.tables.with_entry),
            running=mask_text(vm.running),
        ),
        devices=[_save_device(device) for device in vm.devices.values()],
        sev=vm.sev,
        auto_handler=vm.auto_handler,
        tracked=mask_text(vm.tracked),
        batched=mask_text(vm.batched),
    )


def restore_vm(saved: SavedApicVm, apicv: Apicv, kvm: Vm) -> None:
    """Make the state of a VM. Raises BadSnapshotError."""
    vm = apicv.new_vm(kvm, saved.vm_id)
    check(len(saved.vcpus) == len(kvm.vcpus), f"vCPUs of {kvm.name}")
    for found, vcpu in zip(saved.vcpus, kvm.vcpus.values(), strict=True):
        new = ApicVcpu(vcpu, apicv.runs.of(vcpu))
        vm.add(new)
        restore_vcpu(found, vm, new)
    windows = sum(vcpu.counts_window for vcpu in vm.vcpus.values())
    restore_inhibit(saved.inhibit, vm, windows)
    if vm.policy.synic is SynicRule.WITH_AUTO_EOI:
        vm.synic_auto_eoi_used = sum(bool(vcpu.synic.auto_eoi) for vcpu in vm.vcpus.values())
    vm.sev, vm.auto_handler = saved.sev, saved.auto_handler
    _restore_page(saved, vm)
    _restore_controllers(saved.controllers, apicv, vm)
    _restore_tables(saved.tables, vm)
    for device in saved.devices:
        _restore_device(device, vm)
    _restore_groups(saved, vm)


def _save_controllers(vm: ApicVm) -> SavedControllers | None:
    if vm.pic is None or vm.ioapic is None:
        return None
    timers = [timer.saved for timer in vm.eoi_inject]
    return SavedControllers(
        pic=save_pic(vm.pic),
        ioapic=save_ioapic(vm.ioapic),
        pit=None if vm.pit is None else save_pit(vm.pit),
        rtc=dict(vm.rtc.vectors),
        eoi_inject=[timer for timer in timers if timer is not None],
    )


def _save_device(device: AssignedIrq) -> SavedDevice:
    route, target = device.route, device.target
    return SavedDevice(
        name=device.name,
        host_irq=device.host_irq,
        gsi=device.gsi,
        vector=route.vector,
        dest=route.dest,
        logical=route.logical,
        mode=route.mode,
        level=route.level,
        target=None if target is None else target.id,
    )


def _restore_page(saved: SavedApicVm, vm: ApicVm) -> None:
    page = vm.access_page
    there = page.exists()
    check(there == saved.page, f"the APIC access page of {vm.kvm.name}")
    page.present, page.memslot_updates = saved.page, saved.page_updates


def _restore_controllers(saved: SavedControllers | None, apicv: Apicv, vm: ApicVm) -> None:
    wanted = vm.kvm.irqchip is Irqchip.KERNEL
    check(wanted == (saved is not None), f"the controllers of {vm.kvm.name}")
    if saved is None:
        return
    routing.make_controllers(vm)
    assert vm.pic is not None
    assert vm.ioapic is not None
    restore_pic(saved.pic, vm.pic)
    restore_ioapic(saved.ioapic, vm.ioapic)
    vm.pit = None if saved.pit is None else pit_of(saved.pit)
    check(saved.rtc.keys() <= vm.vcpus.keys(), f"an EOI is owed by no vCPU of {vm.kvm.name}")
    vm.rtc.vectors, vm.rtc.pending_eoi = dict(saved.rtc), len(saved.rtc)
    check(saved.eoi_inject or not vm.ioapic.delayed, "a pin is delayed for ever")
    for timer in saved.eoi_inject:
        apicv.restore_eoi_inject(vm, vm.ioapic, timer)


def _restore_tables(saved: SavedTables, vm: ApicVm) -> None:
    vm.tables.logical.entries.update(saved.logical)
    vm.tables.with_entry = _mask(saved.with_entry, vm)
    vm.running = _mask(saved.running, vm)
    known = sum(vcpu.bit for vcpu in vm.vcpus.values() if vcpu.avic.entry is not None)
    check(not vm.tables.with_entry & ~known, f"a vCPU of {vm.kvm.name} has no physical entry")


def _restore_device(saved: SavedDevice, vm: ApicVm) -> None:
    name = saved.name
    check(name not in vm.devices, f"there are two devices {name!r}")
    check_range(saved.host_irq, 1 << 64, f"the interrupt of {name!r}")
    check_range(saved.gsi, 1 << 64, f"the GSI of {name!r}")
    route = MsiRoute(saved.vector, saved.dest, saved.logical, saved.mode, saved.level)
    device = vm.devices[name] = AssignedIrq(name, saved.host_irq, saved.gsi, route)
    if saved.target is not None:
        check(saved.target in vm.vcpus, f"{name!r} is posted to no vCPU")
        target = device.target = vm.vcpus[saved.target]
        device.guest_mode = target.apicv_active
        target.avic.ir_list[name] = device


def _restore_groups(saved: SavedApicVm, vm: ApicVm) -> None:
    vm.tracked, vm.batched = _mask(saved.tracked, vm), _mask(saved.batched, vm)
    check(not vm.tracked & vm.batched, f"a vCPU of {vm.kvm.name} is in two groups")
    active = {vcpu.apicv_active for vcpu in vm.members(vm.batched)}
    check(len(active) < 2, f"batched vCPUs of {vm.kvm.name} differ")
    vm.batch.active = True in active
    for vcpu in vm.vcpus.values():
        bit, runs = vcpu.bit, vcpu.run is RunState.GUEST
        check(runs or not vm.batched & bit, f"vCPU {vcpu.id} is batched and not in guest")
        check(not runs or (vm.batched | vm.tracked) & bit, f"vCPU {vcpu.id} is in no group")
        alike = not vm.batched & bit or requests.can_be_batched(vm, vcpu)
        check(alike, f"vCPU {vcpu.id} is batched and differs from others")


def _mask(text: VcpuMask, vm: ApicVm) -> int:
    mask = int(text, 16)
    every = sum(vcpu.bit for vcpu in vm.vcpus.values())
    check(not mask & ~every, f"a mask of vCPUs of {vm.kvm.name} names others")
    return mask

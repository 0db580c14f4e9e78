"""Interrupt virtualization of all VMs: the last extension of `Kvm` in `machine/kvm/models.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from errno import EBUSY, EEXIST, EINVAL, ENODEV
from typing import Protocol

from fakesys.core.clock import SavedTimer, Timer
from fakesys.core.errors import KernelError
from fakesys.subsystems.apicv.chips.ioapic import Ioapic
from fakesys.subsystems.apicv.chips.pit import Pit
from fakesys.subsystems.apicv.engine import (
    refresh,
    requests,
    routing,
    vcpu_enter,
    vcpu_load,
    vcpu_run,
)
from fakesys.subsystems.apicv.engine.apic_ids import ids_changed
from fakesys.subsystems.apicv.engine.quiesce import command
from fakesys.subsystems.apicv.state.access_page import GuestMemory
from fakesys.subsystems.apicv.state.inhibit_reasons import Reason
from fakesys.subsystems.apicv.state.params import PIT, REINJECT, module_of
from fakesys.subsystems.apicv.state.policy import ApicvPolicy, TooBig
from fakesys.subsystems.apicv.state.tracer import ApicTracer
from fakesys.subsystems.apicv.state.vcpu import UPDATE, ApicVcpu, RunState
from fakesys.subsystems.apicv.state.vm import ApicVm, Engine, takes_irqchip
from fakesys.subsystems.kvm.model import Kvm
from fakesys.subsystems.kvm.vcpu_run.extension import VcpuRuns
from fakesys.subsystems.kvm.vm import Irqchip, Vcpu, Vm, VmOptions


class Memories(Protocol):
    """The memory model, as far as interrupt virtualization needs it."""

    @property
    def memories(self) -> Mapping[Vm, GuestMemory]:
        """The memory of each VM. It must be there before `Apicv.add_vm` is called."""


class Apicv:
    """AVIC of every VM.

    `policy`: how the chosen kernel behaves. `settings`: values, as text, of the parameters of the
    module kvm that were written and that no model depends on. `last_vm_id`: AVIC id that the last
    VM got.
    """

    def __init__(self, kvm: Kvm, policy: ApicvPolicy, memory: Memories, runs: VcpuRuns) -> None:
        self.kvm = kvm
        self.policy = policy
        self.tracer = ApicTracer(kvm.kernel.bus)
        self.settings = runs.settings
        self._memory = memory
        self.runs = runs
        self._engine = Engine(requests.request_all, self._after)
        self._vms: dict[Vm, ApicVm] = {}
        self.last_vm_id = 0

    def of(self, vm: Vm) -> ApicVm:
        """Return the state of a VM."""
        return self._vms[vm]

    def vcpu_of(self, vcpu: Vcpu) -> tuple[ApicVm, ApicVcpu]:
        """Return the state of a VM and of its vCPU; that of the vCPU is up to date."""
        vm = self._vms[vcpu.vm]
        found = vm.vcpus[vcpu.id]
        requests.update_fields(vm, found)
        return vm, found

    def by_vm_id(self, vm_id: int) -> ApicVm | None:
        """Return the VM that has this AVIC id; None for none."""
        return next((vm for vm in self._vms.values() if vm.vm_id == vm_id), None)

    # --- Extension of Kvm ---

    def check_vm(self, irqchip: Irqchip, options: VmOptions) -> None:
        """Raise ENODEV for a PIT without a PIC in the kernel."""
        if options.get(PIT) and irqchip is not Irqchip.KERNEL:
            raise KernelError(ENODEV, "a PIT in the kernel needs a PIC there")

    def add_vm(self, vm: Vm, options: VmOptions) -> None:
        """Add the state of a new VM with the irqchip and the PIT that were asked for."""
        new = self.new_vm(vm, self._new_vm_id(avic=module_of(self.kvm.params).avic))
        new.inhibit.start(avic=new.module.avic)
        if vm.irqchip is not Irqchip.NONE:
            self.add_irqchip(vm)
        if vm.irqchip is Irqchip.KERNEL and options.get(PIT) is not False:
            self._create_pit(new, reinject=options.get(REINJECT))

    def new_vm(self, vm: Vm, vm_id: int) -> ApicVm:
        """Return the state of a VM before anything was created in it."""
        module = module_of(self.kvm.params)
        memory = self._memory.memories[vm]
        new = ApicVm(vm, self.policy, module, self.tracer, vm_id, memory, self._engine)
        new.polling = self.runs.polling
        self._vms[vm] = new
        vm.before_read.append(lambda: requests.account_batched(new))
        return new

    def check_irqchip(self, vm: Vm) -> None:
        """Accept every VM."""

    def add_irqchip(self, vm: Vm) -> None:
        """Do KVM_CREATE_IRQCHIP, or enable KVM_CAP_SPLIT_IRQCHIP."""
        apic_vm = self._vms[vm]
        with command(apic_vm):
            if vm.irqchip is Irqchip.KERNEL:
                routing.make_controllers(apic_vm)
            apic_vm.inhibit.irqchip_created(
                allowed=takes_irqchip(self.policy, apic_vm.module, vm.irqchip)
            )

    def check_vcpu(self, vm: Vm, vcpu_id: int) -> None:
        """Raise EINVAL for an id above AVIC's table in kernels that refuse it.

        Raises EEXIST if a memslot of the owner is where the APIC access page must be created.
        """
        apic_vm = self._vms[vm]
        if not apic_vm.avic:
            return
        self.check_ids(vcpu_id, vm.irqchip)
        if self._creates_page(apic_vm) and apic_vm.access_page.is_obstructed():
            raise KernelError(EEXIST, "the owner's memory lies where the APIC access page must be")

    def _creates_page(self, vm: ApicVm) -> bool:
        """Return whether a new vCPU would create the access page."""
        starts_active = vm.inhibit.active or not self.policy.born_as_vm
        return starts_active and not vm.access_page.present

    def check_ids(self, highest: int, irqchip: Irqchip) -> None:
        """Raise EINVAL if a VM with AVIC and this irqchip cannot have a vCPU of this id."""
        module = module_of(self.kvm.params)
        used = module.avic and takes_irqchip(self.policy, module, irqchip)
        refused = self.policy.too_big is TooBig.REFUSED and used
        if refused and highest > module.highest_id:
            last = module.highest_id
            raise KernelError(EINVAL, f"vCPU id {highest} is above {last}, the last for AVIC")

    def add_vcpu(self, vcpu: Vcpu, *, start: bool) -> None:
        """Add the state of a new vCPU; then vCPU 0 enters its guest, the others wait for INIT."""
        vm = self._vms[vcpu.vm]
        new = ApicVcpu(vcpu, self.runs.of(vcpu))
        with command(vm):
            vm.add(new)
            vm.tracked |= new.bit
            vm.touched |= new.bit
            vm.tracer.act(new)
            if vm.avic:
                self._set_up_avic(vm, new)
            ids_changed(vm)
            if not start:
                new.stopped_from, new.run = new.run, RunState.STOPPED
                return
            new.kvm_run.begin(blocks=new.run is not RunState.GUEST)
            if new.run is RunState.GUEST:
                new.avic.is_running = vm.inhibit.active or not self.policy.born_as_vm
                vcpu_load.load(vm, new)
                vcpu_enter.enter(vm, new)
            else:
                vcpu_enter.block(vm, new, RunState.UNINIT)

    def close_vcpu(self, vcpu: Vcpu) -> None:
        """Stop a vCPU whose descriptor was closed: its thread never runs it again."""
        self.hold_vcpu(vcpu)
        self._vms[vcpu.vm].vcpus[vcpu.id].run = RunState.STOPPED

    def hold_vcpu(self, vcpu: Vcpu) -> None:
        """Keep the vCPU out of KVM_RUN."""
        vm = self._vms[vcpu.vm]
        vcpu_run.hold(vm, vm.vcpus[vcpu.id])

    def is_in_guest(self, vcpu: Vcpu) -> bool:
        """Return whether the vCPU runs the guest now."""
        found = self._vms[vcpu.vm].vcpus.get(vcpu.id)
        return found is not None and found.run is RunState.GUEST

    def remove_vm(self, vm: Vm) -> None:
        """Drop the state of a VM, with its timers."""
        removed = self._vms.pop(vm)
        for timer in removed.eoi_inject:
            timer.cancel()
        removed.forget_parts()

    # --- ioctls of a VM ---

    def start_sev(self, vm: Vm) -> None:
        """Do KVM_SEV_INIT. Raises EINVAL once vCPUs exist, EBUSY the second time."""
        apic_vm = self._vms[vm]
        if vm.vcpus:
            raise KernelError(EINVAL, f"{vm.name} has vCPUs already")
        if apic_vm.sev:
            raise KernelError(EBUSY, f"{vm.name} is an SEV guest already")
        with command(apic_vm):
            apic_vm.sev = True
            apic_vm.inhibit.set(Reason.SEV)

    def _set_up_avic(self, vm: ApicVm, vcpu: ApicVcpu) -> None:
        """Do what avic.c:avic_init_backing_page and svm.c:svm_create_vcpu (v6.1) do."""
        if vcpu.id > vm.module.highest_id:
            vm.inhibit.set(Reason.PHYSICAL_ID_TOO_BIG)
            vcpu.requests |= UPDATE
            return
        if vm.inhibit.active or not self.policy.entry_when_active:
            vcpu_load.add_entry(vm, vcpu)
        if not self.policy.born_as_vm:
            vm.access_page.create()
            vcpu.apicv_active = True
            vcpu.requests |= UPDATE
        elif vm.inhibit.active:
            vm.access_page.create()
            refresh.set_active(vm, vcpu, active=True)

    def _create_pit(self, vm: ApicVm, *, reinject: bool) -> None:
        """Do KVM_CREATE_PIT2, and KVM_REINJECT_CONTROL where no reinjection was asked for."""
        with command(vm):
            vm.pit = Pit(reinject=True)
            if self.policy.pit_reinject_inhibits:
                vm.inhibit.set(Reason.PIT_REINJ)
            if not reinject:
                vm.pit.reinject = False
                vm.inhibit.clear(Reason.PIT_REINJ)

    def _new_vm_id(self, *, avic: bool) -> int:
        """Return the next id that no VM has; 0 without AVIC. Like avic.c:avic_vm_init (v6.1)."""
        if not avic:
            return 0
        used = {vm.vm_id for vm in self._vms.values()} | {0}
        limit = 1 << self.policy.vm_id_bits
        self.last_vm_id = (self.last_vm_id + 1) % limit
        while self.last_vm_id in used:
            self.last_vm_id = (self.last_vm_id + 1) % limit
        return self.last_vm_id

    def restore_eoi_inject(self, vm: ApicVm, ioapic: Ioapic, saved: SavedTimer) -> None:
        """Arm a timer of `ApicVm.eoi_inject` from a snapshot. Raises BadSnapshotError."""
        work = _as_command(vm, lambda: routing.eoi_inject_work(vm, ioapic))
        vm.eoi_inject.append(self.kvm.kernel.clock.at(saved, work))

    def _after(self, vm: ApicVm, seconds: float, action: Callable[[], None]) -> Timer:
        return self.kvm.kernel.clock.after(seconds, _as_command(vm, action))


def _as_command(vm: ApicVm, action: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        with command(vm):
            action()

    return run

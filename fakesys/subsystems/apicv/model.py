"""Interrupt virtualization of all VMs: joins `Kvm` as an extension. Knows no text and no path."""

from __future__ import annotations

from collections.abc import Callable
from errno import EBUSY, EEXIST, EINVAL, ENODEV

from msgspec import Struct

from fakesys.core.errors import KernelError
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
from fakesys.subsystems.apicv.state.apic_map import ApicMap
from fakesys.subsystems.apicv.state.avic_tables import PhysicalEntry
from fakesys.subsystems.apicv.state.inhibit import Effects, make_inhibit
from fakesys.subsystems.apicv.state.inhibit_reasons import Reason
from fakesys.subsystems.apicv.state.params import PIT, REINJECT, module_of
from fakesys.subsystems.apicv.state.policy import ApicvPolicy, TooBig
from fakesys.subsystems.apicv.state.tracer import ApicTracer
from fakesys.subsystems.apicv.state.vcpu import UPDATE, ApicVcpu, RunState
from fakesys.subsystems.apicv.state.vm import ApicVm
from fakesys.subsystems.kvm.model import Kvm
from fakesys.subsystems.kvm.vm import Irqchip, Vcpu, Vm, VmOptions

BACKING_PAGES = 0x1_0000_0000
"""Host address of the first APIC page; one page for each vCPU follows."""
PAGE = 4096


class Memory(Struct, frozen=True):
    """What the memory model does with the APIC access page.

    `set_page(vm, slot, present)`: its private memslot comes or goes; how many memslot updates that
    took, 0 when the owner's memory lies there. `is_taken(vm)`: would that be so?
    `zap(vm)`: drop what is mapped there.
    """

    set_page: Callable[[Vm, int, bool], int]
    is_taken: Callable[[Vm], bool]
    zap: Callable[[Vm], None]


class Apicv:
    """AVIC of every VM. `policy`: how the chosen kernel behaves."""

    def __init__(self, kvm: Kvm, policy: ApicvPolicy, memory: Memory) -> None:
        self.kvm = kvm
        self.policy = policy
        self.memory = memory
        self.tracer = ApicTracer(kvm.kernel.bus)
        # Module parameters of kvm that were written, as text.
        self.settings: dict[str, str] = {}
        self._vms: dict[Vm, ApicVm] = {}
        self._next_vm_id = 0

    def of(self, vm: Vm) -> ApicVm:
        """The state of a VM."""
        return self._vms[vm]

    def vcpu_of(self, vcpu: Vcpu) -> tuple[ApicVm, ApicVcpu]:
        """The state of a VM and of its vCPU, the latter up to date."""
        vm = self._vms[vcpu.vm]
        found = vm.vcpus[vcpu.id]
        requests.update_fields(vm, found)
        return vm, found

    def by_vm_id(self, vm_id: int) -> ApicVm | None:
        """The VM that has this AVIC id."""
        return next((vm for vm in self._vms.values() if vm.vm_id == vm_id), None)

    # --- Extension of Kvm ---

    def check_vm(self, irqchip: Irqchip, options: VmOptions) -> None:
        """Raises ENODEV for a PIT without a PIC in the kernel."""
        if options.get(PIT) and irqchip is not Irqchip.KERNEL:
            raise KernelError(ENODEV, "a PIT in the kernel needs a PIC there")

    def add_vm(self, vm: Vm, options: VmOptions) -> None:
        """KVM_CREATE_VM, then irqchip, PIT and its reinject control, as asked for."""
        tracer = self.tracer
        module = module_of(self.kvm.params)
        apic_vm = ApicVm(vm, self.policy, module, tracer, self._new_vm_id(avic=module.avic))
        apic_vm.map = ApicMap(apic_vm.vcpus.values)
        apic_vm.later = lambda seconds, action: self._later(apic_vm, seconds, action)
        effects = Effects(
            request_all=lambda request: requests.request_all(apic_vm, request),
            page=lambda present: self.memory.set_page(vm, self.policy.access_page_slot, present),
            zap=lambda: self.memory.zap(vm),
        )
        apic_vm.inhibit = make_inhibit(self.policy, tracer, effects)
        self._vms[vm] = apic_vm
        vm.before_read.append(lambda: requests.account_batched(apic_vm))
        apic_vm.inhibit.start(avic=module.avic)
        if vm.irqchip is not Irqchip.NONE:
            self.add_irqchip(vm)
        if vm.irqchip is Irqchip.KERNEL and options.get(PIT) is not False:
            self._create_pit(apic_vm, reinject=options.get(REINJECT))

    def check_irqchip(self, vm: Vm) -> None:
        """Nothing is against it."""

    def add_irqchip(self, vm: Vm) -> None:
        """KVM_CREATE_IRQCHIP, or its split form."""
        apic_vm = self._vms[vm]
        with command(apic_vm):
            if vm.irqchip is Irqchip.KERNEL:
                routing.make_controllers(apic_vm)
            apic_vm.inhibit.irqchip_created()

    def check_vcpu(self, vm: Vm, vcpu_id: int) -> None:
        """Raises EINVAL for an id above the hardware's table, in kernels that refuse that.

        EEXIST when the owner's memory lies where the access page must be.
        """
        apic_vm = self._vms[vm]
        if not apic_vm.avic:
            return
        self.check_ids(vcpu_id)
        if self._brings_page(apic_vm) and self.memory.is_taken(vm):
            raise KernelError(EEXIST, "the owner's memory lies where the APIC access page must be")

    def _brings_page(self, vm: ApicVm) -> bool:
        """Would a new vCPU make the access page?"""
        born_active = vm.inhibit.active or not self.policy.born_as_vm
        return born_active and not vm.inhibit.page.present

    def check_ids(self, highest: int) -> None:
        """Raises EINVAL if a VM with AVIC cannot have a vCPU of this id."""
        module = module_of(self.kvm.params)
        refused = self.policy.too_big is TooBig.REFUSED and module.avic
        if refused and highest > module.highest_id:
            last = module.highest_id
            raise KernelError(EINVAL, f"vCPU id {highest} is above {last}, the last for AVIC")

    def add_vcpu(self, vcpu: Vcpu) -> None:
        """KVM_CREATE_VCPU; vCPU 0 enters its guest, others wait for INIT."""
        vm = self._vms[vcpu.vm]
        new = ApicVcpu(vcpu)
        with command(vm):
            vm.add(new)
            vm.tracked |= new.bit
            vm.touched |= new.bit
            vm.tracer.act(new)
            if vm.avic:
                self._set_up_avic(vm, new)
            ids_changed(vm)
            if new.run is RunState.GUEST:
                new.avic_is_running = vm.inhibit.active or not self.policy.born_as_vm
                vcpu_load.load(vm, new)
                vcpu_enter.enter(vm, new)
            else:
                vcpu_enter.block(vm, new, RunState.UNINIT)

    def close_vcpu(self, vcpu: Vcpu) -> None:
        """Its descriptor is closed: its thread is out of KVM_RUN for ever."""
        self.hold_vcpu(vcpu)
        self._vms[vcpu.vm].vcpus[vcpu.id].run = RunState.STOPPED

    def hold_vcpu(self, vcpu: Vcpu) -> None:
        """User space keeps it out of KVM_RUN."""
        vm = self._vms[vcpu.vm]
        vcpu_run.hold(vm, vm.vcpus[vcpu.id])

    def is_in_guest(self, vcpu: Vcpu) -> bool:
        """Does it run the guest now?"""
        found = self._vms[vcpu.vm].vcpus.get(vcpu.id)
        return found is not None and found.run is RunState.GUEST

    def remove_vm(self, vm: Vm) -> None:
        """The VM is gone."""
        del self._vms[vm]

    # --- what concerns no single vCPU ---

    def start_sev(self, vm: Vm) -> None:
        """KVM_SEV_INIT. Raises EINVAL once vCPUs exist, EBUSY the second time."""
        apic_vm = self._vms[vm]
        if vm.vcpus:
            raise KernelError(EINVAL, f"{vm.name} has vCPUs already")
        if apic_vm.sev:
            raise KernelError(EBUSY, f"{vm.name} is an SEV guest already")
        with command(apic_vm):
            apic_vm.sev = True
            apic_vm.inhibit.set(Reason.SEV)

    def _set_up_avic(self, vm: ApicVm, vcpu: ApicVcpu) -> None:
        """avic.c: avic_init_backing_page, svm.c: svm_create_vcpu."""
        if vcpu.id > vm.module.highest_id:
            vm.inhibit.set(Reason.PHYSICAL_ID_TOO_BIG)
            vcpu.requests |= UPDATE
            return
        vcpu.entry = PhysicalEntry(vcpu.id, BACKING_PAGES + vcpu.id * PAGE)
        vm.physical.add(vcpu.id, vcpu.entry)
        vm.with_entry |= vcpu.bit
        if not self.policy.born_as_vm:
            vm.inhibit.page.create()
            vcpu.apicv_active = True
            vcpu.requests |= UPDATE
        elif vm.inhibit.active:
            vm.inhibit.page.create()
            refresh.set_active(vm, vcpu, active=True)

    def _create_pit(self, vm: ApicVm, *, reinject: bool) -> None:
        """KVM_CREATE_PIT2 turns reinjection on; KVM_REINJECT_CONTROL may turn it off again."""
        with command(vm):
            vm.pit = Pit(reinject=True)
            if self.policy.pit_reinject_inhibits:
                vm.inhibit.set(Reason.PIT_REINJ)
            if not reinject:
                vm.pit.reinject = False
                vm.inhibit.clear(Reason.PIT_REINJ)

    def _new_vm_id(self, *, avic: bool) -> int:
        """The next id that no VM has; 0 is none. avic.c:avic_vm_init."""
        if not avic:
            return 0
        used = {vm.vm_id for vm in self._vms.values()} | {0}
        limit = 1 << self.policy.vm_id_bits
        self._next_vm_id = (self._next_vm_id + 1) % limit
        while self._next_vm_id in used:
            self._next_vm_id = (self._next_vm_id + 1) % limit
        return self._next_vm_id

    def _later(self, vm: ApicVm, seconds: float, action: Callable[[], None]) -> None:
        def run() -> None:
            if vm.kvm in self._vms:
                with command(vm):
                    action()

        self.kvm.kernel.clock.after(seconds, run)

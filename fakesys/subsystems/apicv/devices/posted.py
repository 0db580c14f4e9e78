"""Assigned devices: interrupts that the IOMMU posts to the APIC page of a vCPU without KVM.

Like arch/x86/kvm/svm/avic.c: avic_pi_update_irte, svm_ir_list_add, avic_ga_log_notifier (v6.1).
"""

from __future__ import annotations

from errno import EEXIST, ENODEV, ENOENT

from fakesys.core.errors import KernelError
from fakesys.subsystems.apicv.chips.lapic import Mode
from fakesys.subsystems.apicv.engine import delivery, requests
from fakesys.subsystems.apicv.engine.delivery import LEVEL_MESSAGE, LapicIrq
from fakesys.subsystems.apicv.engine.quiesce import command
from fakesys.subsystems.apicv.state.tracer import ApicTracer
from fakesys.subsystems.apicv.state.vcpu import ApicVcpu, AssignedIrq, MsiRoute, RunState
from fakesys.subsystems.apicv.state.vm import ApicVm


def device(vm: ApicVm, name: str) -> AssignedIrq:
    """Return the interrupt of the device of this name. Raises ENOENT."""
    if name not in vm.devices:
        raise KernelError(ENOENT, f"{vm.kvm.name} has no device {name!r}")
    return vm.devices[name]


def add(vm: ApicVm, name: str, host_irq: int, gsi: int, route: MsiRoute) -> None:
    """Assign a device with one interrupt.

    Raises EEXIST if the name is in use, ENODEV without local APICs in the kernel.
    """
    if name in vm.devices:
        raise KernelError(EEXIST, f"{vm.kvm.name} has a device {name!r}")
    if not vm.has_lapics:
        raise KernelError(ENODEV, f"{vm.kvm.name} has no local APICs in the kernel")
    with command(vm):
        assigned = AssignedIrq(name, host_irq, gsi, route)
        vm.devices[name] = assigned
        _update(vm, assigned)


def reroute(vm: ApicVm, name: str, route: MsiRoute) -> None:
    """Change the MSI message of the device, as its guest does. Raises ENOENT."""
    assigned = device(vm, name)
    with command(vm):
        assigned.route = route
        _update(vm, assigned)


def remove(vm: ApicVm, name: str) -> None:
    """Unassign the device. Raises ENOENT."""
    assigned = device(vm, name)
    with command(vm):
        route = assigned.route
        if assigned.target is not None:
            vm.tracer.kvm_msi_set_irq(route.address, route.data)
            _trace(vm, assigned.target, assigned, on=False)
        _unlist(vm, assigned)
        del vm.devices[name]


def fire(vm: ApicVm, name: str, count: int = 1) -> None:
    """Raise the interrupt of the device `count` times. Raises ENOENT."""
    assigned = device(vm, name)
    for _ in range(count):
        with command(vm):
            _fire(vm, assigned)


def notify_ga_log(vm: ApicVm | None, tracer: ApicTracer, vm_id: int, vcpu_id: int) -> None:
    """Handle an entry of the GA log: wake the vCPU if it is blocked.

    `vm`: the VM that has `vm_id`. An entry without such a VM or vCPU is only traced.
    Like avic.c:avic_ga_log_notifier (v6.1).
    """
    if vm is None:
        tracer.kvm_avic_ga_log(vm_id, vcpu_id)
        return
    with command(vm):
        vm.tracer.kvm_avic_ga_log(vm_id, vcpu_id)
        vcpu = vm.vcpus.get(vcpu_id)
        if vcpu is not None:
            requests.wake(vm, vcpu)


def ga_tag(vm: ApicVm, vcpu: ApicVcpu) -> int:
    """Return the tag by which an IRTE in guest mode names the vCPU in the GA log: AVIC_GATAG."""
    return vm.vm_id << vm.policy.ga_tag_shift | vcpu.id


def _update(vm: ApicVm, assigned: AssignedIrq) -> None:
    route = assigned.route
    vm.tracer.kvm_msi_set_irq(route.address, route.data)
    _unlist(vm, assigned)
    target = _single_target(vm, route)
    if target is None:
        return
    requests.sync_vcpu(vm, target)
    if not target.apicv_active:
        return
    assigned.target, assigned.guest_mode = target, True
    target.avic.ir_list[assigned.name] = assigned
    _trace(vm, target, assigned, on=True)


def _single_target(vm: ApicVm, route: MsiRoute) -> ApicVcpu | None:
    """Return the one vCPU that the interrupt can be posted to; None for several or another mode.

    Like avic.c:get_pi_vcpu_info (v6.1).
    """
    if route.mode not in (Mode.FIXED, Mode.LOWEST):
        return None
    mask = _targets(vm, route)
    return vm.lowest(mask) if mask.bit_count() == 1 else None


def _targets(vm: ApicVm, route: MsiRoute) -> int:
    return vm.map.logical(route.dest) if route.logical else vm.map.physical(route.dest)


def _unlist(vm: ApicVm, assigned: AssignedIrq) -> None:
    target = assigned.target
    assigned.target, assigned.guest_mode = None, False
    if target is not None:
        requests.sync_vcpu(vm, target)
        del target.avic.ir_list[assigned.name]


def _trace(vm: ApicVm, target: ApicVcpu, assigned: AssignedIrq, *, on: bool) -> None:
    page = target.avic.entry.page if target.avic.entry is not None else 0
    vector = assigned.route.vector
    vm.tracer.kvm_pi_irte_update(target, assigned.host_irq, assigned.gsi, vector, page, on=on)


def _fire(vm: ApicVm, assigned: AssignedIrq) -> None:
    route, target = assigned.route, assigned.target
    if target is None or not assigned.guest_mode:
        vm.tracer.kvm_msi_set_irq(route.address, route.data)
        trigger = LEVEL_MESSAGE if route.level else 0
        message = LapicIrq(route.vector, route.mode, trigger)
        delivery.deliver(vm, _targets(vm, route), message)
        return
    requests.sync_vcpu(vm, target)
    target.lapic.request(route.vector)
    # The IOMMU has a copy of IsRunning of its own.
    in_guest = target.run is RunState.GUEST and not vm.module.ipiv
    if vm.is_running(target) or in_guest:
        delivery.serve_by_hardware(vm, target)
        return
    vm.tracer.kvm_avic_ga_log(vm.vm_id, target.id)
    if target.run is not RunState.GUEST:
        requests.wake(vm, target)

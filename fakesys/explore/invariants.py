"""What must hold in every state of a machine, whatever was done to it.

An invariant yields a line for each place where it does not hold. The levels of the series break
some of them: that is what their later patches cure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations

from fakesys.core.text import ids
from fakesys.machine.subsystems import Subsystems
from fakesys.subsystems.ap_bus.apqn import Apqn
from fakesys.subsystems.ap_control.sharing import shared_queues
from fakesys.subsystems.apicv.state.vcpu import RunState
from fakesys.subsystems.kvm_mmu.shadow.arch import Request
from fakesys.subsystems.kvm_mmu.shadow.pages import NONE
from fakesys.subsystems.kvm_mmu.shadow.vcpu import VcpuMmu
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory

Invariant = Callable[[Subsystems], Iterator[str]]


def shared(models: Subsystems) -> Iterator[str]:
    """Yield the queues that host and guest, or two guests, can use."""
    system = models.ap.system
    guests = system.guests.by_name.values()
    text = shared_queues(system.hardware.lpar, system.bus.state.host_driver, guests)
    for line in text.splitlines():
        queue, _, users = line.partition(" ")
        yield f"queue {queue} can be used by {' and '.join(users.split())}"


def assigned(models: Subsystems) -> Iterator[str]:
    """Yield the queues that are assigned to two mediated devices."""
    for one, other in combinations(models.ap.system.vfio_ap.mdevs.values(), 2):
        apm, aqm = one.matrix.apm & other.matrix.apm, one.matrix.aqm & other.matrix.aqm
        for apid in ids(apm):
            for apqi in ids(aqm):
                yield f"queue {Apqn(apid, apqi)} is assigned to {one.uuid} and {other.uuid}"


def guest_matrix(models: Subsystems) -> Iterator[str]:
    """Yield what a guest has beyond its device's matrix and the queues bound to vfio_ap."""
    system = models.ap.system
    bound = system.vfio_ap.driver.bound
    for mdev in system.vfio_ap.mdevs.values():
        if mdev.guest is None:
            continue
        name, masks = mdev.guest.name, mdev.guest.masks
        for apid in ids(masks.apm):
            if masks.aqm and not mdev.matrix.apm >> apid & 1:
                yield f"{name} has adapter {apid:02x}, which is not in the matrix of {mdev.uuid}"
            for apqi in ids(masks.aqm & ~bound[apid]):
                yield f"{name} has queue {Apqn(apid, apqi)}, which is not bound to vfio_ap"
        for apqi in ids(masks.aqm & ~mdev.matrix.aqm if masks.apm else 0):
            yield f"{name} has domain {apqi:04x}, which is not in the matrix of {mdev.uuid}"


def roots(models: Subsystems) -> Iterator[str]:
    """Yield vCPUs that walk through an obsolete page although they entered their guest since."""
    memory = models.kvm.memory
    for vcpu, mmu in memory.mmus.items():
        vm_memory = memory.memories[vcpu.vm]
        if mmu.requests & Request.RELOAD or not mmu.roots:
            continue
        if vm_memory.tdp is not None:
            tables = vm_memory.tdp.tables.roots
            stale = [root.number for root in tables if root.invalid and root.number in mmu.roots]
        elif memory.policy.explicit_reload:
            stale = [row for row in _reached(vm_memory, mmu) if vm_memory.arch.pages.is_stale(row)]
        else:
            # These kernels free obsolete roots without a request, at the next entry.
            stale = []
        if stale:
            yield f"vCPU {vcpu.id} of {vcpu.vm.name} walks through {len(stale)} obsolete pages"


def _reached(memory: VmMemory, vcpu: VcpuMmu) -> Iterator[int]:
    """Yield the pages that the processor of a vCPU may walk through."""
    found, todo = set(vcpu.roots), list(vcpu.roots)
    while todo:
        row = todo.pop()
        yield row
        for kid in memory.links.children.get(row, ()):
            if kid != NONE and kid not in found:
                found.add(kid)
                todo.append(kid)


def avic(models: Subsystems) -> Iterator[str]:
    """Yield where AVIC is on with a reason against it, an awaited interrupt window included."""
    for kvm_vm in models.kvm.kvm.vms:
        vm = models.kvm.apicv.of(kvm_vm)
        if vm.inhibit.active and vm.inhibit.mask:
            yield f"AVIC of {kvm_vm.name} is on with the reasons {vm.inhibit.mask:#x} against it"
        for kvm_vcpu in kvm_vm.vcpus.values():
            _, vcpu = models.kvm.apicv.vcpu_of(kvm_vcpu)
            if vcpu.run is not RunState.GUEST or not vcpu.apicv_active:
                continue
            if not vm.inhibit.active:
                yield f"vCPU {vcpu.id} of {kvm_vm.name} runs with AVIC, which is off in its VM"
            if vcpu.v_irq:
                yield (
                    f"vCPU {vcpu.id} of {kvm_vm.name} waits for an interrupt window with AVIC on,"
                    " which ignores V_IRQ"
                )


INVARIANTS: dict[str, Invariant] = {
    "shared": shared,
    "assigned": assigned,
    "guest_matrix": guest_matrix,
    "roots": roots,
    "avic": avic,
}

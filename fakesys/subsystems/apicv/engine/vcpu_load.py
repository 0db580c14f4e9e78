"""IsRunning and host id of a vCPU's physical table entry, and updates of both AVIC tables.

Like arch/x86/kvm/svm/avic.c: avic_vcpu_load, avic_vcpu_put, avic_handle_apic_id_update,
avic_handle_ldr_update, avic_handle_dfr_update (v6.1), [5.3] svm.c.
"""

from __future__ import annotations

from fakesys.subsystems.apicv.state.avic_tables import PhysicalEntry, backing_page
from fakesys.subsystems.apicv.state.vcpu import ApicVcpu
from fakesys.subsystems.apicv.state.vm import ApicVm

RUNNING_ALREADY = "WARNING: avic_vcpu_load: the entry is marked as running"
NO_ENTRY = "BUG: avic_vcpu_load: the vCPU has no entry in the table of physical ids"
HOST_ID_TOO_BIG = "WARNING: avic_vcpu_load: the host APIC id does not fit into the entry"


def add_entry(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Give the vCPU an entry in the physical id table, with its backing page."""
    vcpu.avic.entry = PhysicalEntry(vcpu.id, backing_page(vcpu.id))
    vm.tables.physical.add(vcpu.id, vcpu.avic.entry)
    vm.tables.with_entry |= vcpu.bit


def require_entry(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Give the vCPU its entry if it was made while the VM had AVIC off, with a warning.

    Differs: the kernel dereferences a null pointer here (svm.c:avic_vcpu_load, v5.3).
    """
    if vcpu.avic.entry is None and vm.policy.entry_when_active:
        vm.warn(NO_ENTRY)
        add_entry(vm, vcpu)


def load(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Write host id and IsRunning, as the vCPU is on a host CPU; nothing while AVIC is off.

    Warns where the kernel does: the host id does not fit, or IsRunning is set already.
    """
    if not vcpu.apicv_active or vcpu.avic.entry is None:
        return
    if vcpu.kvm.cpu >> vm.policy.host_id_bits:
        vm.warn(HOST_ID_TOO_BIG)
        return
    if vm.policy.toggles_running and vm.is_running(vcpu):
        vm.warn(RUNNING_ALREADY)
    vcpu.avic.entry.host_id = vcpu.kvm.cpu
    vm.set_running(vcpu, running=vcpu.avic.is_running)


def put(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Clear IsRunning, as the vCPU leaves its host CPU; nothing while AVIC is off."""
    if vcpu.apicv_active:
        vm.set_running(vcpu, running=False)


def set_running(vm: ApicVm, vcpu: ApicVcpu, *, running: bool) -> None:
    """Load or put the vCPU, as it stops being blocked or blocks. [5.3] svm.c:avic_set_running."""
    vcpu.avic.is_running = running
    if running:
        load(vm, vcpu)
    else:
        put(vm, vcpu)


def sync_tables(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Bring id, DFR and LDR in the tables up to date.

    Like avic.c:avic_apicv_post_state_restore (v6.1).
    """
    update_id(vm, vcpu)
    update_dfr(vm, vcpu)
    update_ldr(vm, vcpu)


def update_id(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Move the physical entry to the APIC id that the guest wrote, in kernels that do so."""
    entry, apic_id = vcpu.avic.entry, vcpu.lapic.id
    if not vm.policy.id_moves_entry or entry is None:
        return
    if vm.tables.physical.entries.get(apic_id) is entry or apic_id > vm.module.highest_id:
        return
    loser = vm.tables.physical.entries.get(apic_id)
    if loser is not None:
        vm.tables.with_entry &= ~(1 << loser.vcpu_id)
    vm.tables.physical.move(entry, apic_id)
    vm.tables.with_entry |= vcpu.bit
    if vcpu.avic.ldr_reg:
        vm.tables.logical.set(vcpu.avic.ldr_reg, vcpu.avic.dfr_reg, apic_id)


def update_dfr(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Invalidate the logical entry if DFR changed; it stays invalid until LDR is written."""
    if vcpu.avic.dfr_reg == vcpu.lapic.dfr:
        return
    vm.tables.logical.clear(vcpu.avic.ldr_reg, vcpu.avic.dfr_reg)
    vcpu.avic.ldr_reg = 0
    vcpu.avic.dfr_reg = vcpu.lapic.dfr


def update_ldr(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Invalidate the logical entry of the old LDR, and set that of the new one unless it is 0."""
    ldr = vcpu.lapic.ldr
    if vcpu.avic.ldr_reg == ldr or vcpu.lapic.x2apic:
        return
    vm.tables.logical.clear(vcpu.avic.ldr_reg, vcpu.avic.dfr_reg)
    if ldr:
        vm.tables.logical.set(ldr, vcpu.avic.dfr_reg, vcpu.lapic.id)
    vcpu.avic.ldr_reg = ldr

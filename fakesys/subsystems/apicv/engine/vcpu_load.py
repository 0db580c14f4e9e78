"""The "is running" bit and host id of a vCPU's table entry, and the two tables' upkeep.

Like arch/x86/kvm/svm/avic.c: avic_vcpu_load, avic_vcpu_put, avic_handle_apic_id_update,
avic_handle_ldr_update, avic_handle_dfr_update (v6.1), [5.3] svm.c.
"""

from __future__ import annotations

from fakesys.subsystems.apicv.state.vcpu import ApicVcpu
from fakesys.subsystems.apicv.state.vm import ApicVm

RUNNING_ALREADY = "WARNING: avic_vcpu_load: the entry is marked as running"
HOST_ID_TOO_BIG = "WARNING: avic_vcpu_load: the host APIC id does not fit into the entry"


def load(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """The vCPU is on a host CPU. Nothing happens while it has AVIC off."""
    if not vcpu.apicv_active or vcpu.entry is None:
        return
    if vcpu.kvm.cpu >> vm.policy.host_id_bits:
        vm.warn(HOST_ID_TOO_BIG)
        return
    if vm.policy.toggles_running and vm.is_running(vcpu):
        vm.warn(RUNNING_ALREADY)
    vcpu.entry.host_id = vcpu.kvm.cpu
    vm.set_running(vcpu, running=vcpu.avic_is_running)


def put(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """The vCPU leaves its host CPU. Nothing happens while it has AVIC off."""
    if vcpu.apicv_active:
        vm.set_running(vcpu, running=False)


def set_running(vm: ApicVm, vcpu: ApicVcpu, *, running: bool) -> None:
    """It stops being blocked, or blocks. [5.3] svm.c:avic_set_running."""
    vcpu.avic_is_running = running
    if running:
        load(vm, vcpu)
    else:
        put(vm, vcpu)


def sync_tables(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Bring id, DFR and LDR of the tables up to date: avic_apicv_post_state_restore."""
    update_id(vm, vcpu)
    update_dfr(vm, vcpu)
    update_ldr(vm, vcpu)


def update_id(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Move the physical entry to the APIC id that the guest chose."""
    entry, apic_id = vcpu.entry, vcpu.lapic.id
    if not vm.policy.id_moves_entry or entry is None:
        return
    if vm.physical.entries.get(apic_id) is entry or apic_id > vm.module.highest_id:
        return
    loser = vm.physical.entries.get(apic_id)
    if loser is not None:
        vm.with_entry &= ~(1 << loser.vcpu_id)
    vm.physical.move(entry, apic_id)
    vm.with_entry |= vcpu.bit
    if vcpu.ldr_reg:
        vm.logical.set(vcpu.ldr_reg, vcpu.dfr_reg, apic_id)


def update_dfr(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Another logical format: the vCPU's entry is invalid until LDR is written."""
    if vcpu.dfr_reg == vcpu.lapic.dfr:
        return
    vm.logical.clear(vcpu.ldr_reg, vcpu.dfr_reg)
    vcpu.ldr_reg = 0
    vcpu.dfr_reg = vcpu.lapic.dfr


def update_ldr(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Another logical id: the old entry is invalid, the new one valid if LDR is not 0."""
    ldr = vcpu.lapic.ldr
    if vcpu.ldr_reg == ldr or vcpu.lapic.x2apic:
        return
    vm.logical.clear(vcpu.ldr_reg, vcpu.dfr_reg)
    if ldr:
        vm.logical.set(ldr, vcpu.dfr_reg, vcpu.lapic.id)
    vcpu.ldr_reg = ldr

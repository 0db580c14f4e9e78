"""Guest physical addresses of loads and stores that KVM emulates, and the bytes of others.

Follows x86.c:vcpu_mmio_gva_to_gpa (v6.1).
"""

from __future__ import annotations

from fakesys.subsystems.kvm.events.guest import VcpuMatchMmio
from fakesys.subsystems.kvm_mmu.guest.programs import Access
from fakesys.subsystems.kvm_mmu.guest.translation import Translation
from fakesys.subsystems.kvm_mmu.shadow.vcpu import Paging, VcpuMmu
from fakesys.subsystems.kvm_mmu.shadow.walk import PF_USER, PF_WRITE
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory


def mmio_address(
    memory: VmMemory, vcpu: VcpuMmu, address: int, faulted: int, *, write: bool
) -> tuple[int | None, bool]:
    """Return the guest physical address, or None, and whether it is known to be MMIO.

    `faulted`: the address of the fault.
    """
    cached = memory.mmio.match_gva(vcpu, address)
    if cached is not None:
        _trace_match(memory, address, cached, write, by_gpa=False)
        return cached, True
    gpa = faulted
    if vcpu.paging is Paging.LONG:
        walk = memory.guest_walker.walk(vcpu.cr3, address, PF_USER | (PF_WRITE if write else 0))
        if walk is None:
            return None, False
        gpa = walk.gfn << 12 | address & 0xFFF
    matches = memory.mmio.match_gpa(vcpu, gpa)
    if matches:
        _trace_match(memory, address, gpa, write, by_gpa=True)
    return gpa, matches


def _trace_match(memory: VmMemory, gva: int, gpa: int, write: bool, *, by_gpa: bool) -> None:
    bus = memory.arch.bus
    if VcpuMatchMmio in bus.wanted:
        bus.emit(VcpuMatchMmio(gva=gva, gpa=gpa, write=write, gpa_match=by_gpa))


def store_data(memory: VmMemory, vcpu: VcpuMmu, translation: Translation, access: Access) -> None:
    """Write the bytes of a store that did not fault, where a guest may have its tables."""
    if not access.error & PF_WRITE:
        return
    if memory.arch.knobs.tdp:
        if translation.has_walked:
            memory.guest_memory_of(vcpu).store(translation.gpa, access.data)
        return
    row, index, level = memory.shadow_walker.last(vcpu, access.address)
    gfn = memory.arch.sptes.gfn_of(row, index)
    gfn += (access.address >> 12) & (1 << 9 * (level - 1)) - 1
    memory.guest_memory_of(vcpu).store(gfn << 12 | access.address & 0xFFF, access.data)

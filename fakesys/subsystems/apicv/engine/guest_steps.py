"""Single steps of a guest: it changes RFLAGS.IF, halts, sends an EOI, or exits for an APIC access.

Precondition of all: the vCPU is tracked and in guest, and the caller is within `quiesce.command`,
which lets the other vCPUs react afterwards.
"""

from __future__ import annotations

from fakesys.subsystems.apicv.chips import lapic
from fakesys.subsystems.apicv.chips.pic import Chip
from fakesys.subsystems.apicv.engine import requests, routing, vcpu_enter
from fakesys.subsystems.apicv.state.vcpu import EVENT, ApicVcpu, IrqSource, RunState
from fakesys.subsystems.apicv.state.vm import ApicVm
from fakesys.subsystems.kvm.vcpu_run.reasons import (
    HLT,
    RDMSR,
    UNACCELERATED,
    WRMSR,
    ExitInfo,
)

MASTER_COMMAND, SLAVE_COMMAND = 0x20, 0xA0
NON_SPECIFIC_EOI = 0x20
# Nested page fault of a guest's access to the APIC page: present, user, reserved bit, write.
NPF_WRITE, NPF_READ = 0xF, 0xD
FIRST_X2APIC_MSR = 0x800
# KVM_TRACE_MMIO_WRITE; 64-bit code in kvm_emulate_insn.
MMIO_WRITE, PROT64 = 2, 9
# mov %esi, -0xa04000(%rdi) and mov -0xa04000(%rdi), %eax
HLT_CODE = b"\xf4"
APIC_STORE, APIC_LOAD = bytes.fromhex("89b700c05fff"), bytes.fromhex("8b8700c05fff")


def set_interrupts(vm: ApicVm, vcpu: ApicVcpu, *, on: bool) -> None:
    """Set or clear RFLAGS.IF: STI and IRET, or CLI."""
    if not on:
        vcpu.interrupts_on = False
        return
    vcpu.interrupts_on = True
    vcpu_enter.continue_guest(vm, vcpu)


def halt(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Execute HLT: sleep, unless an interrupt is pending."""
    requests.exit_guest(vcpu, HLT)
    run = vcpu.kvm_run
    if not run.processor.next_rip:
        run.emulate_insn(run.rip, HLT_CODE, PROT64)
    vcpu.run = RunState.HALTED
    if vcpu_enter.is_runnable(vm, vcpu):
        vcpu_enter.enter(vm, vcpu)
    else:
        vcpu_enter.block(vm, vcpu, RunState.HALTED)


def pic_eoi(vm: ApicVm, vcpu: ApicVcpu, port: int = MASTER_COMMAND) -> None:
    """Write a non-specific EOI to the command port of a PIC."""
    vcpu.kvm_run.requests = vcpu.requests
    vcpu.kvm_run.io(port, bytes([NON_SPECIFIC_EOI]), write=True)
    requests.left_guest(vcpu)
    if vm.pic is not None:
        vm.pic.end(vm.pic.master if port == MASTER_COMMAND else vm.pic.slave)
    vcpu_enter.enter(vm, vcpu)


def apic_eoi(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Write the EOI register.

    With AVIC on, hardware handles it alone if the vector was edge-triggered, else the write traps;
    with AVIC off it is emulated.
    """
    if vm.hides_apic(vcpu):
        return
    local = vcpu.lapic
    vector = local.isr.bit_length() - 1
    accelerated = vm.accelerates(vcpu)
    if accelerated and not (vector >= 0 and local.is_level(vector)):
        local.end()
        vcpu_enter.continue_guest(vm, vcpu)
        return
    if accelerated:
        leave_for_trap(vm, vcpu, lapic.EOI, vector)
    else:
        leave_for_page(vcpu, lapic.EOI, 0, write=True)
    vm.tracer.kvm_apic(lapic.EOI, 0, write=True)
    vm.tracer.kvm_eoi(vcpu, vector)
    if vector >= 0:
        local.end()
        _end_at_ioapic(vm, vcpu, vector)
        vcpu.requests |= EVENT
    vcpu_enter.enter(vm, vcpu)


def _end_at_ioapic(vm: ApicVm, vcpu: ApicVcpu, vector: int) -> None:
    routing.end_vector(vm, vcpu, vector)
    if vm.has_lapics and vm.ioapic is None and vcpu.lapic.is_level(vector):
        # KVM_EXIT_IOAPIC_EOI: the IOAPIC is in user space.
        vcpu_enter.user_space(vm, vcpu, IOAPIC_EOI)


IOAPIC_EOI = 26
"""KVM_EXIT_IOAPIC_EOI."""


def leave_for_trap(vm: ApicVm, vcpu: ApicVcpu, offset: int, vector: int) -> None:
    """Exit after a write that AVIC carried out but does not complete."""
    requests.exit_guest(vcpu, UNACCELERATED, ExitInfo(1 << 32 | offset, max(vector, 0)))
    vm.tracer.kvm_avic_unaccelerated_access(
        vcpu, offset, trap=True, write=True, vector=max(vector, 0)
    )


def leave_for_fault(vm: ApicVm, vcpu: ApicVcpu, offset: int, *, write: bool) -> None:
    """Exit before an access that AVIC does not carry out; KVM emulates it."""
    requests.exit_guest(vcpu, UNACCELERATED, ExitInfo(write << 32 | offset))
    vm.tracer.kvm_avic_unaccelerated_access(vcpu, offset, trap=False, write=write, vector=0)
    _emulate(vcpu, write=write)


def leave_for_page(vcpu: ApicVcpu, offset: int, value: int, *, write: bool) -> None:
    """Exit for an access that KVM emulates: the APIC page is not mapped, or x2APIC uses MSRs.

    `value`: what is written, or will be read.
    """
    local, run = vcpu.lapic, vcpu.kvm_run
    if local.x2apic:
        leave_for_msr(vcpu, FIRST_X2APIC_MSR + (offset >> 4), value, write=write)
        return
    run.requests = vcpu.requests
    error = NPF_WRITE if write else NPF_READ
    run.page_fault(run.rip, local.base | offset, error, nested=True)
    requests.left_guest(vcpu)
    _emulate(vcpu, write=write)
    if write:
        run.mmio(MMIO_WRITE, local.base | offset, value.to_bytes(8, "little")[:4])


def _emulate(vcpu: ApicVcpu, *, write: bool) -> None:
    """Emulate MOV with the APIC's page, as Linux has it in native_apic_mem_write."""
    run = vcpu.kvm_run
    run.emulate_insn(run.rip, APIC_STORE if write else APIC_LOAD, PROT64)


def leave_for_msr(vcpu: ApicVcpu, number: int, value: int, *, write: bool) -> None:
    """Exit because of RDMSR or WRMSR."""
    run = vcpu.kvm_run
    requests.exit_guest(vcpu, WRMSR if write else RDMSR, run.processor.details.msr(write=write))
    run.msr(number, value, write=write)


def finish_handler(vm: ApicVm, vcpu: ApicVcpu, source: IrqSource) -> None:
    """Finish an interrupt handler: EOI where the interrupt came from, then IRET."""
    if vcpu.run is not RunState.GUEST:
        return
    if source is IrqSource.LAPIC:
        apic_eoi(vm, vcpu)
    elif source is IrqSource.PIC and vm.pic is not None:
        _end_at_pics(vm, vcpu, vm.pic.master, vm.pic.slave)
    if vcpu.run is RunState.GUEST:
        set_interrupts(vm, vcpu, on=True)


def _end_at_pics(vm: ApicVm, vcpu: ApicVcpu, master: Chip, slave: Chip) -> None:
    if slave.isr:
        pic_eoi(vm, vcpu, SLAVE_COMMAND)
    if master.isr:
        pic_eoi(vm, vcpu)

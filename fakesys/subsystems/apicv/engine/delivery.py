"""Delivery of an interrupt to local APICs, whether an IPI, an MSI or a pin of the IOAPIC.

Like arch/x86/kvm/lapic.c: __apic_accept_irq, kvm_irq_delivery_to_apic; svm.c:
svm_complete_interrupt_delivery (v6.1); [5.3] svm_deliver_avic_intr.
"""

from __future__ import annotations

from msgspec import Struct

from fakesys.subsystems.apicv.chips.lapic import Mode
from fakesys.subsystems.apicv.engine import requests
from fakesys.subsystems.apicv.state.policy import NestedRule
from fakesys.subsystems.apicv.state.vcpu import EVENT, NMI, ApicVcpu, IrqSource, RunState
from fakesys.subsystems.apicv.state.vm import ApicVm

# Level-triggered in trig_mode: 1 from a redirection entry, bit 15 from ICR and from MSI data.
# The tracepoint of older kernels keeps 8 bits of it, so it prints `edge` for a level IPI.
LEVEL_PIN = 1
LEVEL_MESSAGE = 0x8000


class LapicIrq(Struct, frozen=True):
    """An interrupt message: struct kvm_lapic_irq (v6.1).

    `trigger`: 0 for edge, else LEVEL_PIN or LEVEL_MESSAGE. `asserted`: false for INIT de-assert.
    """

    vector: int
    mode: Mode = Mode.FIXED
    trigger: int = 0
    asserted: bool = True


def deliver(vm: ApicVm, targets: int, message: LapicIrq) -> list[ApicVcpu]:
    """Deliver to the vCPUs in the mask `targets`; return those that got the interrupt.

    Mode LOWEST picks one of them, by the vector. Like lapic.c:kvm_irq_delivery_to_apic (v6.1).
    """
    chosen = vm.members(targets)
    if message.mode is Mode.LOWEST and len(chosen) > 1:
        # vector_hashing=1: lapic.c:kvm_vector_to_index.
        chosen = [chosen[message.vector % len(chosen)]]
    for vcpu in chosen:
        accept(vm, vcpu, message)
    return chosen


def accept(vm: ApicVm, vcpu: ApicVcpu, message: LapicIrq) -> None:
    """Let one local APIC accept the interrupt. Like lapic.c:__apic_accept_irq (v6.1)."""
    requests.sync_vcpu(vm, vcpu)
    vm.tracer.kvm_apic_accept_irq(vcpu, message.vector, message.mode, message.trigger)
    if message.mode in (Mode.FIXED, Mode.LOWEST):
        _accept_vector(vm, vcpu, message)
    elif message.mode is Mode.NMI:
        vcpu.nmi_pending = True
        vcpu.requests |= NMI
        requests.kick(vm, vcpu)
    elif message.mode is Mode.INIT:
        if message.asserted or not message.trigger:
            vcpu.startup.init_pending, vcpu.startup.sipi_pending = True, False
            requests.request_event(vm, vcpu)
    elif message.mode is Mode.SIPI:
        vcpu.startup.sipi_pending = True
        requests.request_event(vm, vcpu)
    elif message.mode is Mode.SMI:
        vcpu.smi_pending = True
        vcpu.requests |= EVENT
        requests.kick(vm, vcpu)


def _accept_vector(vm: ApicVm, vcpu: ApicVcpu, message: LapicIrq) -> None:
    lapic = vcpu.lapic
    lapic.set_trigger(message.vector, level=bool(message.trigger))
    lapic.request(message.vector)
    if not vcpu.apicv_active:
        requests.request_event(vm, vcpu)
    elif vm.policy.completes_delivery:
        complete(vm, vcpu, message)
    elif vm.is_running(vcpu):
        # The doorbell; it has no effect if IsRunning is stale.
        serve_by_hardware(vm, vcpu)
    else:
        requests.wake(vm, vcpu)


def complete(vm: ApicVm, vcpu: ApicVcpu, message: LapicIrq) -> None:
    """Make the vCPU notice a vector in IRR. Like svm.c:svm_complete_interrupt_delivery (v6.1).

    Precondition: the vector is set in IRR.
    """
    requests.sync_vcpu(vm, vcpu)
    if not vcpu.apicv_active:
        requests.request_event(vm, vcpu)
        return
    vm.tracer.kvm_apicv_accept_irq(vcpu, message.vector, message.mode, message.trigger)
    if vcpu.run is not RunState.GUEST:
        requests.wake(vm, vcpu)
        return
    vm.tracer.kvm_avic_doorbell(vcpu)
    serve_by_hardware(vm, vcpu)


def serve_by_hardware(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Start the handler of the highest vector in IRR, as hardware does in guest with AVIC on.

    With automatic handlers an edge vector is ended here too: AVIC accelerates its EOI, so KVM
    sees nothing of it.
    """
    lapic = vcpu.lapic
    if vcpu.in_l2 and vm.policy.nested is NestedRule.IGNORED:
        return
    while vcpu.run is RunState.GUEST and vcpu.apicv_active and vcpu.interrupts_on:
        vector = lapic.deliverable()
        if vector < 0:
            return
        vm.serve(vcpu, vector)
        if vm.auto_handler and not lapic.is_level(vector):
            lapic.end()
            continue
        vcpu.interrupts_on = False
        if vm.auto_handler:
            vm.handlers.append((vcpu, IrqSource.LAPIC))

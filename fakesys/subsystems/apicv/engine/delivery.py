"""An interrupt arrives at local APICs, whoever sent it.

Like arch/x86/kvm/lapic.c: __apic_accept_irq, kvm_irq_delivery_to_apic; svm.c:
svm_complete_interrupt_delivery (v6.1); [5.3] svm_deliver_avic_intr.
"""

from __future__ import annotations

from msgspec import Struct

from fakesys.subsystems.apicv.chips.lapic import Mode
from fakesys.subsystems.apicv.engine import requests
from fakesys.subsystems.apicv.state.vcpu import EVENT, NMI, ApicVcpu, IrqSource, RunState
from fakesys.subsystems.apicv.state.vm import ApicVm

# How KVM writes "level" in trig_mode: a pin's entry has one bit, ICR and MSI data have bit 15.
# The tracepoint of older kernels keeps 8 bits of it, so an IPI by level prints `edge` there.
LEVEL_PIN = 1
LEVEL_MESSAGE = 0x8000


class LapicIrq(Struct, frozen=True):
    """What arrives. `trigger`: not 0 for level, as its sender writes it; see the constants.

    `asserted`: False for INIT de-assert.
    """

    vector: int
    mode: Mode = Mode.FIXED
    trigger: int = 0
    asserted: bool = True


def deliver(vm: ApicVm, targets: int, message: LapicIrq) -> list[ApicVcpu]:
    """Give the message to the vCPUs in `targets`, of which LOWEST picks one; who got it."""
    chosen = vm.members(targets)
    if message.mode is Mode.LOWEST and len(chosen) > 1:
        # vector_hashing=1: lapic.c:kvm_vector_to_index.
        chosen = [chosen[message.vector % len(chosen)]]
    for vcpu in chosen:
        accept(vm, vcpu, message)
    return chosen


def accept(vm: ApicVm, vcpu: ApicVcpu, message: LapicIrq) -> None:
    """One local APIC takes the message."""
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
            vcpu.init_pending, vcpu.sipi_pending = True, False
            requests.request_event(vm, vcpu)
    elif message.mode is Mode.SIPI:
        vcpu.sipi_pending = True
        requests.request_event(vm, vcpu)
    elif message.mode is Mode.SMI:
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
        # The doorbell; rung in vain if the mark is stale.
        serve_by_hardware(vm, vcpu)
    else:
        requests.wake(vm, vcpu)


def complete(vm: ApicVm, vcpu: ApicVcpu, message: LapicIrq) -> None:
    """IRR is set: make the vCPU notice. svm.c:svm_complete_interrupt_delivery."""
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
    """In guest with AVIC on, hardware starts the handler of the highest requested vector.

    A handler that ends an edge vector at once leaves no trace: the EOI is accelerated too.
    """
    lapic = vcpu.lapic
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

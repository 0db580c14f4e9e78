"""What is put into the guest at entry, and when a window must be opened instead.

Like arch/x86/kvm/x86.c: inject_pending_event, kvm_cpu_has_injectable_intr;
svm.c: svm_inject_irq, svm_enable_irq_window (v6.1).
"""

from __future__ import annotations

from fakesys.subsystems.apicv.state.vcpu import EVENT, ApicVcpu, IrqSource, QueuedIrq
from fakesys.subsystems.apicv.state.vm import ApicVm
from fakesys.subsystems.kvm.vm import Irqchip


def has_extint(vm: ApicVm, vcpu: ApicVcpu) -> bool:
    """Does an interrupt of the PIC, or one that user space queued, wait for this vCPU?"""
    if vm.kvm.irqchip is Irqchip.NONE:
        return vcpu.user_extint is not None and not vcpu.user_window
    if not vcpu.lapic.accepts_pic:
        return False
    if vm.pic is not None:
        return vm.pic.output
    return vcpu.user_extint is not None and not vcpu.user_window


def is_injectable(vm: ApicVm, vcpu: ApicVcpu) -> bool:
    """Is there an interrupt that hardware does not deliver by itself?"""
    if has_extint(vm, vcpu):
        return True
    if not vm.has_lapics or vcpu.apicv_active:
        return False
    return vcpu.lapic.deliverable() >= 0


def inject(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Put one event into the guest; open a window if something must still wait."""
    if vcpu.nmi_pending:
        vcpu.nmi_pending = False
        vcpu.stats.nmi_injections += 1
    if vcpu.injected is not None:
        queued, vcpu.injected = vcpu.injected, None
        _put_in(vm, vcpu, queued, reinjected=True)
    if vcpu.block_irq:
        return
    if vcpu.event_inj is None and vcpu.interrupts_on and is_injectable(vm, vcpu):
        _put_in(vm, vcpu, _take(vm, vcpu), reinjected=False)
    if vcpu.user_window or is_injectable(vm, vcpu):
        # VmSpec: the state of the VM first, as hardware ignores V_IRQ while AVIC is on.
        vm.inhibit.enable_irq_window(vcpu)
        vcpu.v_irq = True


def cancel(vcpu: ApicVcpu) -> None:
    """A request came before the entry: what was put in is queued again."""
    if vcpu.event_inj is not None:
        vcpu.injected, vcpu.event_inj = vcpu.event_inj, None
        vcpu.requests |= EVENT


def _take(vm: ApicVm, vcpu: ApicVcpu) -> QueuedIrq:
    """The PIC's or user space's interrupt before the LAPIC's. irq.c:kvm_cpu_get_interrupt."""
    if has_extint(vm, vcpu):
        if vm.pic is not None:
            return QueuedIrq(vm.pic.acknowledge(), IrqSource.PIC)
        vector, vcpu.user_extint = vcpu.user_extint or 0, None
        return QueuedIrq(vector, IrqSource.USER)
    vector = vcpu.lapic.deliverable()
    vm.serve(vcpu, vector)
    return QueuedIrq(vector, IrqSource.LAPIC)


def _put_in(vm: ApicVm, vcpu: ApicVcpu, event: QueuedIrq, *, reinjected: bool) -> None:
    if vcpu.in_l2 or not is_injectable(vm, vcpu):
        vm.inhibit.irq_window_injected(vcpu)
    vm.tracer.kvm_inj_virq(vcpu, event.vector, reinjected=reinjected)
    vcpu.stats.irq_injections += 1
    vcpu.event_inj = event

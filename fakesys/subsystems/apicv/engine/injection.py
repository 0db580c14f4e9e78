"""Injection of an interrupt at guest entry, and the request of a window when it must wait.

Like arch/x86/kvm/x86.c: inject_pending_event, kvm_cpu_has_injectable_intr;
svm.c: svm_inject_irq, svm_enable_irq_window (v6.1).
"""

from __future__ import annotations

from fakesys.subsystems.apicv.state.vcpu import EVENT, ApicVcpu, IrqSource, QueuedIrq
from fakesys.subsystems.apicv.state.vm import ApicVm
from fakesys.subsystems.kvm.vm import Irqchip


def has_extint(vm: ApicVm, vcpu: ApicVcpu) -> bool:
    """Return whether an interrupt of the PIC or from user space is pending for this vCPU.

    Like arch/x86/kvm/irq.c:kvm_cpu_has_extint (v6.1).
    """
    if vm.kvm.irqchip is Irqchip.NONE:
        return vcpu.user_pic.vector is not None and not vcpu.user_pic.wants_window
    if not vcpu.lapic.accepts_pic:
        return False
    if vm.pic is not None:
        return vm.pic.output
    return vcpu.user_pic.vector is not None and not vcpu.user_pic.wants_window


def is_injectable(vm: ApicVm, vcpu: ApicVcpu) -> bool:
    """Return whether an interrupt is pending that hardware does not deliver by itself.

    Like arch/x86/kvm/irq.c:kvm_cpu_has_injectable_intr (v6.1).
    """
    if has_extint(vm, vcpu):
        return True
    if not vm.has_lapics or vcpu.apicv_active:
        return False
    return vcpu.lapic.deliverable() >= 0


def inject(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Inject one interrupt; request a window if another one must wait.

    Precondition: KVM_REQ_EVENT was pending on the vCPU and has been cleared. What is injected is in
    `event_inj` until the entry is made, or is taken back by `cancel`.
    """
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
    if vcpu.apicv_active and not vm.policy.suspends_for_window:
        # [5.3] svm.c:enable_irq_window opens none: hardware would ignore V_IRQ.
        return
    if vcpu.user_pic.wants_window or is_injectable(vm, vcpu):
        # The state of the VM changes first, as hardware ignores V_IRQ while AVIC is on.
        vm.inhibit.enable_irq_window(vcpu)
        vcpu.v_irq = True


def cancel(vcpu: ApicVcpu) -> None:
    """Queue the injected interrupt again, as a request came before the entry.

    Like svm.c:svm_cancel_injection (v6.1).
    """
    if vcpu.event_inj is not None:
        vcpu.injected, vcpu.event_inj = vcpu.event_inj, None
        vcpu.requests |= EVENT


def _take(vm: ApicVm, vcpu: ApicVcpu) -> QueuedIrq:
    """Take the next interrupt; the PIC's comes before the local APIC's.

    Like arch/x86/kvm/irq.c:kvm_cpu_get_interrupt (v6.1).
    """
    if has_extint(vm, vcpu):
        if vm.pic is not None:
            return QueuedIrq(vm.pic.acknowledge(), IrqSource.PIC)
        vector, vcpu.user_pic.vector = vcpu.user_pic.vector or 0, None
        return QueuedIrq(vector, IrqSource.USER)
    vector = vcpu.lapic.deliverable()
    vm.serve(vcpu, vector)
    return QueuedIrq(vector, IrqSource.LAPIC)


def _put_in(vm: ApicVm, vcpu: ApicVcpu, event: QueuedIrq, *, reinjected: bool) -> None:
    if vcpu.in_l2 or not is_injectable(vm, vcpu):
        vm.inhibit.irq_window_injected(vcpu)
    vcpu.kvm_run.inject_irq(event.vector, reinjected=reinjected)
    vcpu.event_inj = event

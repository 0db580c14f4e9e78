"""The entry of a vCPU into the guest, and how it blocks and unblocks.

Like arch/x86/kvm/x86.c: vcpu_enter_guest, vcpu_block, kvm_arch_vcpu_runnable (v5.3, v6.1).
One entry: serve the requests; with KVM_REQ_EVENT among them accept INIT and SIPI, then inject; all
of this again if a request has come meanwhile; run the guest.
"""

from __future__ import annotations

from fakesys.subsystems.apicv.engine import delivery, injection, refresh, requests, vcpu_load
from fakesys.subsystems.apicv.engine.apic_ids import ids_changed
from fakesys.subsystems.apicv.state.vcpu import EVENT, NMI, ApicVcpu, RunState
from fakesys.subsystems.apicv.state.vm import ApicVm
from fakesys.subsystems.kvm.vcpu_run import smm
from fakesys.subsystems.kvm.vcpu_run.reasons import WINDOW

IRQ_WINDOW_OPEN = 7
"""KVM_EXIT_IRQ_WINDOW_OPEN."""


def take_turn(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """React to a kick or wake-up: leave the guest and enter it again, or stop sleeping.

    Precondition: the vCPU is tracked.
    """
    vm.tracer.act(vcpu)
    if vcpu.run is RunState.GUEST and vcpu.kicked:
        requests.exit_for_kick(vm, vcpu)
        vm.runnable &= ~vcpu.bit
    if vcpu.run is RunState.HOST:
        enter(vm, vcpu)
    elif vcpu.blocked and is_runnable(vm, vcpu):
        unblock(vm, vcpu)


def enter(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Enter the guest, or block if INIT was accepted.

    Precondition: the vCPU is tracked, and not in guest. Like x86.c:vcpu_enter_guest (v6.1).
    """
    vcpu.run = RunState.HOST
    _inject_without_window(vm, vcpu)
    while True:
        refresh.serve_requests(vm, vcpu)
        if vcpu.smi_pending:
            vcpu.smi_pending = False
            smm.round_trip(vcpu.kvm_run)
        if vcpu.requests & NMI:
            vcpu.requests = vcpu.requests & ~NMI | EVENT
        if vcpu.requests & EVENT:
            vcpu.requests &= ~EVENT
            vcpu.stats.req_event += 1
            if not _accept_events(vm, vcpu):
                block(vm, vcpu, RunState.UNINIT)
                return
            injection.inject(vm, vcpu)
        elif vcpu.user_pic.wants_window and not vcpu.v_irq:
            # vcpu->run->request_interrupt_window counts as an event.
            vcpu.stats.req_event += 1
            injection.inject(vm, vcpu)
        if not vcpu.requests:
            break
        injection.cancel(vcpu)
    vcpu.run = RunState.GUEST
    _trace_entry(vcpu)
    _start_handler(vm, vcpu)
    continue_guest(vm, vcpu)


def _trace_entry(vcpu: ApicVcpu) -> None:
    event = vcpu.event_inj
    # SVM_EVTINJ_VALID with type INTR; VMX has the same bits.
    vcpu.kvm_run.enter(0 if event is None else 1 << 31 | event.vector)


def _inject_without_window(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Let user space inject at any exit at which the guest takes interrupts.

    With a window, the exit that it causes is always the first of these. Like
    x86.c:kvm_vcpu_ready_for_interrupt_injection (v6.1).
    """
    waits = vcpu.user_pic.wants_window and vcpu.interrupts_on and vcpu.apicv_active
    if waits and not vm.policy.suspends_for_window:
        _tell_user_space(vm, vcpu)
        vcpu.requests |= EVENT


def _start_handler(vm: ApicVm, vcpu: ApicVcpu) -> None:
    event, vcpu.event_inj = vcpu.event_inj, None
    if event is None:
        return
    vcpu.interrupts_on = False
    if vm.auto_handler:
        vm.handlers.append((vcpu, event.source))


def continue_guest(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Let hardware deliver interrupts to the running guest, or exit for an open window."""
    delivery.serve_by_hardware(vm, vcpu)
    # V_IRQ is ignored while AVIC is on.
    if vcpu.run is RunState.GUEST and vcpu.v_irq and vcpu.interrupts_on and not vcpu.apicv_active:
        _window_opened(vm, vcpu)


def _window_opened(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Exit with VINTR. Like svm.c:interrupt_window_interception (v6.1)."""
    requests.sync_vcpu(vm, vcpu)
    vm.tracer.act(vcpu)
    requests.exit_guest(vcpu, WINDOW)
    vcpu.requests |= EVENT
    vcpu.v_irq = False
    vm.inhibit.irq_window_opened(vcpu)
    if vcpu.user_pic.wants_window:
        _tell_user_space(vm, vcpu)
    enter(vm, vcpu)


def _tell_user_space(vm: ApicVm, vcpu: ApicVcpu) -> None:
    # KVM_EXIT_IRQ_WINDOW_OPEN, then KVM_INTERRUPT with the vector that user space queued.
    vcpu.stats.request_irq_exits += 1
    user_space(vm, vcpu, IRQ_WINDOW_OPEN)
    vcpu.user_pic.wants_window = False


def user_space(vm: ApicVm, vcpu: ApicVcpu, reason: int) -> None:
    """Return from KVM_RUN with this KVM_EXIT_*; user space deals with it and calls it again."""
    vm.tracer.act(vcpu)
    vcpu.kvm_run.leave(reason)
    vcpu.kvm_run.begin()


def is_runnable(vm: ApicVm, vcpu: ApicVcpu) -> bool:
    """Return whether a blocked vCPU has a reason to run. Like x86.c:kvm_vcpu_has_events (v6.1)."""
    startup = vcpu.startup
    if vcpu.run is RunState.UNINIT:
        return startup.init_pending or (startup.sipi_pending and startup.waits_for_sipi)
    if vcpu.nmi_pending or vcpu.smi_pending or startup.init_pending or vcpu.injected is not None:
        return True
    if not vcpu.interrupts_on:
        return False
    if injection.has_extint(vm, vcpu):
        return True
    return vm.has_lapics and vcpu.lapic.deliverable() >= 0


def block(vm: ApicVm, vcpu: ApicVcpu, state: RunState) -> None:
    """Block the vCPU. `state`: HALTED or UNINIT."""
    vcpu.run = state
    vcpu.blocked_since = vm.now_ns
    # A vCPU that waits for INIT does not count as blocking.
    vcpu.stats.blocking = int(state is RunState.HALTED)
    vcpu_load.set_running(vm, vcpu, running=False)
    if state is RunState.UNINIT or not vm.polling.is_awake(vcpu.kvm_run, 0):
        vm.tracer.sleeps(vcpu)


def unblock(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Stop sleeping, and enter the guest. An AP that got only INIT blocks again until SIPI."""
    was = vcpu.run
    slept = vm.now_ns - vcpu.blocked_since
    vcpu.stats.blocking = 0
    vm.tracer.act(vcpu)
    vm.tracer.runs()
    if was is RunState.HALTED:
        vm.polling.end(vcpu.kvm_run, slept)
    else:
        vm.tracer.kvm_vcpu_wakeup(vcpu, slept)
    vcpu.run = RunState.HOST
    if vm.policy.toggles_running and vm.policy.follows_state:
        refresh.serve_requests(vm, vcpu)
    vcpu_load.set_running(vm, vcpu, running=True)
    if was is RunState.UNINIT and not _accept_events(vm, vcpu):
        block(vm, vcpu, RunState.UNINIT)
        return
    enter(vm, vcpu)


def _accept_events(vm: ApicVm, vcpu: ApicVcpu) -> bool:
    """Accept INIT and SIPI; return whether the vCPU may run.

    Like lapic.c:kvm_apic_accept_events (v5.3).
    """
    startup = vcpu.startup
    init, sipi = startup.init_pending, startup.sipi_pending
    startup.init_pending = startup.sipi_pending = False
    if init:
        reset(vm, vcpu)
        # The boot CPU continues at the reset vector.
        startup.waits_for_sipi = vcpu.id != 0
    if sipi and startup.waits_for_sipi:
        startup.waits_for_sipi = False
    return not startup.waits_for_sipi


def reset(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Reset the vCPU as INIT does. Like x86.c:kvm_vcpu_reset (v6.1)."""
    vcpu.lapic.reset(first=vcpu.id == 0)
    vm.irr_known.clear()
    ids_changed(vm)
    vcpu.interrupts_on = True
    vcpu.injected = vcpu.event_inj = None
    vcpu.nmi_pending = vcpu.v_irq = vcpu.in_l2 = False
    vcpu.requests |= EVENT
    drop_handlers(vm, vcpu)


def drop_handlers(vm: ApicVm, vcpu: ApicVcpu) -> None:
    """Forget the interrupt handlers of this vCPU that have not finished."""
    kept = [entry for entry in vm.handlers if entry[0] is not vcpu]
    vm.handlers.clear()
    vm.handlers.extend(kept)

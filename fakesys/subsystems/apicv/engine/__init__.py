"""How interrupts reach a vCPU and how a vCPU enters its guest: functions on VM and vCPU state.

From low to high:

    requests      kicks, wake-ups, requests; which vCPUs are tracked singly
    vcpu_load     IsRunning and the AVIC tables; refresh: AVIC on or off on a vCPU
    apic_ids      the APIC map and the inhibit reasons that follow from it
    delivery      to local APICs; routing: from lines through PIC and IOAPIC; EOIs back
    injection     what is injected at entry, or the window that is requested instead
    vcpu_enter    entry, blocking, unblocking; guest_steps: single steps of a guest
    quiesce       `command`: a change, then steps until nothing is left to do
    vcpu_run      start, stop, preempt, and the ioctls of a vCPU, each a whole command

Functions of `vcpu_run` and of `quiesce` are called from outside. All others are called within a
command, for a vCPU that was given to `requests.sync_vcpu`; their docstrings say what else must hold
before. The order in which vCPUs react is fixed, see `quiesce.py`; so the same commands always give
the same events. Between two commands nothing is pending (`ApicVm.runnable`, `ApicVm.handlers`).

Follows arch/x86/kvm: x86.c, lapic.c, irq.c, ioapic.c, svm/svm.c, svm/avic.c (v6.1), svm.c (v5.3),
and virt/kvm: kvm_main.c, irqchip.c, eventfd.c (v6.1).

    with command(vm, vcpu):                      # the guest of `vcpu` acts
        guest_steps.set_interrupts(vm, vcpu, on=False)
"""

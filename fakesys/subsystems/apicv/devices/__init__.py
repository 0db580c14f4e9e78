"""What causes interrupts: guests that use their APIC, assigned devices, Hyper-V, and user space.

    ipi           a write to ICR: by AVIC hardware, with an incomplete-IPI exit, or by KVM
    apic_access   reads and writes of APIC registers, and of MSR_IA32_APICBASE
    posted        interrupts of assigned devices (`AssignedIrq`), posted by the IOMMU or delivered
    synic         Hyper-V's SynIC, as far as it inhibits AVIC
    vm_ioctls     KVM_IRQ_LINE and the state of PIC, IOAPIC, PIT and RTC; KVM_INTERRUPT

No module here keeps state; it is in `ApicVm` and `ApicVcpu`. `ipi` and `apic_access` are what a
guest does and are called within a command of its vCPU. The functions of the three others are whole
commands: they check, raise KernelError before any change, and then run to the end.

Follows arch/x86/kvm: svm/avic.c, lapic.c, hyperv.c, i8254.c, ioapic.c, x86.c (v6.1); for AVIC
hardware the AMD manual, volume 2, chapter 15.29.

    posted.add(vm, "nic", host_irq=40, gsi=24, route=MsiRoute(vector=0x41, dest=1))
    posted.fire(vm, "nic")       # vCPU 1 gets vector 0x41; without an exit if it runs
    vm_ioctls.pulse(vm, 5)       # GSI 5 goes high and low
"""

"""AVIC (APICv) and the interrupt controllers of a virtual machine.

`Apicv` (`model.py`) is an extension of `Kvm`: it is told of each new VM and vCPU and keeps an
`ApicVm` for each VM, which owns its `ApicVcpu`s, the controllers, AVIC's tables and the VM-wide
`Inhibit`. The idiom is state below, operations above: the objects in `chips` and `state` know no
owner, and everything that happens is a function `f(vm, vcpu, ...)` of `engine` and `devices`.
Folders, lowest first; imports only go down:

    chips      local APIC, PIC, IOAPIC, PIT, RTC: registers of one chip each
    state      what is kept per vCPU and VM; AVIC's tables; inhibit reasons; kernel policies
    engine     requests, delivery, injection, guest entry, and the order of all of it
    devices    IPIs, APIC accesses, posted interrupts, Hyper-V, ioctls of a VM
    model      the extension of `Kvm`; presets: boots of well-known guests
    commands   verbs of `fakesys/kvm/ctl` and `fakesys/kvm/preset`; files: views of a VM

Whatever changes a VM runs within `engine.quiesce.command(vm, vcpu)`, which ends when nothing is
left to do. Between two commands, therefore, no vCPU has a kick, a wake-up or an unfinished entry
pending, no automatic handler is unfinished, and a vCPU that is in guest with AVIC and interrupts on
has no deliverable vector in IRR (except in [v3] and [5.6], where IsRunning can be stale).

Follows arch/x86/kvm: lapic.c, ioapic.c, i8259.c, i8254.c, x86.c, hyperv.c, svm/avic.c and svm/svm.c
of v6.1 and v6.18, svm.c of v5.3 to v5.6, and the third version of the series before that ([v3]).

    echo 'vm create g' > fakesys/kvm/ctl; echo 'g vcpu add count=2' > fakesys/kvm/ctl
    echo 'g vcpu 1 start' > fakesys/kvm/ctl; echo 'g vcpu 0 ipi dst=1 vec=0x41' > fakesys/kvm/ctl
    cat fakesys/kvm/vms/g/state
"""

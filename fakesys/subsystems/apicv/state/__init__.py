"""What interrupt virtualization keeps of each VM and vCPU, and how kernels differ in it.

`ApicVm` owns everything of a VM: its `ApicVcpu`s by id, the chips, the `ApicMap` (destination to
vCPUs), `AvicTables` (what AVIC hardware reads), the `AccessPage`, and `Inhibit`, the VM-wide state
with its reasons. `ApicTracer` is shared by all VMs; `ApicvPolicy` is the row of choices of one
kernel.

The objects change only their own fields. What they need of others they declare: `GuestMemory` is
what the access page needs of the VM's memory, `Engine` the two operations of the engine that
`Inhibit` and the IOAPIC start.

Two things must be known before a field of a vCPU is used. `ApicVcpu` may lag behind, because what
happens to all vCPUs alike is recorded once per VM (`ApicVm.batch`): see `engine/requests.py`. And a
mask of vCPUs has bit N for the vCPU with id N. Between two commands `ApicVm.runnable`,
`ApicVm.touched` and `ApicVm.handlers` are empty.

Follows arch/x86/include/asm/kvm_host.h, arch/x86/kvm/svm/svm.h and avic.c (v6.1), and
lapic.c:kvm_recalculate_apic_map (v6.18).

    vm.inhibit.set(Reason.HYPERV)      # traced; makes a request to all vCPUs if AVIC goes off
    vm.members(vm.running)             # vCPUs with IsRunning in the physical id table
"""

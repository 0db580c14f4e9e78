"""KVM_RUN of a vCPU: entries, exits and returns to user space, each one act with all its effects.

A `VcpuRun` (run.py) knows where the thread of one vCPU is: in user space, in KVM, or in the guest.
Its methods are the only place that counts `exits`, `io_exits`, `fpu_reload`, `insn_emulation` and
the like, and the only one that emits the events that belong to them. So each of these counters
equals the number of its event lines. The models of memory (`kvm_mmu`) and of interrupts (`apicv`)
share the `VcpuRun` of a vCPU.

`Reason` (reasons.py) is why a guest is left, in the numbers of both vendors, with the counter that
goes with it. `Processor` (processor.py) is what the host's processor reports and can do; amd.py and
intel.py spell the details of an exit. Order within one KVM_RUN:

    begin -> enter -> exit -> (what KVM does) -> enter -> exit -> ... -> leave

Between two commands a vCPU is in the guest or not; never in the middle of this.
Follows arch/x86/kvm: x86.c:kvm_arch_vcpu_ioctl_run, vcpu_enter_guest; svm/svm.c:svm_handle_exit,
svm_get_exit_info; vmx/vmx.c:vmx_get_exit_info, vmx_handle_exit (v6.1).

    run.begin()
    run.enter()
    run.page_fault(0x1000, 0x5000, PF_WRITE | PF_USER, nested=True)
    run.enter()
"""

"""KVM's memory management: memslots, shadow pages, page faults, and how all of it is zapped.

`extension.py` joins this model to the virtual machines of `kvm`: a `MmuExtension` owns one
`VmMemory` per VM and one `Guest` per vCPU. `params.py` holds the parameters of a VM. Each folder
may import from those above it in this list:

    events/   tracepoints of the system kvmmmu                          shared
    slots/    host memory, memslots, access to guest memory             shared
    shadow/   state of the shadow MMU: pages, sptes, links, vCPUs
    mmu/      operations on that state, as mmu.c has them
    tdp/      the TDP MMU, state and operations
    vm/       one VM put together; ioctls and host events               shared
    guest/    what guests do, and races between them and a zap          shared
    files/    commands and views                                        shared

"Shared": independent of how guest physical addresses are mapped. A VM with the TDP MMU has the
shadow MMU too, without pages. State objects know no owner: `VmMemory` hands each operation what it
needs. Kernels differ by the `MmuPolicy` alone.

Between two commands: no flow is half done; `MmuArch.zapped_obsolete` is empty; every vCPU's root is
counted in the root_count of its page; the gauges equal the sptes that are present; a vCPU that can
reach an obsolete page has a reload requested (`MmuPolicy.explicit_reload`). This is checked over
random histories by tests/models/kvm_mmu/test_state_machine.py.

Follows arch/x86/kvm/mmu.c (v5.3, v5.4), the eleven patches of the fast invalidate/zap series, and
arch/x86/kvm/mmu/*.c with virt/kvm/kvm_main.c (v6.1, v6.18). In `fakesys/kvm` of a mount:

    for c in 'vm create a' 'a vcpu add' 'a mem m size=64M' 'a slot 0 gpa=0 size=64M mem=m'
    do echo "$c" > ctl; done
    echo 'a vcpu 0 access w 0x1000 n=100' > ctl; cat last vms/a/mmu
"""

"""What users see of a VM's memory: commands of `fakesys/kvm/ctl`, views, and the state JSON.

`commands.py` lists the commands: those of a VM are in `vm_commands.py`, those of a vCPU in
`vcpu_commands.py`, and their operands in `operands.py`. `views.py` has the files `memslots`, `mmu`,
`shadow_pages`, `race` and `dirty/SLOT` of each VM. `state.py` makes plain data of the same numbers.

This folder alone knows text: a command's words become numbers and enumerations here, and results
become words here. Functions take the `MmuExtension`, find the `VmMemory` of the VM, and call one
method of it. A refused command leaves the memory as it was.

The commands stand for ioctls: KVM_SET_USER_MEMORY_REGION, KVM_GET_DIRTY_LOG and so on, see
virt/kvm/kvm_main.c:kvm_vm_ioctl (v6.1). Example, as the file `ctl` receives it:

    a slot 1 gpa=0x10000000 size=2M mem=ram flags=log_dirty
    a dirty_log 1
"""

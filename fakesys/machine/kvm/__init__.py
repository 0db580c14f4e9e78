"""KVM in a machine: the register of VMs, and the models that each VM needs.

    subsystem   `KvmSubsystem`: register, parameters and files; what a machine without VMs needs
    models      `KvmModels`: the models of memory and interrupts, the commands, the views of a VM

Most of KVM's code is about what happens in a VM, and most machines begin without one. So `models`
is imported, with all that it imports, when a command, a view or a VM first asks for it: a mount is
ready earlier. A daemon imports it by `KvmSubsystem.load`, a part at a time, once it is ready.

    kvm = kvm_of(Kernel(), MMU_KERNELS["6.1"], APICV_KERNELS["6.1"])
    kvm.kvm.create_vm("guest")    # imports the models
    kvm.memory.memories           # the memory of each VM
"""

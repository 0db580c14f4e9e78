"""The files of KVM itself: `debug/kvm` as a real kernel has it, and `debug/fakesys/kvm`.

* `debugfs.py`: totals, a directory per VM, a directory per vCPU. Rows show `Stat` counters of
  `Kvm` and `Vm`; an open file of a VM holds a reference (`Vm.hold`), as `kvm_debugfs_open` does.
* `control.py`: the files `ctl`, `preset`, `help`, `last`, `warnings`, the directory `params` with
  a file per `Param`, and `vms` with what the extensions show of each VM.
* `commands.py`: the verbs of `ctl` that create and end VMs and vCPUs, and `modprobe`. The verbs
  of memory and interrupts are in their own folders and use the operands `VM` and `VCPU` of here.
* `vcpu_dirs.py`: the names of the directories of vCPUs, for every table that has them.

Order of a write to `ctl`: `Interpreter.find` parses it, the handler of the `Verb` calls the model
as the owner of the VM (`Kvm.in_owner`), then `Kvm.last` holds the result. A refused command has
changed nothing but `last`.

Follows virt/kvm/kvm_main.c (kvm_create_vm_debugfs), arch/x86/kvm/debugfs.c (v6.1) and
fs/libfs.c:simple_attr_write (v6.1; before 5.10 for the lenient numbers).

    echo "vm create g" > sys/kernel/debug/fakesys/kvm/ctl
    echo "g vcpu add count=2" > sys/kernel/debug/fakesys/kvm/ctl
    cat sys/kernel/debug/fakesys/kvm/last                    # ok
    ls sys/kernel/debug/kvm                                  # PID-FD, and the totals
"""

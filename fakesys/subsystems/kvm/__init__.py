"""KVM: virtual machines and vCPUs, their counters, files and events; memory and interrupts join in.

* `Kvm` (`model.py`) owns the VMs: creation, owners, uevents, `Kvm.extensions`, `Kvm.params`.
* `Vm` and `Vcpu` (`vm.py`) are state; they reach `Kvm` by the protocol `VmRegister`. A Vm lives
  until `Vm.put` drops the last reference: its descriptor, those of its vCPUs, open stat files.
* `Extension` (`extension.py`) is what `kvm_mmu` and `apicv` implement; `machine/kvm/models.py`
  makes them when the first VM is created (`Kvm.extend`). All `check_*` of all extensions run before
  any `add_*`. An extension keeps its state in dicts by Vm and Vcpu (both hash by identity) and
  drops it in `remove_vm`.
* `VmStats`, `VcpuStats` (`stats.py`): a counter is one field, its file follows. Counts of many
  vCPUs at once go to `Vm.group`; a model that counts lazily adds a callable to `Vm.before_read`,
  which books what is due into `Vm.stats`, `Vm.group` or the vCPUs.
* `Param` (`params.py`): a file in `params/`, with `modprobe=True` also a word of `modprobe`. What a
  kernel sets differently is in its row of `machine/profiles.py`.
* `files/` has the tables and commands, `events/` the tracepoints of system `kvm`; `symbols.py` and
  `exits.py` the names that they print. `machine/kvm/models.py` lists the options of `vm create`.
* `saved.py` is what a snapshot holds of all this.

Between two commands each vCPU is in user space, in the guest or halted, and nothing is booked late.
Warnings of a real kernel go through `Kvm.warn`. Events of a VM happen in its owner (`Kvm.in_owner`)
or in a vCPU's thread (`bus.task = vcpu.task`).

Follows virt/kvm/kvm_main.c, arch/x86/kvm/x86.c, arch/x86/kvm/debugfs.c (v6.1, differences back to
5.2 by features).

    vm = kvm.create_vm("a", irqchip=Irqchip.SPLIT, options=VmOptions({PIT: False}))
    vcpu, _ = kvm.create_vcpus(vm, count=2)
    vcpu.stats.exits += 1
    vm.kill()
"""

"""KVM's virtual machines, their counters and files, and the frame of the control commands.

What the models of memory (`kvm_mmu`) and interrupts (`apicv`) build on:

*VMs* (`model.py`). `kvm.vms`; `kvm.vm(name)` (ENOENT); `vm.vcpus[id]`; `vm.pid`, `vm.fd`,
`vm.irqchip`; `vcpu.task` (pid, `CPU 0/KVM`, host CPU; put it into `bus.task` around what the
vCPU does), `vcpu.move_to(cpu)`, `vcpu.runs()`, `vcpu.closed`. An in-process caller makes one with
`kvm.create_vm("a", args=arguments({PIT: True}))` and `kvm.create_vcpus(vm, count=4)`.

*Joining in*: implement `model.Extension` and name the object in `Machine._build_kvm`
(`kvm.extensions`). All `check_*` of all extensions run before any `add_*`: refuse there only.
Keep your own state in dicts by Vm and Vcpu (both hash by identity) and drop it in `remove_vm`.

*Counters* (`stats.py`). `vm.stats.mmu_shadow_zapped += 1`, `vcpu.stats.exits += 1`: plain integer
fields. For counts of many vCPUs at once: `vm.group.exits += n` (shows in the VM's sums). For lazy
counts and gauges: append a callable to `vm.before_read`; it runs before any counter is shown or
cleared and books what is due into `vm.stats`, `vm.group` or the vCPUs. A new counter is one field.
`vm.rmaps_stat` makes the text of `mmu_rmaps_stat`.

*Commands* (`core/commands.py`, `verbs.py`). Add rows: `Verb(words=(VM, "vcpu", VCPU, "hlt"),
options=(...), run=handler, errors={...}, doc=...)`; handler(model, args) returns the words after
`ok` ("" for none), raises KernelError before any change. `vm_of(kvm, args)`, `vcpu_of(kvm, args)`
look up. `Operand(one_of=...)` for `start|stop`, `OptionalOperand` for `[N]`, `Tail` for free words.
Options of your own for `vm create` are `Option`s named in `Machine` as `vm_options`; read them in
`check_vm`/`add_vm` as `args.get(PIT)`, which answers the default when the command is not theirs.

*Knobs* (`params.py`). `Param("zap_flow", words_of(...), default, doc)`, read as
`kvm.params[ZAP_FLOW]`; a file in `fakesys/kvm/params` follows, with `modprobe=True` also a word of
`modprobe`. What a kernel sets differently stands in its row in `profiles.py` (`params=`).

*Views*: rows on model Vm for `fakesys/kvm/vms/VM/`; `tree.attr.Files` makes a file per vCPU.

*Warnings*: `kvm.warn(text)` counts what a real kernel would have warned about.
"""

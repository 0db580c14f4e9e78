"""Modules of the kernel: which are loaded, what they need, and their directories in `sys/module`.

* `Modules` (`model.py`) is the register. It owns which modules are loaded, in their order, loads
  and removes them, and passes parameters. A `Module` says what a module is (`ModuleInfo`) and what
  it does: `init`, `exit` and `set_params` of the subsystem that registers it.
* `known.py`: the modules that a machine has, as `modinfo` tells of them.
* `files.py`: `sys/module/NAME` of every module but its `parameters`, which belong to subsystems.
* `control_files.py`: `fakesys/modules`, which loads and removes modules as modprobe, insmod and
  rmmod do, and has the text of /proc/modules.
* `saved.py`: the loaded modules in a snapshot.

Order of a load: modules that it needs, parameters of the boot command line and of the caller,
`init`, the uevent. Order of a removal: EAGAIN while it is used or another module needs it, `exit`,
the uevent. Between two operations each loaded module has the modules that it needs.

The register knows no subsystem; machines are put together by `machine/`. Modules that are loaded at
boot send no uevent, as no journal listens that early.

Follows kernel/module/main.c, kernel/module/sysfs.c and kernel/module/procfs.c (v6.1).

    echo vfio_ap > sys/kernel/debug/fakesys/modules/remove
    echo 'kvm_amd avic=0' > sys/kernel/debug/fakesys/modules/load
    cat sys/kernel/debug/fakesys/modules/list
"""

"""The directories `sys/module/kvm` and `sys/module/kvm_amd`: parameters of the two modules.

    kvm         parameters of the module kvm: NX huge pages, and settings without a model
    kvm_amd     avic, npt, nested and others; `mounts` for both modules; the file apicv-state
    modules     what loading and removing the two modules does; their parameters at the load
    features    which parameters which kernels have, and of which type

The files are rows; the values belong to the models. `kvm_amd` shows `Kvm.params`, which `modprobe`
in `fakesys/kvm/ctl` changes while no VM exists. `NxHugePages` in `kvm_mmu` owns the parameters of
NX huge pages; writing them zaps pages at once. All other writable parameters of kvm are kept as
text in `KvmModule.settings`, as no model depends on them; so are those given at the load. The rows
work on a `KvmModule`, which holds all that; nothing else is kept here.

It is the last of the subsystems because it imports `kvm`, `kvm_mmu` and `apicv`.

Follows the module_param calls of arch/x86/kvm: x86.c, mmu/mmu.c, mmu/tdp_mmu.c, svm/svm.c,
svm/avic.c, and of virt/kvm/kvm_main.c (v6.1, v6.18), with svm.c, x86.c and mmu.c of v5.3.

    $ cat sys/module/kvm_amd/parameters/avic
    1
    $ echo force > sys/module/kvm/parameters/nx_huge_pages
"""

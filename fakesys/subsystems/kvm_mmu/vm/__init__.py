"""The memory of one VM put together, the ioctls that concern it, and what the host does to it.

`VmMemory` (memory.py) owns everything: the `HostSpace` and memslots, the state in `shadow/`, the
operations in `mmu/`, a `DirtyLog` (dirty_log.py) and an `MmuNotifier` (mmu_notifier.py). No part
knows the `VmMemory`. `tables.py` declares what an MMU offers to guests; `DirtyRings`
(dirty_rings.py) are the rings of vCPUs. Two objects span all VMs and are owned by the
`MmuExtension`: the `Shrinker` (shrinker.py) and `NxHugePages` (nx_huge_pages.py, a parameter of the
module with a thread per VM). `rmaps.py` computes the file mmu_rmaps_stat.

The deletion or move of a slot has three parts: `VmMemory.begin_removal` makes the slot invalid and
returns the flow, the caller steps the flow until it is done, `VmMemory.end_removal` removes the
slot. `set_region` does them at once; guest/race.py lets vCPUs fault in between.

Between two commands: the budget follows from the slots unless KVM_SET_NR_MMU_PAGES fixed it, and
every logged slot has a bitmap.

Follows virt/kvm/kvm_main.c, arch/x86/kvm/x86.c, arch/x86/kvm/debugfs.c (v6.1), and the shrinker of
arch/x86/kvm/mmu.c (v5.4). Example: see `VmMemory`.
"""

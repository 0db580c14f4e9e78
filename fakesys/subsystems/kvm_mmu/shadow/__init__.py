"""The state of the shadow MMU. Nothing here handles a fault, zaps a page or knows a memslot.

`MmuArch` (arch.py, `struct kvm_arch`) owns the two large tables of a VM: `ShadowPages` (pages.py,
the pages as columns of numbers) and `Sptes` (sptes.py, their leaf sptes and the rmap). It refers to
the `MmuPolicy` of the kernel (policy.py), to counters, and to each vCPU's `VcpuMmu` (vcpu.py).
`ShadowLinks` (links.py) says which page points to which; it owns the `WriteTracking` of guest
tables (write_tracking.py). `ShadowWalker` (walk.py) reads all of it as a processor does.

A shadow page is a row number. Its life: `ShadowPages.alloc`, `ShadowLinks.link`, `Sptes.add`; then
`Sptes.drop`, `ShadowLinks.unlink_parents`, `ShadowPages.invalidate`, and at last
`ShadowPages.free`, after which the row is used again. The operations in `mmu/` keep that order.

Between two operations `ShadowPages.present` of a row counts its leaf sptes and its links, and a
table whose 512 sptes are alike has no `Leaf` (`Sptes.pack`).

Follows arch/x86/include/asm/kvm_host.h and arch/x86/kvm/mmu/mmu_internal.h, spte.h (v6.1). Example:

    arch = MmuArch(Bus(), K6_1, Knobs(), VmStats())
    row = arch.pages.alloc(0, role_word(K6_1.base_role, 1, direct=True))
    arch.sptes.add(row, 3, gfn=3)
    assert arch.sptes.mappings(3, 1) == [Mapping(row, 3)]
"""

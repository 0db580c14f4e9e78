"""The operations of the MMU, as arch/x86/kvm/mmu/mmu.c has them. They own no state of their own.

A fault goes through these files, from above to below:

    faults.py           page_fault: outcome, host page, then the spte
    faultin.py          the host page, copied before a write where it is shared
    fast_page_fault.py  W given back without the lock
    guest_walker.py     the guest's tables, with shadow paging
    direct_map.py       page size, direct tables down to it
    set_spte.py         one leaf spte; prefetch.py its neighbours; mmio.py an MMIO spte instead
    roots.py            roots of vCPUs, requests, the budget of pages
    get_page.py         a shadow page found or made
    sync_page.py        an unsync page read again; pte_write.py an emulated write to a guest table
    zap.py              pages out of use: one, the oldest, all at once
    flows.py            flows over all pages, over those with MMIO sptes, over those of a slot

Each class takes the `MmuArch`, the `ShadowLinks` and the operations that it calls; `VmMemory` makes
them in the order from below to above. `Roots.enter` comes before each access of the guest,
`Roots.make_available` before `PageFinder.get_page`, `Zapper.commit` after `Zapper.prepare`.

A zap of many pages is the one operation that is done in steps: between two steps of a `Flow` the
lock is free, so that vCPUs may fault and make pages. Between two commands no flow is unfinished but
that of a race that is paused.

Follows mmu.c of v5.3, v5.4 and v6.1, paging_tmpl.h and spte.c; functions cite theirs. Example:

    memory.roots.enter(vcpu)
    if not memory.shadow_walker.allows(vcpu, gpa, PF_WRITE):
        memory.faults.page_fault(vcpu, gpa, PF_WRITE)
"""

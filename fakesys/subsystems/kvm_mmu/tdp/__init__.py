"""The TDP MMU: what maps a guest's memory on a host with nested paging and kvm.tdp_mmu.

A `TdpMmu` (mmu.py) is the part of one VM. It owns the `TdpTables` (tables.py), a tree per root
without list, hash or budget; a root belongs to an address space and is shared by all vCPUs.

    tables    state: roots, tables, leaves; a table whose 512 sptes are alike is one byte
    values    sptes as numbers, from that state and the memslots
    walker    walks as the processor does them
    roots     roots of vCPUs
    changes   what follows from a changed entry: event, gauges, a table that is taken down
    mapping   a leaf for a fault, with its tables; large leaves that are split
    faults    page faults: MMIO sptes, the fast path, then `mapping`
    zap       roots or ranges; flow: the zap of everything as a `Flow`
    dirty     dirty logging, and large leaves that come back after it

Each class takes the `MmuArch`, the tables and what it calls. `Changes.trace` comes before an entry
that was a table takes that table down, as handle_changed_spte has it. Where no listener hears of
single entries, tables of 2 MiB are changed as bytes, so that 1 TiB takes milliseconds.

Between two commands no root is invalid, and the gauges equal the leaves of all roots. What kernels
do differently is in `TdpRules` of the policy. Follows arch/x86/kvm/mmu/tdp_mmu.c, tdp_iter.c (v6.1,
v6.12). Example:

    memory.roots.enter(vcpu)
    memory.tdp.faults.page_fault(vcpu, 0x5000, PF_WRITE)
    assert memory.tdp.walker.allows(vcpu, 0x5000, PF_WRITE)
"""

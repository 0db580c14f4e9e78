"""The memory of every VM in a snapshot, as declared plain values.

    packed   columns of numbers as bytes, and masks of 512 bits
    host     mappings of the owners with their content
    slots    memslots and generations
    pages    shadow pages: columns, list, hash
    sptes    leaf sptes and MMIO sptes
    links    which entry points to which page, marks of unsync pages
    vcpus    roots, requests and registers of vCPUs
    tdp      roots and tables of the TDP MMU
    races    how races ended, and one that is paused, with its pages in the middle of a zap
    memory   one VM put together; nx: recovery threads; mmu: `save` and `restore` of all

Each module has a struct, a function that saves and one that restores into the objects that a new
`VmMemory` has made. Saved is only what does not follow from the rest: counts of roots and entries,
the rmap, the kernel's hash, write tracking, addresses of host memory and knobs are made again, and
the gauges must equal the sptes. A page is saved by its row, since the number of the row shows in
the addresses of its sptes.

What is restored has passed the checks of the invariants that hold between two commands, see
`kvm_mmu`; anything else is refused by BadSnapshotError.
"""

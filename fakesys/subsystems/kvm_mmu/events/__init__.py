"""The tracepoints of the system `kvmmmu`, one class each.

`pages.py` has those of shadow pages, `sptes.py` those of single sptes and of fast faults, `walk.py`
those of guest table walks and of MMIO. `catalog.py` lists all of them in the order of their ids;
`features.py` names the features by which kernels differ in their fields and texts.

An operation asks `bus.wanted` before it makes an event, so that an event without listeners costs a
single set look-up. Follows arch/x86/kvm/mmu/mmutrace.h (v6.1, v6.18) and arch/x86/kvm/mmutrace.h
(v5.4). Example:

    if KvmMmuSyncPage in bus.wanted:
        bus.emit(KvmMmuSyncPage(**links.fields(row)))
"""

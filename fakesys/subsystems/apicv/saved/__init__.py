"""The interrupts of every VM in a snapshot, as declared plain values.

    chips    local APIC, PIC, IOAPIC, PIT
    inhibit  whether AVIC is on, in the form that the kernel has
    vcpus    one vCPU
    vm       one VM with its controllers, tables and devices
    apicv    `save` and `restore` of all

Each module has structs, functions that save and functions that restore into new objects. The
states hold between two commands only: no vCPU has a kick, a wake-up or an unfinished entry, and no
handler is unfinished. Saved is only what does not follow from the rest: the APIC map, the output of
the PIC, counts of vCPUs, posted interrupts of a vCPU and backing pages are made again, and what
happened to batched vCPUs is booked before. What cannot be is refused by BadSnapshotError.
"""

"""The interrupt controllers and timers of a VM, each on its own: registers and what they mean.

`Lapic` is the local APIC of one vCPU; `Pic` (with two `Chip`s), `Ioapic`, `Pit` and `RtcStatus`
belong to a VM. Their owners are `ApicVcpu` and `ApicVm` in `state`. A chip knows neither: it
answers questions ("which vector is deliverable?", "must this pin be sent again?"), and the
functions of `engine/routing.py` and `engine/delivery.py` carry interrupts from one to the other.
Only `Pic` calls back (`wake`, `acked`), as i8259.c does both in the middle of its work.

Nothing here reads a clock: a command calls `Pit.tick`. No chip refuses anything;
arguments are checked in `devices` and `commands`.

Follows arch/x86/kvm: lapic.c, i8259.c, ioapic.c, i8254.c (v6.1).

    lapic = Lapic(vcpu_id=0)
    lapic.request(0x41)
    assert lapic.deliverable() == 0x41
    lapic.serve(0x41)              # from IRR to ISR
    assert lapic.end() == 0x41     # EOI
"""

"""The tracepoints of system `kvm`, one class each, grouped by what causes them.

* `run.py`: entries, exits, returns to user space; `GuestExit` is the base of exits, nested or not.
* `guest.py`: ports, device memory, instructions, registers, page faults.
* `irq.py`: lines, PIC, IOAPIC, MSI, posted interrupts; `lapic.py`: local APICs and injection;
  `avic.py`: APICv and AVIC.
* `nested.py`, `clock.py`, `memory.py`, `encrypted.py`, and `hyperv/` for guests that use Hyper-V's
  interfaces.
* `catalog.py` collects all but those of `avic.py`; `order.py` has their order in
  `available_events`.

A class (`core/tracepoint.py`) declares fields in the order of the newest record that is known,
6.18. `Variant` rows, chosen by members of `KvmFeature`, say what older kernels record and print.
Nothing here emits: the models in `kvm_mmu` and `apicv` do, after they asked `bus.wanted`.

Source: arch/x86/kvm/trace.h, include/trace/events/kvm.h (v6.18 as recorded; v6.1; v5.4; v5.2).

    if KvmUserspaceExit in bus.wanted:
        bus.emit(KvmUserspaceExit(reason=5, errno=0))
"""

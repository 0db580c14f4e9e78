"""The tracepoints of guests that use Hyper-V's interfaces.

* `hypercalls.py`: hypercalls, TLB flushes and IPIs that are made by them.
* `synic.py`: the synthetic interrupt controller (SynIC), synthetic timers, the debugger.

Each file lists its classes in `EVENTS`, which `events/catalog.py` collects. No model emits
them; they are declared because the simulated kernel has their `format` files and filters.

Source: arch/x86/kvm/trace.h (v6.18 as recorded, v6.1), as emitted by arch/x86/kvm/hyperv.c.

    cat sys/kernel/debug/tracing/events/kvm/kvm_hv_stimer_expiration/format
"""

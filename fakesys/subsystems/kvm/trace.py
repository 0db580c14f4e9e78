"""The events of system `kvm`, but those of APICv: arch/x86/kvm/trace.h, trace/events/kvm.h.

Versions 6.18 (recorded), 6.1, and 5.2 for those before 5.4.
"""

from __future__ import annotations

from fakesys.core.tracepoint import Tracepoint
from fakesys.subsystems.kvm import (
    trace_clock,
    trace_encrypted,
    trace_guest,
    trace_hyperv,
    trace_irq,
    trace_memory,
    trace_nested,
    trace_run,
    trace_synic,
)

EVENTS: tuple[type[Tracepoint], ...] = (
    *trace_run.EVENTS,
    *trace_guest.EVENTS,
    *trace_irq.EVENTS,
    *trace_nested.EVENTS,
    *trace_clock.EVENTS,
    *trace_memory.EVENTS,
    *trace_encrypted.EVENTS,
    *trace_synic.EVENTS,
    *trace_hyperv.EVENTS,
)

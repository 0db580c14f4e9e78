"""The events of system `kvm`, but those of APICv: arch/x86/kvm/trace.h, trace/events/kvm.h.

Versions 6.18 (recorded), 6.1, and 5.2 for those before 5.4.
"""

from __future__ import annotations

from fakesys.core.tracepoint import Tracepoint
from fakesys.subsystems.kvm.events import clock as trace_clock
from fakesys.subsystems.kvm.events import encrypted as trace_encrypted
from fakesys.subsystems.kvm.events import guest as trace_guest
from fakesys.subsystems.kvm.events import hyperv as trace_hyperv
from fakesys.subsystems.kvm.events import irq as trace_irq
from fakesys.subsystems.kvm.events import memory as trace_memory
from fakesys.subsystems.kvm.events import nested as trace_nested
from fakesys.subsystems.kvm.events import run as trace_run
from fakesys.subsystems.kvm.events import synic as trace_synic

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

"""The events of system `kvm` except those of APICv (`avic.py`).

Source: arch/x86/kvm/trace.h and include/trace/events/kvm.h of 6.18 (recorded), 6.1, and 5.2 for
those before 5.4.
"""

from __future__ import annotations

from fakesys.core.tracepoint import Tracepoint
from fakesys.subsystems.kvm.events import (
    clock,
    encrypted,
    guest,
    irq,
    lapic,
    memory,
    nested,
    run,
)
from fakesys.subsystems.kvm.events.hyperv import hypercalls, synic

EVENTS: tuple[type[Tracepoint], ...] = (
    *run.EVENTS,
    *guest.EVENTS,
    *irq.EVENTS,
    *lapic.EVENTS,
    *nested.EVENTS,
    *clock.EVENTS,
    *memory.EVENTS,
    *encrypted.EVENTS,
    *synic.EVENTS,
    *hypercalls.EVENTS,
)

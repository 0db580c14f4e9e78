"""The timer chip's channel 0: ticks, and those that wait until the last was acknowledged.

Like arch/x86/kvm/i8254.c: pit_timer_fn, pit_do_work, kvm_pit_ack_irq (v6.1).
"""

from __future__ import annotations

PIT_SOURCE = 2
"""Its interrupt source id."""


class Pit:
    """`due`: how often the worker must still run."""

    __slots__ = ("due", "irq_ack", "pending", "reinject")

    def __init__(self, *, reinject: bool) -> None:
        self.reinject = reinject
        self.irq_ack = True
        self.pending = 0
        self.due = 0

    def tick(self) -> None:
        """The timer fires."""
        if self.reinject:
            self.pending += 1
        self.due += 1

    def work(self) -> bool:
        """The worker runs once: must the line go high and low?"""
        self.due -= 1
        if self.reinject and not self.irq_ack:
            return False
        if self.reinject:
            self.irq_ack = False
        return True

    def acknowledge(self) -> None:
        """The interrupt was EOIed; the next pending tick can come."""
        if not self.reinject:
            return
        self.irq_ack = True
        if self.pending > 0:
            self.pending -= 1
            if self.pending > 0:
                self.due += 1

    def restart(self) -> None:
        """Nothing is owed any more: the pin was unmasked or the counter loaded."""
        self.pending = 0
        self.irq_ack = True

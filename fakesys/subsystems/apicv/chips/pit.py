"""Channel 0 of the 8254 timer: its ticks, and the lost ticks that are reinjected.

Like arch/x86/kvm/i8254.c: pit_timer_fn, pit_do_work, kvm_pit_ack_irq (v6.1).
"""

from __future__ import annotations

PIT_SOURCE = 2
"""Interrupt source id of the PIT."""


class Pit:
    """State of channel 0.

    `reinject`: a tick that could not be delivered is delivered later. `irq_ack`: the last tick was
    acknowledged. `pending`: ticks that are owed to the guest. `due`: runs of the worker to come.
    """

    __slots__ = ("due", "irq_ack", "pending", "reinject")

    def __init__(self, *, reinject: bool) -> None:
        self.reinject = reinject
        self.irq_ack = True
        self.pending = 0
        self.due = 0

    def tick(self) -> None:
        """Let the timer expire once."""
        if self.reinject:
            self.pending += 1
        self.due += 1

    def work(self) -> bool:
        """Run the worker once; return whether it pulses the interrupt line.

        Precondition: `due` is above 0.
        """
        self.due -= 1
        if self.reinject and not self.irq_ack:
            return False
        if self.reinject:
            self.irq_ack = False
        return True

    def acknowledge(self) -> None:
        """Handle the EOI of a tick; the next pending tick can be delivered."""
        if not self.reinject:
            return
        self.irq_ack = True
        if self.pending > 0:
            self.pending -= 1
            if self.pending > 0:
                self.due += 1

    def restart(self) -> None:
        """Forget the pending ticks, as after unmasking the pin or loading the counter."""
        self.pending = 0
        self.irq_ack = True

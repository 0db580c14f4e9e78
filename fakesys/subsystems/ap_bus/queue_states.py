"""How far the bus has come with each queue of a card: initiated, reset, with interrupts.

Like the state machine of ap_queue.c (v6.1). Differs: a step that waits for the hardware is
over at once. Knows masks of domains, no queue and no hardware.
"""

from __future__ import annotations

from fakesys.core.text import format_mask


class QueueStates:
    """One bit per queue.

    `operating`: initiated for the host (a device state above UNINITIATED). `reset_started`: the
    machine stands at its first state and nobody has polled it since. `interrupts`: the reset
    ended with interrupts on; what others do to the queue later is not noticed.
    """

    def __init__(self) -> None:
        self.operating = 0
        self.reset_started = 0
        self.interrupts = 0

    def create(self, mask: int) -> None:
        """Devices just made: zeroed, which is the first state."""
        self.release(mask)
        self.interrupts &= ~mask
        self.reset_started |= mask

    def release(self, mask: int) -> None:
        """Taken from their driver; the rest stays as it was (ap_queue.c:ap_queue_remove)."""
        self.operating &= ~mask

    def poll(self, runnable: int, *, interrupts: bool) -> int:
        """Run those of these that stand at the start; which they are.

        Like ap_queue.c:ap_sm_event: only what operates, is configured and not checkstopped.
        """
        done = self.reset_started & self.operating & runnable
        self.reset_started &= ~done
        self.interrupts = self.interrupts & ~done | (done if interrupts else 0)
        return done

    def state(self) -> dict[str, str]:
        """As plain data."""
        return {
            "interrupts": format_mask(self.interrupts),
            "operating": format_mask(self.operating),
            "reset_started": format_mask(self.reset_started),
        }

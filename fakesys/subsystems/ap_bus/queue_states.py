"""The state machines of a card's queues: initiated, reset, with interrupts.

Like the state machine of ap_queue.c (v6.1). Differs: a step that waits for the hardware is
over at once. Knows masks of domains, no queue and no hardware.
"""

from __future__ import annotations

from fakesys.core.text import format_mask


class QueueStates:
    """The states of all queues of one card: three masks of domains.

    `operating`: initiated for the host (a device state above AP_DEV_STATE_UNINITIATED).
    `reset_started`: in the state AP_SM_STATE_RESET_START; a poll has not moved it on yet.
    `interrupts`: the last reset ended with interrupts on. What a guest or another driver does to
    the queue later is not noticed.
    """

    def __init__(self) -> None:
        self.operating = 0
        self.reset_started = 0
        self.interrupts = 0

    def create(self, mask: int) -> None:
        """Put new queue devices into the first state."""
        self.release(mask)
        self.interrupts &= ~mask
        self.reset_started |= mask

    def release(self, mask: int) -> None:
        """Mark queues as no longer initiated because their driver lost them.

        The other two masks stay as they are (ap_queue.c:ap_queue_remove, v6.1).
        """
        self.operating &= ~mask

    def poll(self, runnable: int, *, interrupts: bool) -> int:
        """Run the state machines of queues that wait for their reset; return which ran.

        `runnable`: the queues that are configured and not checkstopped; of these only the
        operating ones run. `interrupts`: does the machine have AP interrupts? Like
        ap_queue.c:ap_sm_event (v6.1).
        """
        done = self.reset_started & self.operating & runnable
        self.reset_started &= ~done
        self.interrupts = self.interrupts & ~done | (done if interrupts else 0)
        return done

    def state(self) -> dict[str, str]:
        """Return the three masks as plain data."""
        return {
            "interrupts": format_mask(self.interrupts),
            "operating": format_mask(self.operating),
            "reset_started": format_mask(self.reset_started),
        }

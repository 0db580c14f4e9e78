"""The state machines of a card's queues: initiated, in error, in a reset, with interrupts.

Like the state machine of ap_queue.c (v6.1). Knows masks of domains, no queue and no hardware.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from fakesys.core.text import format_mask
from fakesys.subsystems.ap_bus.queues.answers import BUSY, NORMAL, RESET_IN_PROGRESS


class Steps(NamedTuple):
    """What one event did, as masks of domains.

    `reset`: queues that were reset; `enabled`: whose interrupts were turned on; `moved`: that are
    in another state now. `failed`: those that are in error from now on, by the function of
    ap_queue.c that found it.
    """

    reset: int
    enabled: int
    moved: int
    failed: Mapping[str, int]


class QueueStates:
    """The states of all queues of one card.

    The state of the device is UNINITIATED unless it is in `operating` or `error`. The state of its
    machine is IDLE unless it is in `reset_start`, `reset_wait` or `irq_wait`. `interrupts`: the
    last reset ended with interrupts on. What others do to the queue later is not noticed.
    """

    def __init__(self) -> None:
        self.operating = 0
        self.error = 0
        self.reset_start = 0
        self.reset_wait = 0
        self.irq_wait = 0
        self.interrupts = 0

    @property
    def busy(self) -> int:
        """The queues that are not IDLE."""
        return self.reset_start | self.reset_wait | self.irq_wait

    @property
    def initiated(self) -> int:
        """The queues whose device has left the state AP_DEV_STATE_UNINITIATED."""
        return self.operating | self.error

    def create(self, mask: int) -> None:
        """Put new queue devices into the first state."""
        self.release(mask)
        self.begin_reset(mask)
        self.interrupts &= ~mask

    def release(self, mask: int) -> None:
        """Mark queues as no longer initiated because their driver lost them.

        The state of the machine stays (ap_queue.c:ap_queue_remove, v6.1).
        """
        self.operating &= ~mask
        self.error &= ~mask

    def fail(self, mask: int) -> None:
        """Put those of these queues that are initiated into the error state."""
        failed = mask & self.operating
        self.operating &= ~failed
        self.error |= failed

    def operate(self, mask: int) -> None:
        """Put queues into operation, before their reset."""
        self.operating |= mask
        self.error &= ~mask
        self.begin_reset(mask)

    def begin_reset(self, mask: int) -> None:
        """Put the machines of these queues before their reset."""
        self.reset_start |= mask
        self.reset_wait &= ~mask
        self.irq_wait &= ~mask

    def poll(self, runnable: int, answers: Mapping[int, int], *, interrupts: bool) -> Steps:
        """Do one step of each machine: an event AP_SM_EVENT_POLL.

        `runnable`: the queues that are configured and not checkstopped; of these only those that
        are initiated run. `answers`: an answer of the hardware, and the queues that give it now.
        `interrupts`: does the machine have AP interrupts? Like ap_queue.c:ap_sm_event (v6.1).
        """
        runnable &= self.initiated
        normal, resetting = answers.get(NORMAL, 0), answers.get(RESET_IN_PROGRESS, 0)
        starting, waiting = self.reset_start & runnable, self.reset_wait & runnable
        enabled = self.irq_wait & runnable
        reset, done = starting & (normal | resetting), waiting & normal
        busy = waiting & (resetting | answers.get(BUSY, 0))
        failed = {
            "ap_sm_reset": starting & ~reset & self.operating,
            "ap_sm_reset_wait": waiting & ~(done | busy) & self.operating,
            "ap_sm_setirq_wait": enabled & ~normal & self.operating,
        }
        for mask in failed.values():
            self.fail(mask)
        self.reset_start &= ~reset
        self.reset_wait = self.reset_wait & ~done | reset
        self.irq_wait = self.irq_wait & ~enabled | (done if interrupts else 0)
        self.interrupts = self.interrupts & ~reset | enabled
        return Steps(reset, done if interrupts else 0, reset | done | enabled, failed)

    def state(self) -> dict[str, str]:
        """Return the masks that are not empty as plain data."""
        masks = {
            "error": self.error,
            "interrupts": self.interrupts,
            "irq_wait": self.irq_wait,
            "operating": self.operating,
            "reset_start": self.reset_start,
            "reset_wait": self.reset_wait,
        }
        return {name: format_mask(mask) for name, mask in masks.items() if mask}

"""How the AP bus of one kernel differs from another's, beyond presence and format of files."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

from msgspec import Struct

from fakesys.core.features import Feature

# Hardware types (drivers/s390/crypto/ap_bus.h, v6.1).
CEX2A = 6
CEX4 = 10


class ApFeature(Feature):
    """Differences between kernels in the files of the AP bus."""

    DEPTH_IS_SIZE = "ap.depth_is_size"
    FEATURES = "ap.features"
    MESSAGE_POOL = "ap.message_pool"
    QUEUE_FUNCTIONS = "ap.queue_functions"
    STRICT_POLL = "ap.strict_poll"


class Answers(NamedTuple):
    """What the queues of one card answer to PQAP(TAPQ), as masks of domains."""

    present: int
    deconfigured: int
    checkstopped: int


class BindingsEvent(Enum):
    """When the uevent `BINDINGS=complete` is sent (ap_bus.c:ap_check_bindings_complete)."""

    EVERY_PROBE = auto()
    PER_SCAN = auto()


def stay_when_deconfigured(answers: Answers) -> int:
    """Return the domains that have a queue device: all that answer."""
    return answers.present


def vanish_when_deconfigured(answers: Answers) -> int:
    """Return the domains that have a queue device: all that answer and are configured."""
    return answers.present & ~answers.deconfigured


class BusPolicy(Struct, frozen=True):
    """The choices of one kernel.

    `veto_errno`: errno of a mask change that a driver refuses.
    `bound_errno`: errno of a write to `bind` for a device that has a driver (bus.c:bind_store).
    `oldest_type`: cards of an older type have no device (ap_bus.c:ap_get_compatible_type).
    `initiates_queues`: does the bus initiate new and returning queues, whatever their driver?
    `asks_for_interrupts`: is the interrupt state read from the hardware, or remembered from the
    host's own last setting?
    `queues`: which domains of a card have a queue device.
    `checkstop_is_offline`: does a checkstop prevent `online`?
    `asks_state`: do requests go only to queues in operation (ap_queue.c:ap_queue_usable)?
    `rescans`: does a request that finds no queue scan the bus?
    `poll_seconds`: after how long a queue that a user resets is polled; 0: too short to see.
    """

    veto_errno: int
    bound_errno: int
    oldest_type: int
    initiates_queues: bool
    asks_for_interrupts: bool
    bindings: BindingsEvent
    queues: Callable[[Answers], int]
    checkstop_is_offline: bool
    asks_state: bool
    rescans: bool
    poll_seconds: float

    def usable(self, *, config: bool, checkstop: bool) -> bool:
        """Return whether a card or queue in this state may be online."""
        return config and not (checkstop and self.checkstop_is_offline)

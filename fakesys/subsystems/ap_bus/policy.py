"""What differs between kernels in the AP bus beyond the presence and format of files."""

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
    """When a uevent tells that all queues are bound (ap_bus.c:ap_check_bindings_complete)."""

    EVERY_PROBE = auto()
    PER_SCAN = auto()


def stay_when_deconfigured(answers: Answers) -> int:
    """Every queue that answers at all has a device."""
    return answers.present


def vanish_when_deconfigured(answers: Answers) -> int:
    """A deconfigured queue has no device."""
    return answers.present & ~answers.deconfigured


class BusPolicy(Struct, frozen=True):
    """The choices of one kernel.

    `veto_errno`: a mask change that a driver refuses. `oldest_type`: older cards have no device
    (ap_bus.c:ap_get_compatible_type). `nudges_queues`: does the bus itself initiate new queues
    and those that come back, whoever has them? `asks_for_interrupts`: are queues asked whether
    their interrupts are on, instead of what the host did last?
    """

    veto_errno: int
    oldest_type: int
    nudges_queues: bool
    asks_for_interrupts: bool
    bindings: BindingsEvent
    queues: Callable[[Answers], int]
    checkstop_is_offline: bool

    def usable(self, *, config: bool, checkstop: bool) -> bool:
        """May a card or queue in this state be online?"""
        return config and not (checkstop and self.checkstop_is_offline)

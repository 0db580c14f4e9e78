"""A queue device: a view of one bit of its card. Nothing is stored per queue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from errno import EINVAL, ENODEV
from typing import TYPE_CHECKING, NamedTuple

from fakesys.core.errors import KernelError
from fakesys.subsystems.ap_bus.apqn import Apqn
from fakesys.subsystems.ap_bus.hardware import NOT_AVAILABLE
from fakesys.subsystems.ap_bus.uevents import queue_env

if TYPE_CHECKING:
    from fakesys.subsystems.ap_bus.card import ApCard


class ApQueue(NamedTuple):
    """The queue of a domain on a card. Views of one device are equal; `plug` tells it from
    the device of the same name before.
    """

    card: ApCard
    apqi: int
    plug: int

    @property
    def subsystem(self) -> str:
        """Its bus."""
        return "ap"

    @property
    def apqn(self) -> Apqn:
        """Its address."""
        return Apqn(self.card.apid, self.apqi)

    @property
    def devpath(self) -> str:
        """Path below /sys."""
        return f"{self.card.devpath}/{self.apqn}"

    @property
    def driver(self) -> str | None:
        """Name of its driver; None while unbound."""
        driver = self.card.bus.driver_of(self.apqn)
        return driver.name if driver else None

    @property
    def config(self) -> bool:
        """Is it configured, as of the last scan?"""
        return not self.card.deconfigured >> self.apqi & 1

    @property
    def chkstop(self) -> bool:
        """Is it checkstopped, as of the last scan?"""
        return bool(self.card.checkstopped >> self.apqi & 1)

    @property
    def usable(self) -> bool:
        """May it be online?"""
        return self.card.bus.policy.usable(config=self.config, checkstop=self.chkstop)

    @property
    def online(self) -> bool:
        """Does it take requests of the host?"""
        return self.usable and not self.card.offline >> self.apqi & 1

    @property
    def request_count(self) -> int | None:
        """Requests of the host; None while the host has not initialised it."""
        if not self._operating:
            return None
        return self.card.queue_requests.get(self.apqi, 0)

    @property
    def waiting(self) -> int:
        """Requests that wait because the queue is busy."""
        return self.card.waiting.get(self.apqi, 0)

    @property
    def resetting(self) -> bool:
        """Is a reset under way? One that nobody polls goes on for ever."""
        started = bool(self.card.states.reset_started >> self.apqi & 1)
        return started or self._answers_resetting

    @property
    def interrupts(self) -> bool:
        """Are interrupts on, as this kernel knows it?"""
        bus = self.card.bus
        if bus.policy.asks_for_interrupts:
            known = bus.hardware.irq(self.card.apid)
        else:
            known = self.card.states.interrupts
        return bool(known >> self.apqi & 1) and not self._answers_resetting

    @property
    def _operating(self) -> bool:
        return bool(self.card.states.operating >> self.apqi & 1)

    @property
    def _answers_resetting(self) -> bool:
        return self._operating and self.card.bus.hardware.is_resetting(self.apqn)

    def functions(self) -> int:
        """The function bits, asked from the queue; none where the answer comes without them.

        Like ap_queue.c:ap_functions_show (v6.12): only answers above 05 fail, and none is.
        """
        answers = self.card.bus.hardware.by_answer(self.card.apid, 1 << self.apqi)
        return 0 if NOT_AVAILABLE in answers else self.card.spec.functions

    def uevent_env(self) -> Mapping[str, str]:
        """Like ap_bus.c:ap_uevent (v6.1)."""
        return queue_env(self.driver, self.card.mode)

    def listed_in(self) -> Iterable[object]:
        """The card and the bus."""
        return (self.card, self.card.bus)

    def set_online(self, online: bool) -> None:
        """Raises ENODEV, EINVAL. Like zcrypt_queue.c:online_store (v6.1)."""
        card = self.card
        if online and not (self.usable and card.usable):
            raise KernelError(ENODEV, f"queue {self.apqn} cannot work now")
        if online and not card.soft_online:
            raise KernelError(EINVAL, f"card {card.apid:02x} is offline")
        bit = 1 << self.apqi
        card.offline = card.offline & ~bit if online else card.offline | bit
        if not online:
            card.flush(bit)
        card.bus.kernel.devices.change(self, {"ONLINE": str(int(online))})

    def clear_requests(self) -> None:
        """Count the requests from zero."""
        self.card.queue_requests.pop(self.apqi, None)

    def reset(self) -> None:
        """Flush and reset; a queue that the host has not initiated gets no further.

        Like ap_queue.c:reset_store (v6.1).
        """
        self.card.flush(1 << self.apqi)
        self.card.restart(1 << self.apqi)

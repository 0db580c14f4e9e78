"""A queue device: a view of one bit of its card. Nothing is stored per queue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from errno import EINVAL, ENODEV
from typing import NamedTuple

from fakesys.core.errors import KernelError
from fakesys.subsystems.ap_bus.apqn import Apqn
from fakesys.subsystems.ap_bus.card import ApCard
from fakesys.subsystems.ap_bus.drivers import HOST_QUEUE_DRIVER
from fakesys.subsystems.ap_bus.queues.answers import NORMAL, NOT_AVAILABLE
from fakesys.subsystems.ap_bus.uevents import queue_env


class ApQueue(NamedTuple):
    """The queue of a domain on a card.

    Two views of one device are equal. `plug` counts the devices of this name so far, so that a
    view differs from that of a predecessor which was removed.
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
        driver = self.card.queue_driver(self.apqi)
        return driver.name if driver else None

    @property
    def is_host(self) -> bool:
        """Whether the host's driver has the queue."""
        return self.driver == HOST_QUEUE_DRIVER

    @property
    def config(self) -> bool:
        """Whether it is configured, as of the last scan."""
        return not self.card.deconfigured >> self.apqi & 1

    @property
    def chkstop(self) -> bool:
        """Whether it is checkstopped, as of the last scan."""
        return bool(self.card.checkstopped >> self.apqi & 1)

    @property
    def soft_online(self) -> bool:
        """Whether it was left online, whatever its configuration."""
        return not self.card.offline >> self.apqi & 1

    @property
    def usable(self) -> bool:
        """Whether the queue may be online."""
        return self.card.policy.usable(config=self.config, checkstop=self.chkstop)

    @property
    def online(self) -> bool:
        """Whether the queue takes requests of the host."""
        return self.usable and self.soft_online

    @property
    def request_count(self) -> int | None:
        """Requests of the host so far; None while the host has not initiated the queue."""
        if not self.initiated:
            return None
        return self.card.queue_requests.get(self.apqi, 0)

    @property
    def waiting(self) -> int:
        """Requests that wait because the queue is busy."""
        return self.card.waiting.get(self.apqi, 0)

    @property
    def resetting(self) -> bool:
        """Whether a reset is in progress; it stays so until the queue is polled."""
        states = self.card.states
        return bool((states.reset_start | states.reset_wait) >> self.apqi & 1)

    @property
    def enabling(self) -> bool:
        """Whether interrupts were turned on, and a poll has not seen that yet."""
        return bool(self.card.states.irq_wait >> self.apqi & 1)

    @property
    def interrupts(self) -> bool:
        """Whether interrupts are on, as far as this kernel knows."""
        if self.card.policy.asks_for_interrupts:
            normal = self.card.hardware.by_answer(self.card.apid, 1 << self.apqi).get(NORMAL, 0)
            known = self.card.hardware.irq(self.card.apid) & normal
        else:
            known = self.card.states.interrupts
        return bool(known >> self.apqi & 1)

    @property
    def operating(self) -> bool:
        """Whether it takes messages."""
        return bool(self.card.states.operating >> self.apqi & 1)

    @property
    def initiated(self) -> bool:
        """Whether it was initiated, and is in operation or in error."""
        return bool(self.card.states.initiated >> self.apqi & 1)

    def functions(self) -> int:
        """Return the function bits as TAPQ answers them; 0 where the queue is not available.

        Like ap_queue.c:ap_functions_show (v6.12), which fails above answer 05 only; there is no
        such answer here.
        """
        answers = self.card.hardware.by_answer(self.card.apid, 1 << self.apqi)
        return 0 if NOT_AVAILABLE in answers else self.card.spec.functions

    def uevent_env(self) -> Mapping[str, str]:
        """Return the fields of the queue's uevents. Like ap_bus.c:ap_uevent (v6.1)."""
        return queue_env(self.driver, self.card.mode)

    def listed_in(self) -> Iterable[object]:
        """Return the models whose directories list the queue: its card and the bus."""
        return (self.card, self.card.bus)

    def set_online(self, online: bool) -> None:
        """Set the queue online or offline for the host; offline, waiting requests fail.

        Raises ENODEV when queue or card cannot be online, EINVAL when the card is offline. Like
        zcrypt_queue.c:online_store (v6.1).
        """
        card = self.card
        if online and not (self.usable and card.usable):
            raise KernelError(ENODEV, f"queue {self.apqn} cannot work now")
        bit = 1 << self.apqi
        card_online = not card.left_offline & bit if card.left & bit else card.soft_online
        if online and not card_online:
            raise KernelError(EINVAL, f"card {card.apid:02x} is offline")
        card.offline = card.offline & ~bit if online else card.offline | bit
        card.bus.zcrypt_messages.queue_online(*self.apqn, online=online)
        if not online:
            card.flush(bit)
        card.devices.change(self, {"ONLINE": str(int(online))})

    def submit(self, count: int) -> None:
        """Send `count` requests of the host; they wait if the queue is busy.

        Precondition: the host's driver has the queue, and it is online.
        """
        card = self.card
        self.count_requests(count)
        card.bus.want_poll()
        card.bus.poll()
        if card.hardware.is_busy(self.apqn):
            card.waiting[self.apqi] = self.waiting + count

    def count_requests(self, count: int) -> None:
        """Count requests of this queue and of its card."""
        card = self.card
        card.queue_requests[self.apqi] = card.queue_requests.get(self.apqi, 0) + count
        card.requests += count

    def clear_requests(self) -> None:
        """Set the count of requests to zero."""
        self.card.queue_requests.pop(self.apqi, None)

    def reset(self) -> None:
        """Drop waiting requests and reset the queue; the reset runs only on an initiated queue.

        Like ap_queue.c:reset_store (v6.1).
        """
        self.card.flush(1 << self.apqi)
        self.card.restart(1 << self.apqi)
        self.card.bus.poll_later()
        self.card.bus.messages.queue_reset(*self.apqn)


def queue_of(card: ApCard, apqi: int) -> ApQueue | None:
    """Return the queue device of a domain; None when there is none."""
    if not card.queues >> apqi & 1:
        return None
    return ApQueue(card, apqi, card.plugs.count(apqi))

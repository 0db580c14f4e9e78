"""The module behind `cex4queue`: the host's own use of queues. It never refuses a mask change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from fakesys.core.text import ids
from fakesys.subsystems.ap_bus.apqn import Apqn
from fakesys.subsystems.ap_bus.card import ApCard
from fakesys.subsystems.ap_bus.card_info import CardInfo
from fakesys.subsystems.ap_bus.drivers import QueueDriver
from fakesys.subsystems.ap_bus.hardware import Lpar
from fakesys.subsystems.ap_bus.hardware_spec import CardMode
from fakesys.subsystems.ap_bus.messages.zcrypt import ZcryptMessages
from fakesys.subsystems.ap_bus.policy import BusPolicy
from fakesys.subsystems.ap_bus.queue import ApQueue
from fakesys.subsystems.ap_bus.queues.answers import NORMAL


class HostBus(Protocol):
    """What the module needs of the bus."""

    @property
    def policy(self) -> BusPolicy:
        """The choices of the kernel."""

    @property
    def host_driver(self) -> QueueDriver:
        """The driver that the module is behind."""

    @property
    def cards(self) -> dict[int, ApCard]:
        """The card devices."""

    def queue(self, apqn: Apqn) -> ApQueue | None:
        """Return a queue device; None when there is none."""

    def poll(self) -> None:
        """Run the state machines of all queues until they wait for something else than a poll."""

    def want_poll(self) -> None:
        """Start the timer that polls the queues of all cards."""


class Zcrypt:
    """The host's module: queues are online when probed; requests fail when a queue leaves.

    `info`: what cards said. The random number generator takes its first numbers from the first CCA
    queue that there is. `rescan`: scans the bus unless it is scanned; returns whether the masks of
    the machine changed.
    """

    def __init__(
        self, bus: Callable[[], HostBus], rescan: Callable[[], bool], messages: ZcryptMessages
    ) -> None:
        self._get_bus = bus
        self._rescan = rescan
        self.messages = messages
        self.info = CardInfo(self)

    @property
    def _bus(self) -> HostBus:
        return self._get_bus()

    def in_use(self, apmask: int, aqmask: int) -> bool:
        """Return False: the host's drivers have no such callback."""
        return False

    def queues_bound(self, apid: int, mask: int) -> None:
        """Set the queues online and initiate them.

        Like zcrypt_cex4.c:zcrypt_cex4_queue_probe (v6.1).
        """
        card = self._bus.cards[apid]
        card.offline &= ~mask
        self.messages.queues_registered(apid, mask)
        card.start(mask)
        # Like ap_queue.c:ap_queue_init_reply (v6.1).
        card.poke(mask)
        if card.mode is CardMode.CCA and not self._has_other_cca_queues(apid, mask):
            # Like zcrypt_api.c:zcrypt_rng_device_add (v6.1): one request fills a page.
            self._put(card, self._usable(card, iter([ids(mask)[0]])))

    def queues_leaving(self, apid: int, mask: int) -> None:
        """End pending requests with EAGAIN."""
        self.messages.queues_unregistered(apid, mask)
        self._bus.cards[apid].keep_queues(mask)
        self._bus.cards[apid].flush(mask)

    def facilities_changed(self) -> None:
        """Do nothing: the bus initiates the queues again."""

    def config_changed(self, new: Lpar, old: Lpar) -> None:
        """Do nothing: the scan makes and removes the devices."""

    def scan_complete(self, new: Lpar, old: Lpar) -> None:
        """Do nothing."""

    def send(self, card: ApCard, domain: int | None) -> ApQueue | None:
        """Send a request to a domain of a card, None for any; return the queue that took it.

        Like zcrypt_api.c:zcrypt_send_cprb (v6.1, v6.12).
        """
        queue = self._try(card, domain)
        if queue is None and self._bus.policy.rescans and self._rescan():
            queue = self._try(card, domain)
        if queue is None:
            self.messages.nobody_answers(card.apid, domain, ep11=card.mode is CardMode.EP11)
        return queue

    def _order(self, card: ApCard, domain: int | None) -> Iterator[int]:
        """Yield the domains of the host's queues that are asked for, first bound first."""
        for _, mask in self._bus.host_driver.order.rows_of(card.apid):
            yield from (apqi for apqi in ids(mask) if domain in (None, apqi))

    def _try(self, card: ApCard, domain: int | None) -> ApQueue | None:
        usable = self._usable(card, self._order(card, domain))
        if not usable:
            self.messages.no_match(card.apid, domain, ep11=card.mode is CardMode.EP11)
        return self._put(card, usable)

    def _usable(self, card: ApCard, domains: Iterator[int]) -> list[ApQueue]:
        if not card.soft_online or not card.config or card.chkstop or card.driver is None:
            return []
        known = (apqi for apqi in domains if not card.left >> apqi & 1)
        queues = filter(None, (self._bus.queue(Apqn(card.apid, apqi)) for apqi in known))
        return [queue for queue in queues if self._is_usable(queue)]

    def _put(self, card: ApCard, usable: list[ApQueue]) -> ApQueue | None:
        """Give a request to the queue that had the fewest; None when none of them takes it."""
        if not usable:
            return None
        picked = min(usable, key=lambda queue: card.queue_requests.get(queue.apqi, 0))
        return picked if self._message(picked) else None

    def _is_usable(self, queue: ApQueue) -> bool:
        if not queue.soft_online or not queue.config or queue.chkstop:
            return False
        return queue.operating or not self._bus.policy.asks_state

    def _message(self, queue: ApQueue) -> bool:
        """Send a message; return whether it is answered.

        Like ap_queue.c:ap_queue_message (v6.1).
        """
        card, bit = queue.card, 1 << queue.apqi
        taken = queue.operating
        if taken:
            queue.count_requests(1)
        self._bus.want_poll()
        self._bus.poll()
        if not taken:
            return False
        if NORMAL in card.hardware.by_answer(card.apid, bit):
            return True
        card.states.fail(bit)
        return False

    def _has_other_cca_queues(self, apid: int, mask: int) -> bool:
        bound = self._bus.host_driver.bound
        if bound[apid] & ~mask:
            return True
        cards = self._bus.cards.values()
        return any(
            card.mode is CardMode.CCA and bound[card.apid] for card in cards if card.apid != apid
        )

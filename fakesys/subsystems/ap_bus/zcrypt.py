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
from fakesys.subsystems.ap_bus.hardware_spec import CEX8, CardMode
from fakesys.subsystems.ap_bus.messages.zcrypt import (
    CCA_QUERY,
    EP11_QUERY,
    Request,
    ZcryptMessages,
)
from fakesys.subsystems.ap_bus.policy import CEX4, BusPolicy
from fakesys.subsystems.ap_bus.queue import ApQueue
from fakesys.subsystems.ap_bus.queues.answers import NORMAL

# How long a card needs for a request about keys, by its type: the numbers of the last column in
# zcrypt_cex4.c:zcrypt_cex4_card_probe (v6.1).
SPEED_RATINGS = dict(zip(range(CEX4, CEX8 + 1), (40, 10, 9, 8, 8), strict=True))


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
            self._ask_for_random_numbers(card, ids(mask)[0])

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

    def send(
        self, card: ApCard, domain: int | None, request: Request | None = None
    ) -> ApQueue | None:
        """Send a request to a domain of a card, None for any; return the queue that took it.

        Without `request` it is a question about the card. Like zcrypt_api.c:zcrypt_send_cprb
        (v6.1, v6.12).
        """
        asked = request or (EP11_QUERY if card.mode is CardMode.EP11 else CCA_QUERY)
        return self._send(asked, card.apid, domain, lambda: self._pick(card, domain))

    def send_to_any(self, request: Request) -> ApQueue | None:
        """Send a request to any CCA card of the host; return the queue that took it."""
        return self._send(request, None, None, self._pick_of_all)

    def queues(self, card: ApCard) -> Iterator[int]:
        """Yield the domains in which the host has queues of a card, first bound first."""
        if card.driver is None:
            return
        for _, mask in self._bus.host_driver.order.rows_of(card.apid):
            yield from ids(mask & ~card.left)

    def _send(
        self,
        request: Request,
        apid: int | None,
        domain: int | None,
        pick: Callable[[], ApQueue | None],
    ) -> ApQueue | None:
        def attempt() -> ApQueue | None:
            picked = pick()
            if picked is None:
                self.messages.no_match(request, apid, domain)
                return None
            return picked if self._message(picked) else None

        queue = attempt()
        if queue is None and self._bus.policy.rescans and self._rescan():
            queue = attempt()
        if queue is None:
            self.messages.nobody_answers(request, apid, domain)
        return queue

    def _pick(self, card: ApCard, domain: int | None) -> ApQueue | None:
        """Return the queue that had the fewest requests, of one domain or of all."""
        domains = (apqi for apqi in self.queues(card) if domain in (None, apqi))
        return min(self._usable(card, domains), key=_requests_of, default=None)

    def _pick_of_all(self) -> ApQueue | None:
        """Return the queue of a CCA card that is to take a request which any may take.

        The fastest card takes it; of equal ones that with fewer requests, if its queue had fewer,
        too. Like zcrypt_api.c:_zcrypt_send_cprb, zcrypt_card_compare, zcrypt_queue_compare (v6.1).
        """
        best: ApQueue | None = None
        for card in self._bus.cards.values():
            if card.mode is not CardMode.CCA or (best and not _is_better_card(card, best.card)):
                continue
            for queue in self._usable(card, self.queues(card)):
                if best is None or _is_better(queue, best):
                    best = queue
        return best

    def _usable(self, card: ApCard, domains: Iterator[int]) -> list[ApQueue]:
        if not card.soft_online or not card.config or card.chkstop:
            return []
        queues = filter(None, (self._bus.queue(Apqn(card.apid, apqi)) for apqi in domains))
        return [queue for queue in queues if self._is_usable(queue)]

    def _is_usable(self, queue: ApQueue) -> bool:
        if not queue.soft_online or not queue.config or queue.chkstop:
            return False
        return queue.operating or not self._bus.policy.asks_state

    def _ask_for_random_numbers(self, card: ApCard, apqi: int) -> None:
        if card.driver is not None and not card.left >> apqi & 1:
            for queue in self._usable(card, iter([apqi])):
                self._message(queue)

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


def _requests_of(queue: ApQueue) -> int:
    return queue.card.queue_requests.get(queue.apqi, 0)


def _is_better_card(card: ApCard, other: ApCard) -> bool:
    """Return whether a card is faster than another one, or as fast with fewer requests so far."""
    ours, others = SPEED_RATINGS[card.hwtype], SPEED_RATINGS[other.hwtype]
    return card.requests < other.requests if ours == others else ours < others


def _is_better(queue: ApQueue, other: ApQueue) -> bool:
    ours, others = SPEED_RATINGS[queue.card.hwtype], SPEED_RATINGS[other.card.hwtype]
    return _requests_of(queue) < _requests_of(other) if ours == others else ours < others

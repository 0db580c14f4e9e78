"""What cards say about themselves when they are asked, and what is remembered of it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from fakesys.subsystems.ap_bus.card import ApCard
from fakesys.subsystems.ap_bus.hardware_spec import CardSpec
from fakesys.subsystems.ap_bus.queue import ApQueue
from fakesys.subsystems.ap_bus.queues.master_keys import DomainKeys

# zcrypt_ccamisc.c:fetch_cca_info (v6.1) asks for STATICSA, then for STATICSB.
CCA_REQUESTS = 2
# Where any domain may answer (AUTOSEL_DOM).
ANY_DOMAIN = -1


class CcaInfo(NamedTuple):
    """The answer of a CCA card: its serial number, and the keys of the domain that answered."""

    serial: str
    keys: DomainKeys


class Ep11CardInfo(NamedTuple):
    """The answer of an EP11 card about itself."""

    api_ordinalnr: int
    fw_version: str
    serial: str
    op_modes: str


class Ep11DomainInfo(NamedTuple):
    """The answer of an EP11 card about one of its domains."""

    op_modes: str
    keys: DomainKeys


class Sender(Protocol):
    """What sends requests of the host."""

    def send(self, card: ApCard, domain: int | None) -> ApQueue | None:
        """Send a request to a domain of a card, None for any; return the queue that took it."""


class CardInfo:
    """Asks cards, and remembers: CCA by card and domain, EP11 by card.

    `cca_cache`: adapter and domain, or ANY_DOMAIN -> answer. `ep11_cache`: adapter -> answer. What
    is remembered outlives the card.
    """

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self.cca_cache: dict[tuple[int, int], CcaInfo] = {}
        self.ep11_cache: dict[int, Ep11CardInfo] = {}

    def cca(self, card: ApCard, domain: int | None, *, ask: bool) -> CcaInfo | None:
        """Return what a CCA card says; None when no queue answers.

        Without `ask` it is asked only if nothing is remembered. Like
        zcrypt_ccamisc.c:cca_get_info (v6.1).
        """
        key = (card.apid, ANY_DOMAIN if domain is None else domain)
        known = self.cca_cache.get(key)
        if known is not None and not ask:
            return known
        found = self._fetch_cca(card, domain)
        if found is not None:
            self.cca_cache[key] = found
        return found

    def ep11_card(self, card: ApCard, *, ask: bool) -> Ep11CardInfo | None:
        """Return what an EP11 card says; without an answer what it said before, but only once.

        Like zcrypt_ep11misc.c:ep11_get_card_info (v6.1), whose callers do not look at its result.
        """
        known = self.ep11_cache.get(card.apid)
        if known is not None and not ask:
            return known
        if self._sender.send(card, None) is None:
            return self.ep11_cache.pop(card.apid, None)
        found = self.ep11_cache[card.apid] = _ep11_card(card.spec)
        return found

    def ep11_domain(self, card: ApCard, domain: int) -> Ep11DomainInfo | None:
        """Return what an EP11 card says of a domain; None when its queue does not answer.

        Like zcrypt_ep11misc.c:ep11_get_domain_info (v6.1), which remembers nothing.
        """
        queue = self._sender.send(card, domain)
        if queue is None:
            return None
        return Ep11DomainInfo(card.spec.op_modes, card.hardware.keys.of(domain))

    def _fetch_cca(self, card: ApCard, domain: int | None) -> CcaInfo | None:
        if domain is not None and card.left >> domain & 1:
            # Like zcrypt_api.c:zcrypt_device_status_ext (v6.1): zcrypt finds no such queue.
            return None
        keys = None
        for _ in range(CCA_REQUESTS):
            queue = self._sender.send(card, domain)
            if queue is None:
                return None
            keys = keys or card.hardware.keys.of(queue.apqi)
        assert keys is not None
        return CcaInfo(f"{card.spec.serial:.8}", keys)


def _ep11_card(spec: CardSpec) -> Ep11CardInfo:
    return Ep11CardInfo(spec.api_ordinalnr, spec.fw_version, f"{spec.serial:.16}", spec.op_modes)

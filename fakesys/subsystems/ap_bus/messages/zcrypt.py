"""The messages of zcrypt: of its cards and queues, and of requests that nobody takes."""

from __future__ import annotations

from errno import ENODEV
from typing import NamedTuple

from fakesys.core.text import ids
from fakesys.subsystems.s390dbf.model import DebugFeatures, Level

# AUTOSEL_DOM and its like for cards: any may answer. AUTOSELECT: the same in a request.
ANY = 0xFFFF
AUTOSELECT = 0xFFFF_FFFF


class Request(NamedTuple):
    """A kind of request: the function that sends it.

    `ep11`: is it one for EP11 cards? `number`: what is written before the number of a failure.
    """

    function: str
    ep11: bool = False
    number: str = "rc="


CCA_QUERY = Request("cca_query_crypto_facility")
EP11_QUERY = Request("ep11_query_info", ep11=True)


class ZcryptMessages:
    """What zcrypt says; masks are domains of one adapter."""

    def __init__(self, features: DebugFeatures) -> None:
        self._features = features

    def card_registered(self, apid: int) -> None:
        """Say that zcrypt has a card (zcrypt_card.c:zcrypt_card_register)."""
        self._info(f"zcrypt_card_register card={apid:02x} register online=1")

    def card_unregistered(self, apid: int) -> None:
        """Say that zcrypt has a card no longer (zcrypt_card.c:zcrypt_card_unregister)."""
        self._info(f"zcrypt_card_unregister card={apid:02x} unregister")

    def card_online(self, apid: int, *, online: bool) -> None:
        """Say that a user sets a card online or offline (zcrypt_card.c:online_store)."""
        self._info(f"online_store card={apid:02x} online={online:d}")

    def queues_registered(self, apid: int, mask: int) -> None:
        """Say that zcrypt has queues (zcrypt_queue.c:zcrypt_queue_register)."""
        self._queues("zcrypt_queue_register", apid, mask, "register online=1")

    def queues_unregistered(self, apid: int, mask: int) -> None:
        """Say that zcrypt has queues no longer (zcrypt_queue.c:zcrypt_queue_unregister)."""
        self._queues("zcrypt_queue_unregister", apid, mask, "unregister")

    def queue_online(self, apid: int, apqi: int, *, online: bool) -> None:
        """Say that a user sets a queue online or offline (zcrypt_queue.c:online_store)."""
        self._info(f"online_store queue={apid:02x}.{apqi:04x} online={online:d}")

    def nobody_answers(self, request: Request, apid: int | None, domain: int | None) -> None:
        """Say that no queue takes a request to a card, or that the one that took it failed.

        Like zcrypt_ccamisc.c:cca_query_crypto_facility, zcrypt_ep11misc.c:ep11_query_info (v6.1).
        """
        card, wanted = (ANY if number is None else number for number in (apid, domain))
        if request.ep11:
            sender = f"zcrypt_send_ep11_cprb(card={card} dom={wanted})"
        else:
            sender = f"zcrypt_send_cprb (cardnr={card} domain={wanted})"
        self.failed(request, f"{sender} failed, {request.number}-{ENODEV}")

    def failed(self, request: Request, text: str) -> None:
        """Say that a request failed."""
        self._features.write("zcrypt", Level.ERR, f"{request.function} {text}")

    def no_match(self, request: Request, apid: int | None, domain: int | None) -> None:
        """Say that no queue fits a request (zcrypt_api.c:_zcrypt_send_cprb)."""
        sender = "_zcrypt_send_ep11_cprb" if request.ep11 else "_zcrypt_send_cprb"
        card = AUTOSELECT if apid is None else apid
        where = f"{card:02x}.{ANY if domain is None else domain:04x}"
        text = f"{sender} no match for address {where} => ENODEV"
        self._features.write("zcrypt", Level.DEBUG, text)

    def _info(self, text: str) -> None:
        self._features.write("zcrypt", Level.INFO, text)

    def _queues(self, function: str, apid: int, mask: int, text: str) -> None:
        if self._features.wants("zcrypt", Level.INFO):
            for apqi in ids(mask):
                self._info(f"{function} queue={apid:02x}.{apqi:04x} {text}")

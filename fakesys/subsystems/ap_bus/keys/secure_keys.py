"""Requests for new secure keys, and the choice of the queues that they are sent to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from errno import EIO, ENODEV

from msgspec import Struct

from fakesys.core.errors import KernelError
from fakesys.subsystems.ap_bus.bus import ApBus
from fakesys.subsystems.ap_bus.card import ApCard
from fakesys.subsystems.ap_bus.hardware_spec import CardMode
from fakesys.subsystems.ap_bus.messages.zcrypt import Request
from fakesys.subsystems.ap_bus.queues.master_keys import DomainKeys, KeyKind
from fakesys.subsystems.ap_bus.zcrypt import Zcrypt

CEX6, CEX7 = 12, 13
# The lowest API of EP11 that makes such keys (zcrypt_ep11misc.h:EP11_API_V4, v6.12).
EP11_API = 4
# zcrypt_ccamisc.c:cca_findcard2 has no room for more queues.
MOST_QUEUES = 256


class KeyRequest(Struct, frozen=True):
    """A kind of key: the request for it, and what the driver says when the card refuses.

    `mode`, `oldest_type`: of the cards that can make it.
    """

    request: Request
    refusal: str
    mode: CardMode
    oldest_type: int = 0


# The answers are those of a domain without the master key that is needed.
REQUESTS = {
    "ccadata": KeyRequest(
        Request("cca_genseckey", number="errno "),
        "secure key generate failure, card response 12/764",
        CardMode.CCA,
    ),
    "ccacipher": KeyRequest(
        Request("cca_gencipherkey"),
        "cipher key generate failure, card response 12/764",
        CardMode.CCA,
        CEX6,
    ),
    "ep11": KeyRequest(
        Request("_ep11_genaeskey", ep11=True),
        "return value 0x80010009 != 0",
        CardMode.EP11,
        CEX7,
    ),
}


class SecureKeys:
    """Asks cards of the host for keys; `family`: one of REQUESTS, `keys`: how many are wanted.

    All methods return how many keys were made, and raise ENODEV where no card can make one, EIO
    where the card refuses.
    """

    def __init__(self, bus: Callable[[], ApBus]) -> None:
        self._get_bus = bus

    @property
    def _zcrypt(self) -> Zcrypt:
        return self._get_bus().zcrypt

    def of_any(self, family: str, keys: int) -> int:
        """Let any CCA card make each key. Like zcrypt_ccamisc.c:cca_genseckey (v6.1)."""
        wanted = REQUESTS[family]
        for _ in range(keys):
            queue = self._zcrypt.send_to_any(wanted.request)
            if queue is None:
                raise KernelError(ENODEV, "no CCA card of the host takes a request")
            self._require_master_key(wanted, queue.card, queue.apqi)
        return keys

    def of_listed(self, family: str, keys: int) -> int:
        """Let the first queue that can make a key make all; of what follows no failure counts.

        Queues are asked what they are if that is not remembered. Like
        pkey_api.c:pkey_ccacipher_aes_attr_read, pkey_ep11_aes_attr_read (v6.1).
        """
        wanted = REQUESTS[family]
        card, domain = self._first(wanted, ask=False)
        made = 1
        for _ in range(keys - 1):
            try:
                self._make(wanted, card, domain)
                made += 1
            except KernelError:
                break
        return made

    def of_handler(self, family: str, keys: int) -> int:
        """Let the first queue that can make a key make one, for each key again.

        CCA queues are asked what they are. Where there is none all is tried once more, as drivers
        might have to be loaded. Like pkey_sysfs.c:sys_pkey_handler_gen_key, pkey_cca.c:cca_gen_key,
        pkey_ep11.c:ep11_gen_key (v6.12).
        """
        wanted = REQUESTS[family]
        for _ in range(keys):
            try:
                self._first(wanted, ask=True)
            except KernelError as refusal:
                if refusal.errno != ENODEV:
                    raise
                self._first(wanted, ask=True)
        return keys

    def _first(self, wanted: KeyRequest, *, ask: bool) -> tuple[ApCard, int]:
        """Return card and domain of the first queue that made a key."""
        refusal = KernelError(ENODEV, f"no card of the host can make a key of {wanted.mode}")
        for card, domain in list(self._able(wanted, ask=ask))[:MOST_QUEUES]:
            try:
                self._make(wanted, card, domain)
            except KernelError as error:
                refusal = error
            else:
                return card, domain
        raise refusal

    def _make(self, wanted: KeyRequest, card: ApCard, domain: int) -> None:
        if self._zcrypt.send(card, domain, wanted.request) is None:
            raise KernelError(ENODEV, f"queue {card.apid:02x}.{domain:04x} takes no request")
        self._require_master_key(wanted, card, domain)

    def _able(self, wanted: KeyRequest, *, ask: bool) -> Iterator[tuple[ApCard, int]]:
        """Yield cards and domains that can make a key, in the order of their numbers.

        Like zcrypt_ccamisc.c:cca_findcard2, zcrypt_ep11misc.c:ep11_findcard2 (v6.1).
        """
        zcrypt = self._zcrypt
        for card in self._get_bus().state.sorted_cards():
            if card.mode is not wanted.mode:
                continue
            for domain in sorted(zcrypt.queues(card)):
                if not card.offline >> domain & 1 and self._can(wanted, card, domain, ask=ask):
                    yield card, domain

    def _can(self, wanted: KeyRequest, card: ApCard, domain: int, *, ask: bool) -> bool:
        info, fits = self._zcrypt.info, card.hwtype >= wanted.oldest_type
        if wanted.mode is CardMode.CCA:
            # Asked before its type is looked at.
            found = info.cca(card, domain, ask=ask)
            return found is not None and _has_master_key(wanted, found.keys) and fits
        if not fits:
            return False
        known = info.ep11_card(card, ask=False)
        return known is not None and known.api_ordinalnr >= EP11_API

    def _require_master_key(self, wanted: KeyRequest, card: ApCard, domain: int) -> None:
        """Refuse with EIO in a domain without a master key that a new key is wrapped by."""
        if not _has_master_key(wanted, card.hardware.keys.of(domain)):
            self._zcrypt.messages.failed(wanted.request, wanted.refusal)
            raise KernelError(EIO, f"domain {domain:04x} has no master key")


def _has_master_key(wanted: KeyRequest, keys: DomainKeys) -> bool:
    kind = KeyKind.AES if wanted.mode is CardMode.CCA else KeyKind.WK
    return keys[kind].current is not None

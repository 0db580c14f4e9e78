"""The files whose text a card is asked for. Source: zcrypt_cex4.c (v6.1).

A read sends requests to queues of the host, or gives what the card said before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fakesys.subsystems.ap_bus.card import ApCard
from fakesys.subsystems.ap_bus.card_info import CardInfo, Ep11CardInfo
from fakesys.subsystems.ap_bus.hardware_spec import CardMode
from fakesys.subsystems.ap_bus.queue import ApQueue
from fakesys.subsystems.ap_bus.queues.master_keys import (
    SIZES,
    DomainKeys,
    KeyKind,
    MasterKey,
    NewState,
)
from fakesys.tree.attr import Attr, Row

Info = Callable[[], CardInfo]
_CCA_KEYS = (KeyKind.AES, KeyKind.APKA, KeyKind.ASYM)
_REGISTERS = ("NEW", "CUR", "OLD")


def _pattern(kind: KeyKind, pattern: int | None) -> str:
    return f"0x{pattern or 0:0{SIZES[kind] * 2}x}"


def _cca_key(kind: KeyKind, key: MasterKey) -> Iterator[str]:
    yield f"{kind} NEW: {key.state} {_pattern(kind, key.new)}\n"
    for name, pattern in (("CUR", key.current), ("OLD", key.old)):
        state = "invalid" if pattern is None else "valid"
        yield f"{kind} {name}: {state} {_pattern(kind, pattern)}\n"


def _cca_keys(keys: DomainKeys | None) -> str:
    if keys is None:
        return "".join(f"{kind} {name}: - -\n" for kind in _CCA_KEYS for name in _REGISTERS)
    return "".join(line for kind in _CCA_KEYS for line in _cca_key(kind, keys[kind]))


def _ep11_keys(keys: DomainKeys | None) -> str:
    if keys is None:
        return "WK CUR: - -\nWK NEW: - -\n"
    key = keys[KeyKind.WK]
    current = "invalid -" if key.current is None else f"valid {_pattern(KeyKind.WK, key.current)}"
    new = "-" if key.state is NewState.EMPTY else _pattern(KeyKind.WK, key.new)
    return f"WK CUR: {current}\nWK NEW: {key.state} {new}\n"


def card_rows(info: Info) -> tuple[Row, ...]:
    """Return the files of a card that it is asked for."""

    def cca_serial(card: ApCard) -> str:
        found = info().cca(card, None, ask=card.soft_online)
        return f"{found.serial if found else ''}\n"

    return (
        Attr(
            name="serialnr",
            mode=0o444,
            doc="Serial number of a CCA card, 8 characters; empty where no queue answers.",
            show=cca_serial,
            present=_card_of_mode(CardMode.CCA),
        ),
        *(_ep11_row(info, name, doc, value) for name, doc, value in _EP11),
    )


# Files of an EP11 card: name, what it is, and the text of an answer.
_EP11: tuple[tuple[str, str, Callable[[Ep11CardInfo], str]], ...] = (
    ("API_ordinalnr", "API ordinal number", lambda found: str(found.api_ordinalnr)),
    ("FW_version", "Firmware version", lambda found: found.fw_version),
    ("serialnr", "Serial number, 16 characters,", lambda found: found.serial),
    ("op_modes", "Operation modes", lambda found: found.op_modes),
)


def _ep11_row(info: Info, name: str, doc: str, value: Callable[[Ep11CardInfo], str]) -> Row:
    def show(card: ApCard) -> str:
        found = info().ep11_card(card, ask=card.soft_online)
        return f"{value(found) if found else ''}\n"

    return Attr(
        name=name,
        mode=0o444,
        doc=f"{doc} of an EP11 card; the old text once, then empty, where no queue answers.",
        show=show,
        present=_card_of_mode(CardMode.EP11),
    )


def _card_of_mode(mode: CardMode) -> Callable[[ApCard], bool]:
    return lambda card: card.driver is not None and card.mode is mode


def queue_rows(info: Info) -> tuple[Row, ...]:
    """Return the files of a queue of the host that its card is asked for."""

    def cca_keys(queue: ApQueue) -> str:
        found = info().cca(queue.card, queue.apqi, ask=queue.soft_online)
        return _cca_keys(found.keys if found else None)

    def ep11_keys(queue: ApQueue) -> str:
        found = info().ep11_domain(queue.card, queue.apqi) if queue.soft_online else None
        return _ep11_keys(found.keys if found else None)

    def op_modes(queue: ApQueue) -> str:
        found = info().ep11_domain(queue.card, queue.apqi) if queue.soft_online else None
        return f"{found.op_modes if found else ''}\n"

    return (
        Attr(
            name="mkvps",
            mode=0o444,
            doc="Master key verification patterns of a CCA queue, `- -` where it does not answer.",
            show=cca_keys,
            present=_queue_of_mode(CardMode.CCA),
        ),
        Attr(
            name="mkvps",
            mode=0o444,
            doc="Wrapping key verification patterns of an EP11 queue, `- -` without an answer.",
            show=ep11_keys,
            present=_queue_of_mode(CardMode.EP11),
        ),
        Attr(
            name="op_modes",
            mode=0o444,
            doc="Operation modes of an EP11 queue; empty where it does not answer.",
            show=op_modes,
            present=_queue_of_mode(CardMode.EP11),
        ),
    )


def _queue_of_mode(mode: CardMode) -> Callable[[ApQueue], bool]:
    return lambda queue: queue.card.mode is mode and queue.is_host

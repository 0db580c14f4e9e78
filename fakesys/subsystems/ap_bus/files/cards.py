"""The files of a card: /sys/devices/ap/cardXX. Source: ap_card.c, zcrypt_card.c (v6.1)."""

from __future__ import annotations

from errno import EIO, ENODEV, EOPNOTSUPP

from fakesys.core.devices import Devices
from fakesys.core.text import ids
from fakesys.subsystems.ap_bus.apqn import Apqn, apqn_of
from fakesys.subsystems.ap_bus.card import ApCard
from fakesys.subsystems.ap_bus.files.card_info import Info, card_rows
from fakesys.subsystems.ap_bus.files.modules import NOT_A_SWITCH, anything, switch
from fakesys.subsystems.ap_bus.hardware_spec import CardMode, CardSpec
from fakesys.subsystems.ap_bus.policy import ApFeature
from fakesys.subsystems.ap_bus.queue import ApQueue, queue_of
from fakesys.subsystems.driver_core.files import device_rows
from fakesys.tree.attr import Attr, Children, Layout

_LETTERS = {CardMode.ACCEL: "A", CardMode.CCA: "C", CardMode.EP11: "P"}
# hwtype of CEX4 is 10.
_GENERATION = 6


def type_name(spec: CardSpec) -> str:
    """Return the type name, such as CEX5C: generation, then A(ccelerator), C(CA) or P (EP11)."""
    return f"CEX{spec.hwtype - _GENERATION}{_LETTERS[spec.mode]}"


def _bound(card: ApCard) -> bool:
    return card.driver is not None


def _waiting(card: ApCard) -> str:
    return f"{sum(card.waiting.values())}\n"


CARD: tuple[Attr[ApCard], ...] = (
    Attr(
        name="hwtype",
        mode=0o444,
        doc="Hardware type that Linux works with: CEX4 10 to CEX8 14.",
        show=lambda card: f"{card.hwtype}\n",
    ),
    Attr(
        name="raw_hwtype",
        mode=0o444,
        doc="Hardware type that the card reports.",
        show=lambda card: f"{card.spec.type}\n",
    ),
    Attr(
        name="depth",
        mode=0o444,
        doc="Queue depth as reported: entries less one.",
        show=lambda card: f"{card.spec.depth}\n",
        unless=ApFeature.DEPTH_IS_SIZE,
    ),
    Attr(
        name="depth",
        mode=0o444,
        doc="Queue depth: entries.",
        show=lambda card: f"{card.spec.depth + 1}\n",
        needs=ApFeature.DEPTH_IS_SIZE,
    ),
    Attr(
        name="ap_functions",
        mode=0o444,
        doc="Function bits: 0x10000000 CCA, 0x08000000 accelerator, 0x04000000 EP11.",
        show=lambda card: f"0x{card.spec.functions:08X}\n",
    ),
    Attr(
        name="request_count",
        mode=0o644,
        doc="Requests of the host; any write sets card and queues to 0.",
        show=lambda card: f"{card.requests}\n",
        store=anything(ApCard.clear_requests),
    ),
    Attr(
        name="requestq_count",
        mode=0o444,
        doc="Requests of all queues that wait to be sent.",
        show=_waiting,
    ),
    Attr(
        name="pendingq_count",
        mode=0o444,
        doc="Requests of all queues that were sent and not answered; answers come at once.",
        show=lambda _card: "0\n",
    ),
    Attr(
        name="modalias",
        mode=0o444,
        doc="Alias by which a module for the card is found.",
        show=lambda card: f"ap:t{card.hwtype:02X}\n",
    ),
    Attr(
        name="config",
        mode=0o644,
        doc="1: configured; write 0 or 1 to switch the card.",
        show=lambda card: f"{card.config:d}\n",
        store=switch(ApCard.configure),
        errors={
            **NOT_A_SWITCH,
            EOPNOTSUPP: "the machine has no AP reconfiguration",
            EIO: "the machine refuses",
        },
    ),
    Attr(
        name="chkstop",
        mode=0o444,
        doc="1: checkstopped.",
        show=lambda card: f"{card.chkstop:d}\n",
    ),
    Attr(
        name="max_msg_size",
        mode=0o444,
        doc="Longest message in bytes.",
        show=lambda card: f"{card.max_msg_size}\n",
    ),
)

ZCRYPT_CARD: tuple[Attr[ApCard], ...] = (
    Attr(
        name="type",
        mode=0o444,
        doc="Type name, such as CEX5C.",
        show=lambda card: f"{type_name(card.spec)}\n",
        present=_bound,
    ),
    Attr(
        name="online",
        mode=0o644,
        doc="1: takes requests; write 0 or 1 for the card and all its host queues.",
        show=lambda card: f"{card.online:d}\n",
        store=switch(ApCard.set_online),
        errors={**NOT_A_SWITCH, ENODEV: "the card is configured off (6.12: or checkstopped)"},
        present=_bound,
    ),
    Attr(
        name="load",
        mode=0o444,
        doc="Load that zcrypt sees on the card.",
        show=_waiting,
        present=_bound,
    ),
)


def _queue_names(card: ApCard) -> list[str]:
    return [str(Apqn(card.apid, apqi)) for apqi in ids(card.queues)]


def _queue(card: ApCard, name: str) -> ApQueue | None:
    apqn = apqn_of(name)
    if apqn is None or apqn.apid != card.apid:
        return None
    return queue_of(card, apqn.apqi)


def card_layout(devices: Devices, info: Info, queue: Layout[ApQueue]) -> Layout[ApCard]:
    """Return a card's directory, which has one directory per queue. `info`: what asks cards."""
    queues = Children(names=_queue_names, get=_queue, layout=queue, label="XX.YYYY")
    rows = (*CARD, *ZCRYPT_CARD, *card_rows(info), *device_rows(devices, power=False), queues)
    return Layout(rows)

"""Control files of the hardware: `ap/lpar/`, `ap/cards/`, `ap/queues/`, and two faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from errno import EBUSY, EINVAL, ENODEV, ERANGE
from typing import Any, NamedTuple

from fakesys.core.errors import ERRNO_NAMES, KernelError
from fakesys.core.text import format_mask, ids, kstrtoull, parse_mask, zero_or_one
from fakesys.subsystems.ap_bus.apqn import Apqn, apid_of_digits, apqn_of
from fakesys.subsystems.ap_bus.card import ApCard
from fakesys.subsystems.ap_bus.files.cards import type_name
from fakesys.subsystems.ap_bus.files.modules import NOT_A_SWITCH, switch
from fakesys.subsystems.ap_bus.hardware import Hardware, InstalledCard
from fakesys.subsystems.ap_bus.hardware_spec import CardSpec
from fakesys.subsystems.ap_bus.queues.answers import ANSWERS
from fakesys.subsystems.ap_control.model import ApSystem
from fakesys.tree.attr import Attr, Children, Dir, Layout, Row

NUMBER_ERRORS = {EINVAL: "not a number, or out of range", ERANGE: "more than 64 bits"}
FLAG_ERRORS = {EINVAL: "neither 0 nor 1"}


class CardSwitches(NamedTuple):
    """An installed card and the machine that it is in."""

    system: ApSystem
    apid: int
    card: InstalledCard

    @property
    def device(self) -> ApCard:
        """The card's device. Raises ENODEV unless it exists and has a driver."""
        device = self.system.bus.state.cards.get(self.apid)
        if device is None or device.driver is None:
            raise KernelError(ENODEV, f"card {self.apid:02x} has no device with a driver")
        return device


class QueueSwitches(NamedTuple):
    """A queue that an installed card can have, or that has answered a reset."""

    system: ApSystem
    apqn: Apqn


def _lpar_row(field: str, what: str) -> Attr[ApSystem]:
    def show(system: ApSystem) -> str:
        return f"{format_mask(system.hardware.lpar._asdict()[field])}\n"

    def store(system: ApSystem, text: str) -> None:
        hardware = system.hardware
        mask = parse_mask(text, hardware.lpar._asdict()[field])
        hardware.set_lpar(hardware.lpar._replace(**{field: mask}))

    return Attr(
        name=field,
        mode=0o644,
        doc=f"{what} that the machine gives to this Linux; absolute or relative.",
        show=show,
        store=store,
        errors={EINVAL: "not a mask", ENODEV: "above the maximum ID"},
    )


def _flag_row(
    name: str, doc: str, get: Callable[[Hardware], bool], put: Callable[[Hardware, bool], None]
) -> Attr[ApSystem]:
    return Attr(
        name=name,
        mode=0o644,
        doc=doc,
        show=lambda system: f"{get(system.hardware):d}\n",
        store=lambda system, text: put(system.hardware, zero_or_one(text)),
        errors=FLAG_ERRORS,
    )


LPAR: Layout[ApSystem] = Layout(
    (
        _lpar_row("adapters", "Adapters"),
        _lpar_row("domains", "Domains"),
        _lpar_row("control_domains", "Control domains"),
        Attr(
            name="max_adapter_id",
            mode=0o644,
            doc="Highest adapter ID of the machine.",
            show=lambda system: f"{system.hardware.max_adapter_id}\n",
            store=lambda system, text: system.set_max_adapter_id(kstrtoull(text)),
            errors={**NUMBER_ERRORS, EBUSY: "a card or an assigned adapter is beyond"},
        ),
        Attr(
            name="max_domain_id",
            mode=0o644,
            doc="Highest domain ID of the machine.",
            show=lambda system: f"{system.hardware.max_domain_id}\n",
            store=lambda system, text: system.set_max_domain_id(kstrtoull(text)),
            errors={**NUMBER_ERRORS, EBUSY: "an assigned domain is beyond"},
        ),
        _flag_row(
            "interrupts",
            "1: AP interrupts are installed.",
            lambda hardware: hardware.interrupts,
            Hardware.set_interrupts,
        ),
        _flag_row(
            "qci",
            "1: PQAP(QCI) is installed.",
            lambda hardware: hardware.qci,
            Hardware.set_qci,
        ),
        _flag_row(
            "reconfig",
            "1: cards can be configured by SCLP.",
            lambda hardware: hardware.reconfig,
            Hardware.set_reconfig,
        ),
    )
)


def _as_installed(name: str, doc: str, show: Callable[[CardSpec], object]) -> Attr[CardSwitches]:
    return Attr(name=name, mode=0o444, doc=doc, show=lambda card: f"{show(card.card.spec)}\n")


CARD: Layout[CardSwitches] = Layout(
    (
        _as_installed("type", "Type name as installed.", type_name),
        _as_installed("raw_hwtype", "Hardware type as installed.", lambda spec: spec.type),
        _as_installed("mode", "What the card is: accel, cca or ep11.", lambda spec: spec.mode),
        _as_installed("serialnr", "Serial number as installed.", lambda spec: spec.serial),
        _as_installed("fw_version", "Firmware as installed.", lambda spec: spec.fw_version),
        _as_installed("depth", "Queue depth less one, as installed.", lambda spec: spec.depth),
        Attr(
            name="config",
            mode=0o644,
            doc="The support element's switch: 1 configured on, 0 off.",
            show=lambda card: f"{card.card.config:d}\n",
            store=lambda card, text: card.system.hardware.switch_config(
                card.apid, zero_or_one(text)
            ),
            errors=FLAG_ERRORS,
        ),
        Attr(
            name="checkstop",
            mode=0o644,
            doc="1: the card is checkstopped.",
            show=lambda card: f"{card.card.checkstop:d}\n",
            store=lambda card, text: card.system.hardware.switch_checkstop(
                card.apid, zero_or_one(text)
            ),
            errors=FLAG_ERRORS,
        ),
        Attr(
            name="online",
            mode=0o644,
            doc="The attribute `online` of the card's device.",
            show=lambda card: f"{card.device.online:d}\n",
            store=switch(lambda card, online: card.device.set_online(online)),
            errors={**NOT_A_SWITCH, ENODEV: "no device, no driver, or it cannot work now"},
        ),
    )
)


def _submit(queue: QueueSwitches, text: str) -> None:
    queue.system.bus.submit(queue.apqn, kstrtoull(text))


QUEUE: Layout[QueueSwitches] = Layout(
    (
        Attr(
            name="rc",
            mode=0o644,
            doc="Answer of the queue: 0 normal, 1 not available, 2, 3, 4, 5.",
            show=lambda queue: f"0x{queue.system.hardware.rc(queue.apqn):02x}\n",
            store=lambda queue, text: queue.system.hardware.set_rc(queue.apqn, kstrtoull(text)),
            errors={**NUMBER_ERRORS, ENODEV: "the card was taken out"},
        ),
        Attr(
            name="resets",
            mode=0o444,
            doc="Resets (ZAPQ) that the queue has answered since boot.",
            show=lambda queue: f"{queue.system.hardware.resets(queue.apqn)}\n",
        ),
        Attr(
            name="rapq",
            mode=0o444,
            doc="Resets by the host's state machine (RAPQ) that the queue has answered since boot.",
            show=lambda queue: f"{queue.system.hardware.rapq(queue.apqn)}\n",
        ),
        Attr(
            name="attempts",
            mode=0o444,
            doc="Resets (ZAPQ) that were tried since boot, answered normally or not.",
            show=lambda queue: f"{queue.system.hardware.reset_attempts(queue.apqn)}\n",
        ),
        Attr(
            name="submit",
            mode=0o200,
            doc="Write a number: that many requests of the host.",
            store=_submit,
            errors={
                EINVAL: "not a number",
                ERANGE: "more than 64 bits",
                ENODEV: "not the host's, or offline",
            },
        ),
    )
)


def _card_names(system: ApSystem) -> list[str]:
    return [f"{apid:02x}" for apid in sorted(system.hardware.cards)]


def _card(system: ApSystem, name: str) -> CardSwitches | None:
    apid = apid_of_digits(name)
    card = system.hardware.cards.get(apid) if apid is not None else None
    return CardSwitches(system, card.spec.id, card) if card else None


def _queue_names(system: ApSystem) -> Iterator[str]:
    hardware = system.hardware
    for apid in sorted({*hardware.cards, *hardware.counters}):
        for apqi in ids(hardware.known_queues(apid)):
            yield str(Apqn(apid, apqi))


def _queue(system: ApSystem, name: str) -> QueueSwitches | None:
    apqn = apqn_of(name)
    if apqn is None or not system.hardware.known_queues(apqn.apid) >> apqn.apqi & 1:
        return None
    return QueueSwitches(system, apqn)


HARDWARE_ROWS: tuple[Row, ...] = (
    Dir(name="lpar", layout=LPAR),
    Dir(
        name="cards",
        layout=Layout((Children(names=_card_names, get=_card, layout=CARD, label="XX"),)),
    ),
    Dir(
        name="queues",
        layout=Layout((Children(names=_queue_names, get=_queue, layout=QUEUE, label="XX.YYYY"),)),
    ),
)


def _reset_line(line: str) -> tuple[Apqn, int]:
    words = line.split()
    apqn = apqn_of(words[0])
    if len(words) != 2 or apqn is None:
        raise KernelError(EINVAL, f"{line!r} is not XX.YYYY RC")
    rc = kstrtoull(words[1])
    if rc not in ANSWERS:
        raise KernelError(EINVAL, f"{rc:#04x} is no answer of a queue")
    return apqn, rc


def _configure_line(line: str) -> tuple[int, int]:
    words = line.split()
    apid = apid_of_digits(words[0])
    numbers = {name: number for number, name in ERRNO_NAMES.items()}
    if len(words) != 2 or apid is None or words[1] not in numbers:
        raise KernelError(EINVAL, f"{line!r} is not XX ERRNO")
    return apid, numbers[words[1]]


def fault_rows(system: Callable[[], ApSystem]) -> tuple[Attr[Any], ...]:
    """Return the AP part's files below `fakesys/faults/`; each write replaces all lines."""

    def show_resets(_model: object) -> str:
        answers = system().hardware.reset_answers
        return "".join(f"{apqn} 0x{answers[apqn]:02x}\n" for apqn in sorted(answers))

    def store_resets(_model: object, text: str) -> None:
        answers = dict(_reset_line(line) for line in text.splitlines() if line.strip())
        system().hardware.reset_answers = answers

    def show_configure(_model: object) -> str:
        errors = system().hardware.configure_errors
        return "".join(f"{apid:02x} {ERRNO_NAMES[errors[apid]]}\n" for apid in sorted(errors))

    def store_configure(_model: object, text: str) -> None:
        errors = dict(_configure_line(line) for line in text.splitlines() if line.strip())
        system().hardware.configure_errors = errors

    return (
        Attr(
            name="queue_reset",
            mode=0o644,
            doc="Lines `XX.YYYY RC`: what a queue answers to a reset. An empty line clears.",
            show=show_resets,
            store=store_resets,
            errors={EINVAL: "not such a line", ERANGE: "more than 64 bits"},
        ),
        Attr(
            name="sclp_configure",
            mode=0o644,
            doc="Lines `XX ERRNO`: `config` of this card fails so. An empty line clears.",
            show=show_configure,
            store=store_configure,
            errors={EINVAL: "not such a line"},
        ),
    )

"""The installed hardware in a snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta

from fakesys.core.saved import (
    U8,
    Line,
    Mask,
    Saved,
    Word,
    check,
    check_unique,
    mask_of,
    mask_text,
)
from fakesys.core.text import ALL_IDS
from fakesys.subsystems.ap_bus.apqn import Apqn, BitCounter
from fakesys.subsystems.ap_bus.hardware import Hardware, InstalledCard, Lpar
from fakesys.subsystems.ap_bus.hardware_spec import CardMode, CardSpec
from fakesys.subsystems.ap_bus.queues.answers import ANSWERS, NORMAL
from fakesys.subsystems.ap_bus.saved.info import SavedDomainKey, restore_keys, save_keys

# The planes of counters of up to 128 bits.
Planes = Annotated[tuple[Mask, ...], Meta(max_length=128)]
Counters = Annotated[tuple[tuple[U8, Planes], ...], Meta(max_length=256)]
Errno = Annotated[int, Meta(ge=1, lt=512)]


class SavedCardSpec(Saved, frozen=True):
    """A card as installed; the fields are those of `CardSpec`."""

    id: U8
    type: Annotated[int, Meta(ge=1, le=255)]
    mode: CardMode
    serialnr: Line
    fw_version: Line
    api_ordinalnr: U8
    op_modes: Line
    depth: U8
    ml: U8
    domains: Mask | None
    extra_functions: Annotated[int, Meta(ge=0, lt=1 << 32)]


class SavedInstalledCard(Saved, frozen=True):
    """An installed card. `rcs`: domain and answer of each queue that does not answer normally."""

    spec: SavedCardSpec
    config: bool
    checkstop: bool
    rcs: Annotated[tuple[tuple[U8, U8], ...], Meta(max_length=256)]
    irq: Mask


class SavedHardware(Saved, frozen=True):
    """The hardware. `lpar`: adapters, domains, control domains.

    `reset_answers`: adapter, domain, answer. `configure_errors`: adapter, errno.
    """

    cards: tuple[SavedInstalledCard, ...]
    lpar: tuple[Mask, Mask, Mask]
    max_adapter_id: U8
    max_domain_id: U8
    interrupts: bool
    qci: bool
    reconfig: bool
    qci_words: Annotated[tuple[Word, ...], Meta(max_length=16)]
    reset_answers: tuple[tuple[U8, U8, U8], ...]
    configure_errors: tuple[tuple[U8, Errno], ...]
    keys: tuple[SavedDomainKey, ...]
    resets: Counters
    rapq: Counters
    attempts: Counters


def save_spec(spec: CardSpec) -> SavedCardSpec:
    """Return what a snapshot holds of a card's description."""
    return SavedCardSpec(
        id=spec.id,
        type=spec.type,
        mode=spec.mode,
        serialnr=spec.serialnr,
        fw_version=spec.fw_version,
        api_ordinalnr=spec.api_ordinalnr,
        op_modes=spec.op_modes,
        depth=spec.depth,
        ml=spec.ml,
        domains=None if spec.domains is None else mask_text(spec.domains),
        extra_functions=spec.extra_functions,
    )


def restored_spec(saved: SavedCardSpec) -> CardSpec:
    """Return the description of a card of a snapshot. Raises BadSnapshotError."""
    for text in (saved.serialnr, saved.fw_version, saved.op_modes):
        check(text.isprintable(), f"card {saved.id:02x} has a text with control characters")
    return CardSpec(
        id=saved.id,
        type=saved.type,
        mode=saved.mode,
        serialnr=saved.serialnr,
        fw_version=saved.fw_version,
        api_ordinalnr=saved.api_ordinalnr,
        op_modes=saved.op_modes,
        depth=saved.depth,
        ml=saved.ml,
        domains=None if saved.domains is None else mask_of(saved.domains),
        extra_functions=saved.extra_functions,
    )


def save_counter(counter: BitCounter) -> Planes:
    """Return the planes of 256 counters."""
    return tuple(mask_text(plane) for plane in counter.planes)


def save_hardware(hardware: Hardware) -> SavedHardware:
    """Return what a snapshot holds of the hardware."""
    adapters, domains, control_domains = map(mask_text, hardware.lpar)
    return SavedHardware(
        cards=tuple(_save_card(card) for card in hardware.cards.values()),
        lpar=(adapters, domains, control_domains),
        max_adapter_id=hardware.max_adapter_id,
        max_domain_id=hardware.max_domain_id,
        interrupts=hardware.interrupts,
        qci=hardware.qci,
        reconfig=hardware.reconfig,
        qci_words=hardware.qci_words,
        reset_answers=tuple((*apqn, rc) for apqn, rc in hardware.reset_answers.items()),
        configure_errors=tuple(hardware.configure_errors.items()),
        keys=save_keys(hardware.keys),
        resets=_save_counters(hardware.counters),
        rapq=_save_counters(hardware.rapq_counters),
        attempts=_save_counters(hardware.attempts),
    )


def _save_counters(counters: Mapping[int, BitCounter]) -> Counters:
    return tuple((apid, save_counter(count)) for apid, count in counters.items())


def _save_card(card: InstalledCard) -> SavedInstalledCard:
    return SavedInstalledCard(
        spec=save_spec(card.spec),
        config=card.config,
        checkstop=card.checkstop,
        rcs=tuple(card.rcs.items()),
        irq=mask_text(card.irq),
    )


def restore_hardware(saved: SavedHardware, hardware: Hardware) -> None:
    """Fill hardware without cards. Raises BadSnapshotError."""
    lpar = Lpar(*map(mask_of, saved.lpar))
    cards = [_restored_card(card, saved.max_adapter_id) for card in saved.cards]
    check_unique([card.spec.id for card in cards], "an installed card")
    answers = {Apqn(apid, apqi): rc for apid, apqi, rc in saved.reset_answers}
    check(len(answers) == len(saved.reset_answers), "an answer to a reset occurs twice")
    check(set(answers.values()) <= set(ANSWERS), "no such answer of a queue")
    check_unique([apid for apid, _ in saved.configure_errors], "an error of SCLP")
    hardware.cards = {card.spec.id: card for card in cards}
    hardware.lpar = lpar
    hardware.max_adapter_id, hardware.max_domain_id = saved.max_adapter_id, saved.max_domain_id
    hardware.interrupts, hardware.qci = saved.interrupts, saved.qci
    hardware.reconfig, hardware.qci_words = saved.reconfig, saved.qci_words
    restore_keys(saved.keys, hardware.keys)
    hardware.counters = _restored_counters(saved.resets)
    hardware.rapq_counters = _restored_counters(saved.rapq)
    hardware.attempts = _restored_counters(saved.attempts)
    hardware.reset_answers, hardware.configure_errors = answers, dict(saved.configure_errors)


def _restored_counters(saved: Counters) -> dict[int, BitCounter]:
    check_unique([apid for apid, _ in saved], "a counter of resets")
    return {apid: restored_counter(planes) for apid, planes in saved}


def _restored_card(saved: SavedInstalledCard, max_adapter_id: int) -> InstalledCard:
    spec = restored_spec(saved.spec)
    check(spec.id <= max_adapter_id, f"card {spec.id:02x} is above the highest adapter ID")
    check_unique([apqi for apqi, _ in saved.rcs], f"an answer of card {spec.id:02x}")
    answers = set(ANSWERS) - {NORMAL}
    check({rc for _, rc in saved.rcs} <= answers, f"no such answer of card {spec.id:02x}")
    return InstalledCard(
        spec=spec,
        config=saved.config,
        checkstop=saved.checkstop,
        rcs=dict(saved.rcs),
        irq=mask_of(saved.irq) & ALL_IDS,
    )


def restored_counter(planes: Planes) -> BitCounter:
    """Return the counters with these planes."""
    return BitCounter(map(mask_of, planes))

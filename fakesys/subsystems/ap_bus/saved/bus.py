"""What the bus knows, in a snapshot: masks, settings, cards with their queues, drivers."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fakesys.core.clock import SavedTimer
from fakesys.core.saved import (
    U8,
    U63,
    Mask,
    Natural,
    Saved,
    check,
    check_counter,
    check_unique,
    mask_of,
    mask_text,
    refuse,
)
from fakesys.subsystems.ap_bus.bus import MAX_POLL_TIMEOUT_NS, ApBus
from fakesys.subsystems.ap_bus.card import ApCard
from fakesys.subsystems.ap_bus.drivers import HOST_QUEUE_DRIVER, QueueDriver
from fakesys.subsystems.ap_bus.hardware import Lpar
from fakesys.subsystems.ap_bus.queues.order import QueueOrder
from fakesys.subsystems.ap_bus.queues.states import QueueStates
from fakesys.subsystems.ap_bus.saved.hardware import (
    Planes,
    SavedCardSpec,
    restored_counter,
    restored_spec,
    save_counter,
    save_spec,
)
from fakesys.subsystems.ap_bus.saved.info import SavedCardInfo, restore_info, save_info
from fakesys.subsystems.ap_bus.state import BusState

# A count for each of some domains.
Counts = Annotated[tuple[tuple[U8, Natural], ...], Meta(max_length=256)]


class SavedStates(Saved, frozen=True):
    """The state machines of a card's queues."""

    operating: Mask
    error: Mask
    reset_start: Mask
    reset_wait: Mask
    irq_wait: Mask
    interrupts: Mask


class SavedCard(Saved, frozen=True):
    """A card device and its queues, as in `ApCard`."""

    spec: SavedCardSpec
    config: bool
    chkstop: bool
    soft_online: bool
    requests: Natural
    queues: Mask
    deconfigured: Mask
    checkstopped: Mask
    offline: Mask
    left: Mask
    left_offline: Mask
    states: SavedStates
    plugs: Planes
    queue_requests: Counts
    waiting: Counts


# Adapter and domains of queues, in an order.
Order = tuple[tuple[U8, Mask], ...]


class SavedBus(Saved, frozen=True):
    """The bus. `drivers`: name of each queue driver, and its queues in the order of binding.

    `card_driver`: adapters of its cards in that order. `order`: all queues, in the order of their
    registration.
    """

    apmask: Mask
    aqmask: Mask
    lpar: tuple[Mask, Mask, Mask]
    domain: Annotated[int, Meta(ge=-1, le=255)]
    config_time: Annotated[int, Meta(ge=5, le=120)]
    poll_timeout_ns: Annotated[int, Meta(ge=0, le=MAX_POLL_TIMEOUT_NS)]
    poll_thread: bool
    autoprobe: bool
    autoscan: bool
    scans: U63
    rearmed: bool
    completions: U63
    cards: tuple[SavedCard, ...]
    card_driver: Annotated[tuple[U8, ...], Meta(max_length=256)]
    drivers: tuple[tuple[str, Order], ...]
    order: Order
    info: SavedCardInfo
    timer: SavedTimer
    poll_timer: SavedTimer | None


def save_bus(bus: ApBus) -> SavedBus:
    """Return what a snapshot holds of the bus. Precondition: it was started."""
    state = bus.state
    adapters, domains, control_domains = map(mask_text, state.lpar)
    timer = bus.next_scan
    assert timer is not None
    return SavedBus(
        apmask=mask_text(state.apmask),
        aqmask=mask_text(state.aqmask),
        lpar=(adapters, domains, control_domains),
        domain=state.domain,
        config_time=state.config_time,
        poll_timeout_ns=state.poll_timeout_ns,
        poll_thread=state.poll_thread,
        autoprobe=state.autoprobe,
        autoscan=state.autoscan,
        scans=state.scans,
        rearmed=state.rearmed,
        completions=state.completions,
        cards=tuple(_save_card(card) for card in state.cards.values()),
        card_driver=tuple(state.card_driver.order),
        drivers=tuple((name, _rows(driver.order)) for name, driver in state.queue_drivers.items()),
        order=_rows(state.order),
        info=save_info(bus.zcrypt.info),
        timer=timer,
        poll_timer=state.poll_timer,
    )


def _rows(order: QueueOrder) -> Order:
    return tuple((apid, mask_text(mask)) for apid, mask in order.rows())


def _save_card(card: ApCard) -> SavedCard:
    states = card.states
    return SavedCard(
        spec=save_spec(card.spec),
        config=card.config,
        chkstop=card.chkstop,
        soft_online=card.soft_online,
        requests=card.requests,
        queues=mask_text(card.queues),
        deconfigured=mask_text(card.deconfigured),
        checkstopped=mask_text(card.checkstopped),
        offline=mask_text(card.offline),
        left=mask_text(card.left),
        left_offline=mask_text(card.left_offline),
        states=SavedStates(
            operating=mask_text(states.operating),
            error=mask_text(states.error),
            reset_start=mask_text(states.reset_start),
            reset_wait=mask_text(states.reset_wait),
            irq_wait=mask_text(states.irq_wait),
            interrupts=mask_text(states.interrupts),
        ),
        plugs=save_counter(card.plugs),
        queue_requests=tuple(card.queue_requests.items()),
        waiting=tuple(card.waiting.items()),
    )


def restore_bus(saved: SavedBus, bus: ApBus) -> None:
    """Fill a bus that was not started. Raises BadSnapshotError.

    Precondition: its hardware was restored, and its queue drivers are registered and have nothing.
    """
    state = bus.state
    state.apmask, state.aqmask = mask_of(saved.apmask), mask_of(saved.aqmask)
    state.lpar = Lpar(*map(mask_of, saved.lpar))
    state.domain, state.config_time = saved.domain, saved.config_time
    state.poll_timeout_ns, state.poll_thread = saved.poll_timeout_ns, saved.poll_thread
    state.autoprobe, state.autoscan = saved.autoprobe, saved.autoscan
    state.scans, state.completions, state.rearmed = saved.scans, saved.completions, saved.rearmed
    check(saved.scans, "the bus was never scanned")
    check_unique([card.spec.id for card in saved.cards], "a card")
    for card in saved.cards:
        _restore_card(card, state)
    _restore_order(saved.order, state)
    _restore_registered(saved, state)
    _restore_card_driver(saved.card_driver, state)
    restore_info(saved.info, bus.zcrypt.info)
    for name, rows in saved.drivers:
        _restore_driver(state.queue_drivers[name], rows, state)
    bus.start_at(saved.timer)
    if saved.poll_timer is not None:
        state.poll_at(saved.poll_timer)


def _restore_card(saved: SavedCard, state: BusState) -> None:
    spec = restored_spec(saved.spec)
    name = f"card {spec.id:02x}"
    card = state.cards[spec.id] = ApCard(state, spec, config=saved.config, chkstop=saved.chkstop)
    card.soft_online = saved.soft_online
    card.requests = check_counter(saved.requests, f"the count of requests of {name}")
    card.queues = mask_of(saved.queues)
    card.deconfigured = _some_of(card, saved.deconfigured, "deconfigured")
    card.checkstopped = _some_of(card, saved.checkstopped, "checkstopped")
    card.offline = _some_of(card, saved.offline, "offline")
    card.left = _some_of(card, saved.left, "of an earlier card")
    card.left_offline = _some_of(card, saved.left_offline, "of an earlier card")
    check(not card.left_offline & ~card.left, f"{name} has a queue of no earlier card")
    card.states = _restored_states(saved.states)
    card.plugs = restored_counter(saved.plugs)
    card.queue_requests = _restored_counts(saved.queue_requests, card)
    card.waiting = _restored_counts(saved.waiting, card)


def _restore_registered(saved: SavedBus, state: BusState) -> None:
    """Have these queue drivers registered, in this order."""
    names = [name for name, _ in saved.drivers]
    registered = ", ".join(state.queue_drivers)
    if HOST_QUEUE_DRIVER not in names:
        check(names == list(state.queue_drivers)[1:], f"the queue drivers are {registered}")
        check(not saved.card_driver, "a card is bound to no driver")
        state.card_driver.registered = False
        del state.queue_drivers[HOST_QUEUE_DRIVER]
    known = state.queue_drivers
    check(sorted(names) == sorted(known), f"the queue drivers are {registered}")
    state.queue_drivers = {name: known[name] for name in names}


def _some_of(card: ApCard, text: Mask, what: str) -> int:
    mask = mask_of(text)
    check(not mask & ~card.queues, f"card {card.apid:02x} has no queue that is {what}")
    return mask


def _restored_states(saved: SavedStates) -> QueueStates:
    states = QueueStates()
    states.operating, states.error = mask_of(saved.operating), mask_of(saved.error)
    states.reset_start, states.reset_wait = mask_of(saved.reset_start), mask_of(saved.reset_wait)
    check(not states.operating & states.error, "a queue is in operation and in error")
    states.irq_wait = mask_of(saved.irq_wait)
    in_two = states.reset_start & (states.reset_wait | states.irq_wait)
    in_two |= states.reset_wait & states.irq_wait
    check(not in_two, "a queue is in two states of a reset")
    states.interrupts = mask_of(saved.interrupts)
    return states


def _restored_counts(saved: Counts, card: ApCard) -> dict[int, int]:
    counts = dict(saved)
    check(len(counts) == len(saved), f"a count of card {card.apid:02x} occurs twice")
    for apqi, count in saved:
        check_counter(count, "a count of requests")
        check(card.queues >> apqi & 1, f"card {card.apid:02x} counts for an absent queue")
    return counts


def _restore_order(rows: Order, state: BusState) -> None:
    for apid, text in rows:
        card, mask = state.cards.get(apid), mask_of(text)
        queues = 0 if card is None else card.queues
        known = sum(row.mask for row in state.order.rows_of(apid))
        check(not mask & (known | ~queues), "a queue is registered twice, or is not there")
        state.order.append(apid, mask)
    for card in state.cards.values():
        known = sum(row.mask for row in state.order.rows_of(card.apid))
        check(known == card.queues, f"card {card.apid:02x} has a queue that is not registered")


def _restore_card_driver(apids: tuple[int, ...], state: BusState) -> None:
    check_unique(apids, "a card of the card driver")
    for apid in apids:
        card = state.cards.get(apid)
        if card is None or not card.has_driver_type:
            refuse(f"card {apid:02x} is not there, or of a type without driver")
        card.driver = state.card_driver.name
    state.card_driver.order = list(apids)


def _restore_driver(driver: QueueDriver, rows: Order, state: BusState) -> None:
    for apid, text in rows:
        card, mask = state.cards.get(apid), mask_of(text)
        if card is None or not card.has_driver_type:
            refuse(f"{driver.name} has queues of a card that it cannot have")
        free = state.unbound(card) & driver.fits(state.host_domains(apid))
        check(not mask & ~free, f"{driver.name} has queues that are not there or not its own")
        driver.take(apid, mask)

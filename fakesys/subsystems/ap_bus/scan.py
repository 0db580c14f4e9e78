"""One scan of the bus: devices are made and removed until they are what the machine gives.

Like ap_bus.c:ap_scan_bus, ap_scan_adapter, ap_scan_domains (v6.1). Differs: one step for
readers, and all queues of a card at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fakesys.core.events import Changed, Uevent
from fakesys.core.text import ids
from fakesys.subsystems.ap_bus.card import ApCard
from fakesys.subsystems.ap_bus.hardware import CardSpec
from fakesys.subsystems.ap_bus.policy import Answers
from fakesys.subsystems.ap_bus.uevents import Step

if TYPE_CHECKING:
    from fakesys.subsystems.ap_bus.bus import ApBus


def scan(bus: ApBus) -> None:
    """One whole scan, counted; the first one says that it is done."""
    new, old = bus.hardware.lpar, bus.lpar
    bus.lpar = new
    drivers = list(bus.queue_drivers.values())
    if new != old:
        if new.adapters & ~old.adapters or new.domains & ~old.domains:
            bus.binding.rearmed = True
        for driver in drivers:
            driver.owner.config_changed(new, old)
    bus.pick_domain()
    follow_hardware(bus)
    if new != old:
        for driver in drivers:
            driver.owner.scan_complete(new, old)
    bus.scans += 1
    if bus.scans == 1:
        bus.kernel.bus.emit(Uevent("change", bus.root.devpath, "ap", {"INITSCAN": "done"}))
        bus.binding.first_scan_done()
    bus.binding.check_complete()


def follow_hardware(bus: ApBus) -> None:
    """Make, change and remove devices until they are what the hardware answers."""
    for apid in sorted({*bus.cards, *bus.hardware.cards}):
        _scan_adapter(bus, apid)


def _scan_adapter(bus: ApBus, apid: int) -> None:
    answers = bus.hardware.test(apid)
    card = bus.cards.get(apid)
    installed = bus.hardware.cards.get(apid)
    if installed is None or not answers.present or installed.spec.type < bus.policy.oldest_type:
        if card is not None:
            remove_card(bus, card)
        return
    spec = installed.spec
    # The first queue that answers speaks for the card.
    first = answers.present & -answers.present
    config, chkstop = not answers.deconfigured & first, bool(answers.checkstopped & first)
    if card is not None and (card.spec.type, card.spec.functions) != (spec.type, spec.functions):
        remove_card(bus, card)
        card = None
    if card is None:
        card = _add_card(bus, spec, config, chkstop)
    else:
        _follow(bus, card, config, chkstop)
    _scan_domains(bus, card, answers)


def _add_card(bus: ApBus, spec: CardSpec, config: bool, chkstop: bool) -> ApCard:
    card = bus.cards[spec.id] = ApCard(bus, spec, config=config, chkstop=chkstop)
    bus.kernel.devices.add(card)
    if bus.autoprobe and card.has_driver_type:
        bus.bind_card(card)
    return card


def _follow(bus: ApBus, card: ApCard, config: bool, chkstop: bool) -> None:
    card.chkstop = chkstop
    if card.config != config:
        card.config = config
        card.tell("CONFIG", config)


def _scan_domains(bus: ApBus, card: ApCard, answers: Answers) -> None:
    present = bus.policy.queues(answers)
    gone, fresh = card.queues & ~present, present & ~card.queues
    staying = card.queues & present
    unbound = bus.binding.unbound_count() if gone or fresh else 0
    steps = bus.binding.vanish(card, gone) if gone else []
    steps += _follow_queues(bus, card, staying, answers)
    if fresh:
        card.queues |= fresh
        card.plugs.add(fresh)
        card.deconfigured |= fresh & answers.deconfigured
        card.checkstopped |= fresh & answers.checkstopped
        card.states.create(fresh)
        steps += bus.binding.appear(card, fresh)
        if bus.policy.nudges_queues:
            card.start(fresh & ~(answers.deconfigured | answers.checkstopped))
    if gone or fresh:
        _say_changed(bus, card)
    if steps:
        bus.binding.publish([bus.binding.row(card, steps)], unbound)


def _follow_queues(bus: ApBus, card: ApCard, staying: int, answers: Answers) -> list[Step]:
    stopped, off = answers.checkstopped & staying, answers.deconfigured & staying
    stops, recovers = stopped & ~card.checkstopped, staying & card.checkstopped & ~stopped
    card.checkstopped = card.checkstopped & ~staying | stopped
    # A queue whose checkstop changed is left alone otherwise until the next scan.
    others = staying & ~(stops | recovers)
    switched_off, switched_on = others & off & ~card.deconfigured, others & card.deconfigured & ~off
    card.deconfigured = card.deconfigured & ~switched_on | switched_off
    card.flush(stops | switched_off)
    back = (recovers | switched_on) & card.states.operating
    card.states.reset_started |= back
    if bus.policy.nudges_queues:
        card.poll(back)
    steps = []
    if switched_off:
        steps += bus.binding.changes(card, switched_off, ("CONFIG", "0"))
    if switched_on:
        steps += bus.binding.changes(card, switched_on, ("CONFIG", "1"))
    return steps


def remove_card(bus: ApBus, card: ApCard) -> None:
    """Remove the queues of a card, then the card itself."""
    unbound = bus.binding.unbound_count()
    steps = bus.binding.vanish(card, card.queues)
    bus.binding.publish([bus.binding.row(card, steps)], unbound)
    if card.driver is not None:
        bus.unbind_card(card)
    del bus.cards[card.apid]
    bus.kernel.devices.remove(card)
    _say_changed(bus, card)


def _say_changed(bus: ApBus, card: ApCard) -> None:
    bus.kernel.bus.emit(Changed((card, bus, *bus.queue_drivers.values())))


def lowest_usable_domain(bus: ApBus) -> int:
    """The first domain of host and machine in which an adapter of both answers; else -1.

    Like ap_bus.c:ap_select_domain (v6.1).
    """
    usable = 0
    for apid in ids(bus.lpar.adapters & bus.apmask):
        usable |= bus.hardware.by_answer(apid, bus.lpar.domains & bus.aqmask).get(0, 0)
    return (usable & -usable).bit_length() - 1

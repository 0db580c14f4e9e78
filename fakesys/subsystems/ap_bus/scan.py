"""One scan of the bus: devices are made and removed until they match the hardware.

Like ap_bus.c:ap_scan_bus, ap_scan_adapter, ap_scan_domains (v6.1). Differs: one step for
readers, and all queues of a card at once.
"""

from __future__ import annotations

from fakesys.core.events import Changed, Uevent
from fakesys.core.text import ids
from fakesys.subsystems.ap_bus.binding import Binding
from fakesys.subsystems.ap_bus.card import ApCard
from fakesys.subsystems.ap_bus.hardware_spec import CardSpec
from fakesys.subsystems.ap_bus.policy import Answers
from fakesys.subsystems.ap_bus.queues.answers import NORMAL
from fakesys.subsystems.ap_bus.state import NO_DOMAIN, BusState
from fakesys.subsystems.ap_bus.uevents import Step


def scan(bus: BusState, binding: Binding) -> bool:
    """Run one whole scan and count it; return whether the machine's masks changed.

    The order is the kernel's: drivers learn of other masks of the machine, devices are removed
    and made, drivers learn that the scan is complete. The first scan sends `INITSCAN=done`.
    """
    new, old = bus.hardware.lpar, bus.lpar
    bus.lpar = new
    # Like ap_bus.c:ap_get_configuration (v6.1): without PQAP(QCI) no change is noticed.
    changed = new != old and bus.hardware.qci
    drivers = list(bus.queue_drivers.values())
    if changed:
        if new.adapters & ~old.adapters or new.domains & ~old.domains:
            bus.rearmed = True
        for driver in drivers:
            driver.owner.config_changed(new, old)
    _select_domain(bus)
    follow_hardware(bus, binding)
    if changed:
        for driver in drivers:
            driver.owner.scan_complete(new, old)
    bus.scans += 1
    if bus.scans == 1:
        bus.kernel.bus.emit(Uevent("change", bus.root.devpath, "ap", {"INITSCAN": "done"}))
        binding.first_scan_done()
    binding.check_complete()
    bus.poll()
    return changed


def follow_hardware(bus: BusState, binding: Binding) -> None:
    """Make, change and remove devices until they are what the hardware answers."""
    for apid in sorted({*bus.cards, *bus.hardware.cards}):
        _scan_adapter(bus, binding, apid)


def _scan_adapter(bus: BusState, binding: Binding, apid: int) -> None:
    answers = bus.hardware.test(apid)
    card = bus.cards.get(apid)
    installed = bus.hardware.cards.get(apid)
    if installed is None or not answers.present or installed.spec.type < bus.policy.oldest_type:
        if card is not None:
            _remove_card(bus, binding, card)
        return
    spec = installed.spec
    # The first queue that answers speaks for the card.
    first = answers.present & -answers.present
    config, chkstop = not answers.deconfigured & first, bool(answers.checkstopped & first)
    if card is not None and (card.spec.type, card.spec.functions) != (spec.type, spec.functions):
        _remove_card(bus, binding, card)
        card = None
    if card is None:
        card = _add_card(bus, binding, spec, config, chkstop)
    else:
        _follow_card(card, config, chkstop)
    _scan_domains(bus, binding, card, answers)


def _add_card(
    bus: BusState, binding: Binding, spec: CardSpec, config: bool, chkstop: bool
) -> ApCard:
    card = bus.cards[spec.id] = ApCard(bus, spec, config=config, chkstop=chkstop)
    bus.kernel.devices.add(card)
    if bus.autoprobe:
        binding.offer_card(card)
    return card


def _follow_card(card: ApCard, config: bool, chkstop: bool) -> None:
    card.chkstop = chkstop
    if card.config != config:
        card.config = config
        card.send_change("CONFIG", config)


def _scan_domains(bus: BusState, binding: Binding, card: ApCard, answers: Answers) -> None:
    present = bus.policy.queues(answers)
    gone, fresh = card.queues & ~present, present & ~card.queues
    staying = card.queues & present
    unbound = bus.unbound_count() if gone or fresh else 0
    steps = binding.remove_queues(card, gone) if gone else []
    steps += _follow_queues(bus, binding, card, staying, answers)
    if fresh:
        steps += _add_queues(bus, binding, card, fresh, answers)
    if gone or fresh:
        _names_changed(bus, card)
    if steps:
        binding.publish([card.row(steps)], unbound)


def _add_queues(
    bus: BusState, binding: Binding, card: ApCard, fresh: int, answers: Answers
) -> list[Step]:
    card.queues |= fresh
    card.plugs.add(fresh)
    card.deconfigured |= fresh & answers.deconfigured
    card.checkstopped |= fresh & answers.checkstopped
    card.states.create(fresh)
    steps = binding.add_queues(card, fresh)
    if bus.policy.initiates_queues:
        card.start(fresh & ~(answers.deconfigured | answers.checkstopped))
    return steps


def _follow_queues(
    bus: BusState, binding: Binding, card: ApCard, staying: int, answers: Answers
) -> list[Step]:
    stopped, off = answers.checkstopped & staying, answers.deconfigured & staying
    stops, recovers = stopped & ~card.checkstopped, staying & card.checkstopped & ~stopped
    # Like the last step of ap_bus.c:ap_scan_domains (v6.1); no other change is looked at then.
    same = staying & ~(stops | recovers) & ~(off ^ card.deconfigured)
    broken = same & ~off & card.states.error
    card.checkstopped = card.checkstopped & ~staying | stopped
    # Of a queue whose checkstop changed, nothing else is looked at until the next scan.
    others = staying & ~(stops | recovers)
    switched_off, switched_on = others & off & ~card.deconfigured, others & card.deconfigured & ~off
    card.deconfigured = card.deconfigured & ~switched_on | switched_off
    card.states.fail(stops | switched_off)
    card.flush(stops | switched_off | broken)
    _start_again(bus, card, (recovers | switched_on) & card.states.initiated)
    card.start(broken)
    steps = []
    if switched_off:
        steps += binding.change_steps(card, switched_off, ("CONFIG", "0"))
    if switched_on:
        steps += binding.change_steps(card, switched_on, ("CONFIG", "1"))
    return steps


def _start_again(bus: BusState, card: ApCard, back: int) -> None:
    """Initiate queues that work again. Some kernels do not poll them, so their reset waits."""
    if bus.policy.initiates_queues:
        card.start(back)
    else:
        card.states.operate(back)


def _remove_card(bus: BusState, binding: Binding, card: ApCard) -> None:
    """Remove the queues of a card, then the card itself."""
    for _, mask in bus.order.rows_of(card.apid):
        unbound = bus.unbound_count()
        steps = binding.remove_queues(card, mask)
        binding.publish([card.row(steps)], unbound)
    if card.driver is not None:
        binding.unbind_card(card)
    del bus.cards[card.apid]
    bus.kernel.devices.remove(card)
    _names_changed(bus, card)


def _names_changed(bus: BusState, card: ApCard) -> None:
    bus.kernel.bus.emit(Changed((card, bus, *bus.queue_drivers.values())))


def _select_domain(bus: BusState) -> None:
    """Choose a default domain while there is none.

    It is the first domain of host and machine in which an adapter of both answers. Like
    ap_bus.c:ap_select_domain (v6.1).
    """
    if bus.domain != NO_DOMAIN:
        return
    usable = 0
    for apid in ids(bus.lpar.adapters & bus.apmask):
        usable |= bus.hardware.by_answer(apid, bus.lpar.domains & bus.aqmask).get(NORMAL, 0)
    bus.domain = (usable & -usable).bit_length() - 1 if usable else NO_DOMAIN

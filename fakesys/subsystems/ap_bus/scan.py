"""One scan of the bus: devices are made and removed until they match the hardware.

Like ap_bus.c:ap_scan_bus, ap_scan_adapter, ap_scan_domains (v6.1). Differs: one step for
readers, and all queues of a card at once.
"""

from __future__ import annotations

from collections.abc import Iterable

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
    bus.messages.scanning()
    follow_hardware(bus, binding)
    if changed:
        for driver in drivers:
            driver.owner.scan_complete(new, old)
    _look_for_default_queue(bus)
    bus.scans += 1
    if bus.scans == 1:
        bus.messages.first_scan_done()
        bus.kernel.bus.emit(Uevent("change", bus.root.devpath, "ap", {"INITSCAN": "done"}))
        binding.first_scan_done()
    binding.check_complete()
    bus.poll()
    return changed


def follow_hardware(bus: BusState, binding: Binding) -> None:
    """Make, change and remove devices until they are what the hardware answers."""
    for apid in sorted({*bus.cards, *bus.hardware.cards, *_silent_adapters(bus)}):
        _scan_adapter(bus, binding, apid)


def _silent_adapters(bus: BusState) -> Iterable[int]:
    """Return the adapters of this Linux that the bus has a message on, whatever they answer."""
    if not bus.messages.wants_debug:
        return ()
    return ids(bus.lpar.adapters) if bus.hardware.qci else range(bus.hardware.highest_adapter + 1)


def _scan_adapter(bus: BusState, binding: Binding, apid: int) -> None:
    answers = bus.hardware.test(apid)
    card = bus.cards.get(apid)
    installed = bus.hardware.cards.get(apid)
    if installed is None or not answers.present:
        _lose_adapter(bus, binding, apid, card)
        return
    spec = installed.spec
    if card is not None and _is_another(bus, card.spec, spec):
        _remove_card(bus, binding, card)
        card = None
    # The first queue that answers speaks for the card.
    first = answers.present & -answers.present
    config, chkstop = not answers.deconfigured & first, bool(answers.checkstopped & first)
    if card is not None:
        _follow_card(bus, card, config, chkstop)
    else:
        card = _add_card(bus, binding, spec, first, config=config, chkstop=chkstop)
    if card is not None:
        _scan_domains(bus, binding, card, answers)


def _lose_adapter(bus: BusState, binding: Binding, apid: int, card: ApCard | None) -> None:
    """Remove the card device of an adapter of which no queue answers."""
    given = not bus.hardware.qci or bus.lpar.adapters >> apid & 1
    if card is None:
        if given:
            bus.messages.adapter_ignored(apid)
        return
    if given and apid <= bus.hardware.highest_adapter:
        bus.messages.no_queue_found(apid)
    else:
        bus.messages.adapter_removed(apid)
    _remove_card(bus, binding, card)


def _is_another(bus: BusState, old: CardSpec, new: CardSpec) -> bool:
    """Return whether the card in a place is another one than that of the device."""
    if old.type != new.type:
        bus.messages.type_changed(new.id, new.type)
    elif old.functions != new.functions:
        bus.messages.functions_changed(new.id, new.type, new.functions)
    return (old.type, old.functions) != (new.type, new.functions)


def _add_card(
    bus: BusState, binding: Binding, spec: CardSpec, first: int, *, config: bool, chkstop: bool
) -> ApCard | None:
    """Make a card device; None for a card that is too old. `first`: the domain that answered."""
    apqi = first.bit_length() - 1
    if spec.type < bus.policy.oldest_type:
        bus.messages.unsupported_type(spec.id, apqi, spec.type)
        return None
    if spec.hwtype != spec.type:
        bus.messages.type_mapped(spec.id, apqi, spec.type, spec.hwtype)
    card = bus.cards[spec.id] = ApCard(bus, spec, config=config, chkstop=chkstop)
    bus.kernel.devices.add(card)
    bus.messages.card_created(spec.id, spec.type, spec.functions, config=config, chkstop=chkstop)
    if bus.autoprobe:
        binding.offer_card(card)
    return card


def _follow_card(bus: BusState, card: ApCard, config: bool, chkstop: bool) -> None:
    if card.chkstop != chkstop:
        card.chkstop = chkstop
        bus.messages.card_stopped(card.apid, stopped=chkstop)
    if card.config != config:
        card.config = config
        bus.messages.card_configured(card.apid, config=config)
        card.send_change("CONFIG", config)


def _scan_domains(bus: BusState, binding: Binding, card: ApCard, answers: Answers) -> None:
    present = bus.policy.queues(answers)
    gone, fresh = card.queues & ~present, present & ~card.queues
    staying = card.queues & present
    unbound = bus.unbound_count() if gone or fresh else 0
    steps = binding.remove_queues(card, gone) if gone else []
    bus.messages.queues_removed(card.apid, gone & ~bus.lpar.domains)
    bus.messages.queues_lost(card.apid, gone & bus.lpar.domains)
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
    off, stopped = fresh & answers.deconfigured, fresh & answers.checkstopped
    bus.messages.queues_created(card.apid, off, config=False, chkstop=False)
    bus.messages.queues_created(card.apid, stopped, config=True, chkstop=True)
    bus.messages.queues_created(card.apid, fresh & ~(off | stopped), config=True, chkstop=False)
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
    says = bus.messages
    says.queues_stopped(card.apid, stops, stopped=True)
    says.queues_stopped(card.apid, recovers, stopped=False)
    says.queues_configured(card.apid, switched_off, config=False)
    says.queues_configured(card.apid, switched_on, config=True)
    says.queues_initiated_again(card.apid, broken)
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
    if usable:
        bus.domain = (usable & -usable).bit_length() - 1
        bus.messages.domain_selected(bus.domain)


def _look_for_default_queue(bus: BusState) -> None:
    """Say it where no queue has the default domain. Like ap_bus.c:ap_scan_bus (v6.1)."""
    if bus.domain == NO_DOMAIN:
        return
    if not any(card.queues >> bus.domain & 1 for card in bus.cards.values()):
        bus.messages.no_default_queue(bus.domain)

"""Which driver has which queue: probe, detach, hand over, for whole rows of queues at once."""

from __future__ import annotations

from collections.abc import Sequence
from errno import EBUSY, ENODEV
from typing import TYPE_CHECKING

from fakesys.core.errors import KernelError
from fakesys.core.events import Changed, UeventBatch
from fakesys.subsystems.ap_bus.card import ApCard
from fakesys.subsystems.ap_bus.drivers import QueueDriver
from fakesys.subsystems.ap_bus.policy import BindingsEvent
from fakesys.subsystems.ap_bus.queue import ApQueue
from fakesys.subsystems.ap_bus.uevents import Action, Row, Step, bindings_complete

if TYPE_CHECKING:
    from fakesys.subsystems.ap_bus.bus import ApBus

UNBIND = Action("unbind")
ADD = Action("add")
REMOVE = Action("remove")


class Binding:
    """Binds the queues and cards of one bus."""

    def __init__(self, bus: ApBus) -> None:
        self._bus = bus
        # Was there a probe, or anything new in the machine's masks, since the last
        # `BINDINGS=complete`? (kernels that send it per scan)
        self.rearmed = True
        self.completions = 0

    def unbound(self, card: ApCard) -> int:
        """The queues of a card that have no driver."""
        free = card.queues
        for driver in self._bus.queue_drivers.values():
            free &= ~driver.bound[card.apid]
        return free

    def unbound_count(self) -> int:
        """How many queues of the bus have no driver."""
        return sum(self.unbound(card).bit_count() for card in self._bus.cards.values())

    def host_row(self, apid: int) -> int:
        """The domains of an adapter that the masks give to the host."""
        return self._bus.aqmask if self._bus.apmask >> apid & 1 else 0

    def revise(self) -> None:
        """Bind every queue anew whose driver no longer fits. Like ap_bus_revise_bindings."""
        before = self.unbound_count()
        cards = [self._bus.cards[apid] for apid in sorted(self._bus.cards)]
        self._finish([self._revise_card(card) for card in cards], before)

    def probe(self, card: ApCard, mask: int) -> list[Step]:
        """Offer these queues, which have no driver, to the drivers; the steps of the taken."""
        steps: list[Step] = []
        for driver in self._bus.queue_drivers.values():
            steps += self._offer(driver, card, mask)
        return steps

    def offer_all(self, driver: QueueDriver) -> None:
        """Offer every free queue to a driver whose module was just loaded."""
        before = self.unbound_count()
        rows = []
        for apid in sorted(self._bus.cards):
            card = self._bus.cards[apid]
            rows.append(self.row(card, self._offer(driver, card, self.unbound(card))))
        self._finish(rows, before)
        self.check_complete()

    def release_all(self, driver: QueueDriver) -> None:
        """Take every queue from a driver, as when its module is unloaded."""
        before = self.unbound_count()
        rows = []
        for apid in sorted(self._bus.cards):
            card = self._bus.cards[apid]
            rows.append(self.row(card, self.detach(driver, card, driver.bound[apid])))
        self._finish(rows, before)

    def detach(self, driver: QueueDriver, card: ApCard, mask: int) -> list[Step]:
        """Take these queues from their driver; each is reset by driver and bus."""
        if not mask:
            return []
        self._release(driver, card, mask)
        return [Step(mask, (UNBIND,), +1)]

    def bind(self, driver: QueueDriver, queue: ApQueue) -> None:
        """What `bind` of a driver does. Raises ENODEV, EBUSY, ENODEV in this order."""
        card, bit = queue.card, 1 << queue.apqi
        if not card.has_driver_type:
            raise KernelError(ENODEV, f"{driver.name} takes no type {card.hwtype}")
        if queue.driver is not None:
            raise KernelError(EBUSY, f"{queue.apqn} is bound to {queue.driver}")
        if not self._fitting(driver, card) & bit:
            raise KernelError(ENODEV, f"the masks do not give {queue.apqn} to {driver.name}")
        before = self.unbound_count()
        self._take(driver, card, bit)
        self._finish([self.row(card, [_bound(bit, driver)])], before)

    def unbind(self, driver: QueueDriver, queue: ApQueue) -> None:
        """What `unbind` of a driver does. Raises ENODEV; nobody can object."""
        if queue.driver != driver.name:
            raise KernelError(ENODEV, f"{queue.apqn} is not bound to {driver.name}")
        before = self.unbound_count()
        steps = self.detach(driver, queue.card, 1 << queue.apqi)
        self._finish([self.row(queue.card, steps)], before)

    def reprobe(self, queue: ApQueue) -> None:
        """What `drivers_probe` does: nothing for a bound queue, no taker is fine."""
        if queue.driver is None:
            before = self.unbound_count()
            row = self.row(queue.card, self.probe(queue.card, 1 << queue.apqi))
            self._finish([row], before)

    def appear(self, card: ApCard, mask: int) -> list[Step]:
        """Queue devices that were just made: announced, then probed if the bus does so."""
        taken = self.probe(card, mask) if self._bus.autoprobe else []
        steps = [Step(s.mask, (ADD, *s.actions), 0, probed=True) for s in taken]
        left = mask & ~sum(step.mask for step in taken)
        return [*steps, Step(left, (ADD,), +1)] if left else steps

    def vanish(self, card: ApCard, mask: int) -> list[Step]:
        """Queue devices that go: taken from their drivers, then removed."""
        steps = []
        for driver in self._bus.queue_drivers.values():
            bound = driver.bound[card.apid] & mask
            if bound:
                self._release(driver, card, bound)
                steps.append(Step(bound, (UNBIND, REMOVE)))
        free = mask & ~sum(step.mask for step in steps)
        card.forget(mask)
        return [*steps, Step(free, (REMOVE,), -1)] if free else steps

    def tell_queues(self, card: ApCard, mask: int, field: tuple[str, str]) -> None:
        """Uevent `change` with one field for each of these queues."""
        self.publish([self.row(card, self.changes(card, mask, field))], 0)

    def changes(self, card: ApCard, mask: int, field: tuple[str, str]) -> list[Step]:
        """A `change` of each of these queues with one field."""
        steps = []
        for driver in self._bus.queue_drivers.values():
            bound = driver.bound[card.apid] & mask
            mask &= ~bound
            if bound:
                steps.append(Step(bound, (Action("change", driver.name, (field,)),)))
        return [*steps, Step(mask, (Action("change", None, (field,)),))] if mask else steps

    def row(self, card: ApCard, steps: Sequence[Step]) -> Row:
        """What happens to queues of this card."""
        return Row(card.apid, str(card.mode), tuple(steps))

    def publish(self, rows: Sequence[Row], unbound: int) -> None:
        """Send the uevents. `unbound`: how many queues had no driver before."""
        per_probe = self._bus.policy.bindings is BindingsEvent.EVERY_PROBE and self._bus.scans > 0
        numbered = []
        for row in rows:
            done = row
            if per_probe:
                done, unbound = row.numbered(unbound, self.completions + 1)
                self.completions += done.complete.bit_count()
            numbered.append(done)
        self.rearmed |= any(step.probed for row in rows for step in row.steps)
        told = tuple(row for row in numbered if row.steps)
        count = sum(row.length for row in told)
        if count:
            batch = UeventBatch(count, lambda: (e for row in told for e in row.events()))
            self._bus.kernel.bus.emit(batch)

    def card_probed(self) -> None:
        """A card got its driver: that, too, looks whether any queue is left without one."""
        self.rearmed = True
        if self._bus.policy.bindings is BindingsEvent.EVERY_PROBE and self._bus.scans:
            self._tell_if_complete()

    def check_complete(self) -> None:
        """The end of a scan or of the loading of a driver."""
        if self._bus.policy.bindings is BindingsEvent.PER_SCAN and self._bus.scans and self.rearmed:
            self._tell_if_complete()

    def first_scan_done(self) -> None:
        """The first scan tells in every kernel."""
        self._tell_if_complete()

    def _tell_if_complete(self) -> None:
        if self.unbound_count():
            return
        self.rearmed = False
        self.completions += 1
        self._bus.kernel.bus.emit(bindings_complete(self.completions))

    def _fitting(self, driver: QueueDriver, card: ApCard) -> int:
        if not card.has_driver_type:
            return 0
        return card.queues & driver.fits(self.host_row(card.apid))

    def _revise_card(self, card: ApCard) -> Row:
        steps: list[Step] = []
        free = self.unbound(card)
        for driver in self._bus.queue_drivers.values():
            wrong = driver.bound[card.apid] & ~driver.fits(self.host_row(card.apid))
            if wrong:
                self._release(driver, card, wrong)
                steps.extend(_handed_over(wrong, self.probe(card, wrong)))
        steps.extend(self.probe(card, free))
        return self.row(card, steps)

    def _offer(self, driver: QueueDriver, card: ApCard, mask: int) -> list[Step]:
        taken = self._fitting(driver, card) & mask
        if not taken:
            return []
        self._take(driver, card, taken)
        return [_bound(taken, driver)]

    def _take(self, driver: QueueDriver, card: ApCard, mask: int) -> None:
        driver.bound[card.apid] |= mask
        driver.owner.queues_bound(card.apid, mask)

    def _release(self, driver: QueueDriver, card: ApCard, mask: int) -> None:
        driver.owner.queues_leaving(card.apid, mask)
        driver.bound[card.apid] &= ~mask
        # ap_queue.c:ap_queue_remove (v6.1): whoever had it, the next finds no trace.
        self._bus.hardware.zeroize(card.apid, mask)
        card.states.release(mask)

    def _finish(self, rows: Sequence[Row], unbound: int) -> None:
        touched = tuple(self._bus.cards[row.apid] for row in rows if row.steps)
        if touched:
            emit = self._bus.kernel.bus.emit
            emit(Changed(touched, deep=True))
            emit(Changed(tuple(self._bus.queue_drivers.values())))
        self.publish(rows, unbound)


def _bound(mask: int, driver: QueueDriver) -> Step:
    return Step(mask, (Action("bind", driver.name),), -1, probed=True)


def _handed_over(mask: int, taken: Sequence[Step]) -> list[Step]:
    steps = [Step(s.mask, (UNBIND, *s.actions), 0, probed=True) for s in taken]
    left = mask & ~sum(step.mask for step in taken)
    return [*steps, Step(left, (UNBIND,), +1)] if left else steps

"""Which driver has which queue or card: probe, detach, hand over, for whole rows of queues.

Every change follows one order: ask the driver's module, change the masks, tell the tree, send
the uevents. The uevents of one operation are rows (`uevents.py`), one per card.
"""

from __future__ import annotations

from collections.abc import Sequence
from errno import ENODEV

from fakesys.core.errors import KernelError
from fakesys.core.events import Changed
from fakesys.subsystems.ap_bus.card import ApCard
from fakesys.subsystems.ap_bus.drivers import QueueDriver
from fakesys.subsystems.ap_bus.policy import BindingsEvent
from fakesys.subsystems.ap_bus.queue import ApQueue
from fakesys.subsystems.ap_bus.queues.order import QueueRow
from fakesys.subsystems.ap_bus.state import BusState
from fakesys.subsystems.ap_bus.uevents import Action, Row, Step, bindings_complete, send

UNBIND = Action("unbind")
ADD = Action("add")
REMOVE = Action("remove")


class Binding:
    """Binds the queues and cards of one bus."""

    def __init__(self, bus: BusState) -> None:
        self._bus = bus

    def bind_card(self, card: ApCard) -> None:
        """Give a card to the card driver, which sets it online.

        Precondition: the card has no driver and is of a type that has one.
        """
        driver = self._bus.card_driver
        card.driver = driver.name
        card.soft_online = True
        driver.order.append(card.apid)
        self._bus.zcrypt_messages.card_registered(card.apid)
        self._card_probed()
        self._bus.kernel.devices.bind(card)

    def offer_card(self, card: ApCard) -> None:
        """Give a card without driver to the card driver if that is there and takes its type."""
        if card.driver is None and card.has_driver_type and self._bus.card_driver.registered:
            self.bind_card(card)

    def bind_card_by_hand(self, card: ApCard) -> None:
        """Bind a card as a write to `bind` does.

        Raises ENODEV, the policy's `bound_errno` in this order.
        """
        if not card.has_driver_type:
            raise KernelError(ENODEV, f"no driver takes type {card.hwtype}")
        if card.driver is not None:
            raise KernelError(self._bus.policy.bound_errno, f"card {card.apid:02x} is bound")
        self.bind_card(card)

    def unbind_card(self, card: ApCard) -> None:
        """Take a card from the card driver."""
        card.driver = None
        card.leave_queues(self._bus.host_driver.bound[card.apid])
        self._bus.card_driver.order.remove(card.apid)
        self._bus.zcrypt_messages.card_unregistered(card.apid)
        self._bus.kernel.devices.unbind(card)

    def bind(self, driver: QueueDriver, queue: ApQueue) -> None:
        """Bind a queue as a write to `bind` does.

        Raises ENODEV, the policy's `bound_errno`, ENODEV in this order.
        """
        card, bit = queue.card, 1 << queue.apqi
        if not card.has_driver_type:
            raise KernelError(ENODEV, f"{driver.name} takes no type {card.hwtype}")
        if queue.driver is not None:
            errno = self._bus.policy.bound_errno
            raise KernelError(errno, f"{queue.apqn} is bound to {queue.driver}")
        if not self._fitting(driver, card) & bit:
            raise KernelError(ENODEV, f"the masks do not give {queue.apqn} to {driver.name}")
        before = self._bus.unbound_count()
        self._take(driver, card, bit)
        self._finish([card.row([_bound(bit, driver)])], before)

    def unbind(self, driver: QueueDriver, queue: ApQueue) -> None:
        """Unbind a queue as a write to `unbind` does. Raises ENODEV; no driver can refuse."""
        if queue.driver != driver.name:
            raise KernelError(ENODEV, f"{queue.apqn} is not bound to {driver.name}")
        before = self._bus.unbound_count()
        steps = self._detach(driver, queue.card, 1 << queue.apqi)
        self._finish([queue.card.row(steps)], before)

    def reprobe(self, queue: ApQueue) -> None:
        """Offer a queue to the drivers as `drivers_probe` does; do nothing if it is bound."""
        if queue.driver is None:
            before = self._bus.unbound_count()
            row = queue.card.row(self._probe(queue.card, 1 << queue.apqi))
            self._finish([row], before)

    def revise(self) -> None:
        """Rebind every queue whose driver the masks no longer allow.

        The driver core walks the queues in the order of their registration. Like
        ap_bus.c:ap_bus_revise_bindings (v6.1).
        """
        before = self._bus.unbound_count()
        rows = []
        for row in self._bus.order.rows():
            rows.append(self._revise_row(row))
            self._bus.poll_round()
        self._finish(rows, before)

    def offer_all(self, driver: QueueDriver) -> None:
        """Offer every unbound queue to a driver whose module was just loaded."""
        before = self._bus.unbound_count()
        rows = [self._offered(driver, *row) for row in self._bus.order.rows()]
        self._finish(rows, before)

    def release_all(self, driver: QueueDriver) -> None:
        """Take every queue from a driver whose module is being unloaded, the newest first.

        Like drivers/base/dd.c:driver_detach (v6.1).
        """
        before = self._bus.unbound_count()
        rows = []
        for apid, mask in reversed(driver.order.rows()):
            card = self._bus.cards[apid]
            rows.append(card.row(self._detach(driver, card, mask))._replace(reverse=True))
        self._finish(rows, before)

    def add_queues(self, card: ApCard, mask: int) -> list[Step]:
        """Announce new queue devices and, if the bus probes by itself, offer them to the drivers.

        Return the steps, which the caller publishes.
        """
        self._bus.order.append(card.apid, mask)
        taken = self._probe(card, mask) if self._bus.autoprobe else []
        steps = [Step(s.mask, (ADD, *s.actions), 0, probed=True) for s in taken]
        left = mask & ~sum(step.mask for step in taken)
        return [*steps, Step(left, (ADD,), +1)] if left else steps

    def remove_queues(self, card: ApCard, mask: int) -> list[Step]:
        """Take queue devices from their drivers and remove them.

        Return the steps, which the caller publishes.
        """
        steps = []
        for driver in self._bus.queue_drivers.values():
            bound = driver.bound[card.apid] & mask
            if bound:
                self._release(driver, card, bound)
                steps.append(Step(bound, (UNBIND, REMOVE)))
        free = mask & ~sum(step.mask for step in steps)
        self._bus.order.remove(card.apid, mask)
        card.forget(mask)
        return [*steps, Step(free, (REMOVE,), -1)] if free else steps

    def change_steps(self, card: ApCard, mask: int, field: tuple[str, str]) -> list[Step]:
        """Return the steps of a uevent `change` with one field for each of these queues."""
        steps = []
        for driver in self._bus.queue_drivers.values():
            bound = driver.bound[card.apid] & mask
            mask &= ~bound
            if bound:
                steps.append(Step(bound, (Action("change", driver.name, (field,)),)))
        return [*steps, Step(mask, (Action("change", None, (field,)),))] if mask else steps

    def publish(self, rows: Sequence[Row], unbound: int) -> None:
        """Send the uevents of these rows, with a `BINDINGS=complete` where one is due.

        `unbound`: how many queues of the bus had no driver before the operation.
        """
        numbered = []
        for row in rows:
            done = row
            if self._tells_every_probe:
                done, unbound = row.numbered(unbound, self._bus.completions + 1)
                self._bus.completions += done.complete.bit_count()
            numbered.append(done)
        self._bus.rearmed |= any(step.probed for row in rows for step in row.steps)
        send(self._bus.kernel.bus, numbered)

    def check_complete(self) -> None:
        """Send `BINDINGS=complete` at the end of a scan, in kernels that do so, if it is due."""
        per_scan = self._bus.policy.bindings is BindingsEvent.PER_SCAN
        if per_scan and self._bus.scans and self._bus.rearmed:
            self._send_if_complete()

    def first_scan_done(self) -> None:
        """Send `BINDINGS=complete` after the first scan, in every kernel."""
        self._send_if_complete()

    @property
    def _tells_every_probe(self) -> bool:
        return self._bus.policy.bindings is BindingsEvent.EVERY_PROBE and self._bus.scans > 0

    def _card_probed(self) -> None:
        self._bus.rearmed = True
        if self._tells_every_probe:
            self._send_if_complete()

    def _send_if_complete(self) -> None:
        if self._bus.unbound_count():
            return
        self._bus.rearmed = False
        self._bus.completions += 1
        self._bus.kernel.bus.emit(bindings_complete(self._bus.completions))

    def _fitting(self, driver: QueueDriver, card: ApCard) -> int:
        if not card.has_driver_type:
            return 0
        return card.queues & driver.fits(self._bus.host_domains(card.apid))

    def _probe(self, card: ApCard, mask: int) -> list[Step]:
        """Offer unbound queues to the drivers; return the steps of those that were bound."""
        steps: list[Step] = []
        for driver in self._bus.queue_drivers.values():
            steps += self._offer(driver, card, mask)
        return steps

    def _offer(self, driver: QueueDriver, card: ApCard, mask: int) -> list[Step]:
        taken = self._fitting(driver, card) & mask
        if not taken:
            return []
        self._take(driver, card, taken)
        return [_bound(taken, driver)]

    def _detach(self, driver: QueueDriver, card: ApCard, mask: int) -> list[Step]:
        if not mask:
            return []
        self._release(driver, card, mask)
        return [Step(mask, (UNBIND,), +1)]

    def _revise_row(self, row: QueueRow) -> Row:
        """Rebind the queues of a row.

        A queue without driver counts as one of a driver that takes no host queues: its flags are
        read through a null pointer, from the lowcore (ap_bus.c:__ap_revise_reserved, v6.1).
        """
        card, mask = self._bus.cards[row.apid], row.mask
        host = self._bus.host_domains(card.apid)
        steps: list[Step] = []
        free = self._bus.unbound(card) & mask & host
        self._bus.messages.reprobing(card.apid, free)
        for driver in self._bus.queue_drivers.values():
            wrong = driver.bound[card.apid] & mask & ~driver.fits(host)
            if wrong:
                self._bus.messages.reprobing(card.apid, wrong)
                self._release(driver, card, wrong)
                steps.extend(_handed_over(wrong, self._probe(card, wrong)))
        steps.extend(self._probe(card, free))
        return card.row(steps)

    def _offered(self, driver: QueueDriver, apid: int, mask: int) -> Row:
        card = self._bus.cards[apid]
        return card.row(self._offer(driver, card, self._bus.unbound(card) & mask))

    def _take(self, driver: QueueDriver, card: ApCard, mask: int) -> None:
        driver.take(card.apid, mask)
        driver.owner.queues_bound(card.apid, mask)

    def _release(self, driver: QueueDriver, card: ApCard, mask: int) -> None:
        driver.owner.queues_leaving(card.apid, mask)
        driver.drop(card.apid, mask)
        # ap_queue.c:ap_queue_remove (v6.1): the next owner must find no data of this one.
        self._bus.hardware.zeroize(card.apid, mask)
        card.states.release(mask)

    def _finish(self, rows: Sequence[Row], unbound: int) -> None:
        touched = tuple(self._bus.cards[row.apid] for row in rows if row.steps)
        if touched:
            emit = self._bus.kernel.bus.emit
            emit(Changed(touched, deep=True))
            emit(Changed(tuple(self._bus.queue_drivers.values())))
        self.publish(rows, unbound)
        self._bus.poll()


def _bound(mask: int, driver: QueueDriver) -> Step:
    return Step(mask, (Action("bind", driver.name),), -1, probed=True)


def _handed_over(mask: int, taken: Sequence[Step]) -> list[Step]:
    """Return the steps of queues that lost their driver, some of which another one took."""
    steps = [Step(s.mask, (UNBIND, *s.actions), 0, probed=True) for s in taken]
    left = mask & ~sum(step.mask for step in taken)
    return [*steps, Step(left, (UNBIND,), +1)] if left else steps

"""What Linux knows of the AP bus: masks, cards, drivers. Knows no operation and no driver module.

`ApBus` (`bus.py`) owns the one `BusState` of a machine; cards, bindings and scans take it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from errno import ENODEV
from typing import Any

from fakesys.core.clock import SavedTimer, Timer
from fakesys.core.errors import KernelError
from fakesys.core.kernel import Kernel
from fakesys.core.text import format_mask
from fakesys.subsystems.ap_bus.apqn import Apqn, apid_of, apqn_of
from fakesys.subsystems.ap_bus.card import ApCard
from fakesys.subsystems.ap_bus.drivers import CardDriver, QueueDriver
from fakesys.subsystems.ap_bus.hardware import Hardware, Lpar
from fakesys.subsystems.ap_bus.messages.bus import BusMessages
from fakesys.subsystems.ap_bus.messages.zcrypt import ZcryptMessages
from fakesys.subsystems.ap_bus.module.params import ApParams
from fakesys.subsystems.ap_bus.policy import BusPolicy
from fakesys.subsystems.ap_bus.queue import ApQueue, queue_of
from fakesys.subsystems.ap_bus.queues.order import QueueOrder

DEFAULT_CONFIG_TIME = 30
DEFAULT_POLL_TIMEOUT_NS = 250_000
NO_DOMAIN = -1


class RootDevice:
    """/sys/devices/ap, the parent of all cards."""

    devpath = "/devices/ap"
    subsystem = "ap"
    driver = None

    def __init__(self, cards: Mapping[int, ApCard]) -> None:
        self.cards = cards

    def uevent_env(self) -> Mapping[str, str]:
        """Return no fields."""
        return {}

    def listed_in(self) -> Iterable[object]:
        """Return no model: this device exists as long as the machine."""
        return ()


class BusState:
    """Masks, settings, cards, drivers and counters of the bus of one machine.

    `params`: the parameters of the module, as given at boot.
    `apmask`, `aqmask`: the adapters and domains of the host. `lpar`: the machine's masks as of
    the last scan. `domain`: the default domain, NO_DOMAIN without. `autoprobe`: are new devices
    offered to the drivers? `autoscan`: does a change of the machine cause a scan?
    `scans`: scans since boot. `rearmed`: did a probe, or an addition to the machine's masks,
    happen since the last `BINDINGS=complete`? `completions`: how many of these were sent.
    `order`: the queue devices in the order of their registration. `messages`, `zcrypt_messages`:
    what the drivers say in `debug/s390dbf`.
    """

    def __init__(
        self,
        kernel: Kernel,
        hardware: Hardware,
        policy: BusPolicy,
        cards: dict[int, ApCard],
        card_driver: CardDriver,
        host_driver: QueueDriver,
        params: ApParams,
        messages: BusMessages,
        zcrypt_messages: ZcryptMessages,
    ) -> None:
        self.kernel = kernel
        self.hardware = hardware
        self.policy = policy
        self.cards = cards
        self.root = RootDevice(cards)
        self.card_driver = card_driver
        self.host_driver = host_driver
        self.queue_drivers: dict[str, QueueDriver] = {host_driver.name: host_driver}
        self.params = params
        self.messages = messages
        self.zcrypt_messages = zcrypt_messages
        self.apmask, self.aqmask = params.adapters, params.domains
        self.lpar = Lpar(0, 0, 0)
        self.domain = NO_DOMAIN
        self.config_time = DEFAULT_CONFIG_TIME
        self.poll_timeout_ns = DEFAULT_POLL_TIMEOUT_NS
        self.poll_thread = False
        self.autoprobe = True
        self.autoscan = True
        self.scans = 0
        self.rearmed = True
        self.completions = 0
        self.order = QueueOrder()
        # Whether a state machine wants to be polled, and when that happens.
        self._poll_due = False
        self._poll_timer: Timer | None = None

    @property
    def interrupts(self) -> bool:
        """Whether the bus uses the AP interrupts of the machine."""
        return self.hardware.interrupts and bool(self.params.useirq)

    def sorted_cards(self) -> list[ApCard]:
        """Return the cards by ascending adapter number."""
        return [self.cards[apid] for apid in sorted(self.cards)]

    def host_domains(self, apid: int) -> int:
        """Return the domains of an adapter that the masks give to the host."""
        return self.aqmask if self.apmask >> apid & 1 else 0

    def driver_of(self, apqn: Apqn) -> QueueDriver | None:
        """Return the driver that has a queue; None while it is unbound or absent."""
        for driver in self.queue_drivers.values():
            if driver.has(*apqn):
                return driver
        return None

    def queue(self, apqn: Apqn) -> ApQueue | None:
        """Return the queue device of an address; None when there is none."""
        card = self.cards.get(apqn.apid)
        return queue_of(card, apqn.apqi) if card else None

    def device(self, name: str) -> ApCard | ApQueue:
        """Return a card or queue device by its name. Raises ENODEV."""
        apid, apqn = apid_of(name), apqn_of(name)
        found = self.cards.get(apid) if apid is not None else None
        device = self.queue(apqn) if apqn is not None else found
        if device is None:
            raise KernelError(ENODEV, f"{name!r} is no device of the AP bus")
        return device

    def unbound(self, card: ApCard) -> int:
        """Return the domains of a card whose queues have no driver."""
        free = card.queues
        for driver in self.queue_drivers.values():
            free &= ~driver.bound[card.apid]
        return free

    def unbound_count(self) -> int:
        """Return how many queues of the bus have no driver."""
        return sum(self.unbound(card).bit_count() for card in self.cards.values())

    def want_poll(self) -> None:
        """Start the timer that polls the queues, unless it runs."""
        self._poll_due = True

    def poll(self) -> None:
        """Poll until each queue waits for something else than a poll.

        Like ap_bus.c:ap_wait, ap_tasklet_fn (v6.1). Differs: what a scan, a bind or a request
        begins is over at its end.
        """
        self.stop_polls()
        while self._wants_poll():
            self._poll_due = False
            if not self._poll_all():
                break

    def poll_later(self) -> None:
        """Let the poll timer do this after its period, or at once where that is too short to see.

        Like ap_bus.c:ap_wait with AP_SM_WAIT_LOW_TIMEOUT (v6.12).
        """
        if not self.policy.poll_seconds:
            self.poll()
        elif self._wants_poll() and self._poll_timer is None:
            self._poll_timer = self.kernel.clock.after(self.policy.poll_seconds, self._timed_poll)

    def poll_round(self) -> None:
        """Poll once if the timer runs and its period is short: an operation takes that long."""
        if not self.policy.poll_seconds and self._wants_poll():
            self._poll_due = self._poll_all()

    @property
    def poll_timer(self) -> SavedTimer | None:
        """When the queues are polled next, for a snapshot."""
        return None if self._poll_timer is None else self._poll_timer.saved

    def poll_at(self, saved: SavedTimer) -> None:
        """Start the poll timer of a snapshot. Raises BadSnapshotError."""
        self._poll_timer = self.kernel.clock.at(saved, self._timed_poll)

    def stop_polls(self) -> None:
        """Stop the poll timer: the machine is switched off."""
        if self._poll_timer is not None:
            self._poll_timer.cancel()
            self._poll_timer = None

    def _wants_poll(self) -> bool:
        # The timer runs as long as a queue has not finished its reset.
        waiting = (card.states.reset_wait | card.states.irq_wait for card in self.cards.values())
        return self._poll_due or any(waiting)

    def _timed_poll(self) -> None:
        self._poll_timer, self._poll_due = None, False
        if self._poll_all():
            self._poll_due = True
            self.poll_later()

    def _poll_all(self) -> bool:
        """Run the machines of all queues that have a driver; return whether one moved."""
        moved = False
        for card in self.cards.values():
            if not card.states.busy:
                continue
            bound = card.queues & ~self.unbound(card)
            # A queue that finishes its reset goes on at once (AP_SM_WAIT_AGAIN).
            finished = card.states.reset_wait
            if card.poll(bound):
                moved = True
                card.poll(bound & finished & card.states.irq_wait)
        return moved

    def queue_counts(self) -> tuple[int, int]:
        """Return the numbers of queue devices with a driver, and of all."""
        total = sum(card.queues.bit_count() for card in self.cards.values())
        return total - self.unbound_count(), total

    def plain(self) -> dict[str, Any]:
        """Return the state as plain data."""
        return {
            "apmask": format_mask(self.apmask),
            "aqmask": format_mask(self.aqmask),
            "autoprobe": self.autoprobe,
            "autoscan": self.autoscan,
            "bindings_complete": self.completions,
            "cards": {f"{card.apid:02x}": card.state() for card in self.sorted_cards()},
            "config_time": self.config_time,
            "domain": self.domain,
            "drivers": {name: d.state() for name, d in sorted(self.queue_drivers.items())},
            "lpar": [format_mask(mask) for mask in self.lpar],
            "poll_thread": self.poll_thread,
            "poll_timeout_ns": self.poll_timeout_ns,
            "scans": self.scans,
        }

"""The AP bus and its operations: masks, settings, scans, drivers. Knows no text and no path."""

from __future__ import annotations

from errno import EINVAL, ENODEV

from fakesys.core.clock import SavedTimer, Timer
from fakesys.core.devices import Devices
from fakesys.core.errors import KernelError
from fakesys.core.events import Changed
from fakesys.core.kernel import Kernel
from fakesys.core.text import ALL_IDS, format_mask
from fakesys.subsystems.ap_bus.apqn import Apqn
from fakesys.subsystems.ap_bus.binding import Binding
from fakesys.subsystems.ap_bus.card import ApCard
from fakesys.subsystems.ap_bus.drivers import (
    HOST_QUEUE_DRIVER,
    ZCRYPT_MODULE,
    CardDriver,
    QueueDriver,
)
from fakesys.subsystems.ap_bus.hardware import Hardware
from fakesys.subsystems.ap_bus.messages.bus import BusMessages
from fakesys.subsystems.ap_bus.messages.zcrypt import ZcryptMessages
from fakesys.subsystems.ap_bus.module.params import ApParams
from fakesys.subsystems.ap_bus.policy import BusPolicy
from fakesys.subsystems.ap_bus.queue import ApQueue
from fakesys.subsystems.ap_bus.queues.answers import NORMAL
from fakesys.subsystems.ap_bus.scan import follow_hardware, scan
from fakesys.subsystems.ap_bus.state import NO_DOMAIN, BusState
from fakesys.subsystems.ap_bus.zcrypt import Zcrypt
from fakesys.subsystems.s390dbf.model import DebugFeatures

MAX_POLL_TIMEOUT_NS = 120_000_000_000


class ApBus:
    """The bus of one machine. `scan` looks at the hardware, everything else at the last scan."""

    def __init__(
        self,
        kernel: Kernel,
        hardware: Hardware,
        policy: BusPolicy,
        params: ApParams | None = None,
        debug: DebugFeatures | None = None,
    ) -> None:
        cards: dict[int, ApCard] = {}
        debug = debug or DebugFeatures(kernel)
        messages = BusMessages(debug)
        self.zcrypt = Zcrypt(lambda: self.state, self.rescan, ZcryptMessages(debug))
        host = QueueDriver(
            self, HOST_QUEUE_DRIVER, ZCRYPT_MODULE, self.zcrypt, takes_host_queues=True
        )
        self.state = BusState(
            kernel,
            hardware,
            policy,
            cards,
            CardDriver(self),
            host,
            params or ApParams(),
            messages,
            self.zcrypt.messages,
        )
        self._binding = Binding(self.state)
        self._scanning = False
        self._timer: Timer | None = None
        hardware.on_change = self.machine_changed
        hardware.on_facilities = self.facilities_changed

    @property
    def devices(self) -> Devices:
        """The driver core."""
        return self.state.kernel.devices

    @property
    def autoprobe(self) -> bool:
        """Whether new devices are offered to the drivers."""
        return self.state.autoprobe

    @autoprobe.setter
    def autoprobe(self, autoprobe: bool) -> None:
        self.state.autoprobe = autoprobe

    def start(self) -> None:
        """Follow the parameters, run the first scan, and start the timer of the following ones.

        Like ap_bus.c:ap_module_init (v6.1).
        """
        domain = self.state.params.domain
        if self._is_domain(domain):
            self.state.domain = domain
        elif domain != NO_DOMAIN:
            self.state.kernel.log(f"ap: {domain} is not a valid cryptographic domain")
        self.set_poll_thread(bool(self.state.params.poll_thread))
        self.scan()

    @property
    def next_scan(self) -> SavedTimer | None:
        """When the next scan is due, for a snapshot; None while the bus is stopped."""
        return None if self._timer is None else self._timer.saved

    def start_at(self, saved: SavedTimer) -> None:
        """Start the timer of the scans in place of `start`. Raises BadSnapshotError."""
        self._timer = self.state.kernel.clock.at(saved, self._periodic)

    def stop(self) -> None:
        """Stop the timer of the scans: the machine is switched off."""
        self._stop_timer()
        self.state.stop_polls()

    def scan(self) -> bool:
        """Run one complete scan; return whether the machine's masks changed since the last one.

        The next one by itself follows after the whole period.
        """
        self._scanning = True
        try:
            changed = scan(self.state, self._binding)
        finally:
            self._scanning = False
        self._restart_timer()
        return changed

    def use(self, policy: BusPolicy) -> None:
        """Behave like another kernel: make the devices that it would have made.

        This is no scan: it is not counted, and drivers are not told of the machine's masks.
        """
        self.state.policy = policy
        follow_hardware(self.state, self._binding)

    def rescan(self) -> bool:
        """Scan as a write to `scans` does; do nothing before or within the first scan.

        Return whether the machine's masks changed. Like ap_bus.c:ap_bus_force_rescan (v6.12).
        """
        return bool(self.state.scans) and not self._scanning and self.scan()

    def rescan_for_user(self) -> None:
        """Scan because a user wants it. Like ap_bus.c:scans_store (v6.1)."""
        self.state.messages.rescan_forced()
        self.rescan()

    def machine_changed(self) -> None:
        """React to the machine's notification. Like ap_bus.c:ap_bus_cfg_chg (v6.1).

        Requests that wait for a queue which answers again are done at once.
        """
        for card in self.state.cards.values():
            if card.waiting:
                card.flush(self.state.hardware.by_answer(card.apid, ALL_IDS).get(NORMAL, 0))
        self.state.poll()
        if self.state.autoscan:
            self.state.messages.config_changed()
            self.rescan()

    def facilities_changed(self) -> None:
        """Be as if the machine had been booted with the facilities that it has now.

        Queues that were initiated are initiated again, as their interrupts depend on these.
        """
        for card in self.state.cards.values():
            card.start(card.states.operating)
        if self.state.scans:
            follow_hardware(self.state, self._binding)
        for driver in self.state.queue_drivers.values():
            driver.owner.facilities_changed()
        self.state.poll()

    def set_domain(self, domain: int) -> None:
        """Set the default domain. Raises EINVAL. Like ap_bus.c:ap_domain_store (v6.1)."""
        if not self._is_domain(domain):
            highest = self.state.hardware.highest_domain
            raise KernelError(EINVAL, f"{domain} is not a domain of the host within 0-{highest}")
        self.state.domain = domain
        self.state.messages.domain_stored(domain)

    def set_config_time(self, seconds: int) -> None:
        """Set the period of the scans and restart their timer. Raises EINVAL outside 5-120."""
        if not 5 <= seconds <= 120:
            raise KernelError(EINVAL, f"{seconds} is not within 5-120")
        self.state.config_time = seconds
        self._restart_timer()

    def set_poll_timeout(self, nanoseconds: int, lowest: int) -> None:
        """Set the period of the poll timer. Raises EINVAL below `lowest` or above 120 s."""
        if not lowest <= nanoseconds <= MAX_POLL_TIMEOUT_NS:
            raise KernelError(EINVAL, f"not within {lowest}-{MAX_POLL_TIMEOUT_NS}")
        self.state.poll_timeout_ns = nanoseconds

    def set_poll_thread(self, run: bool) -> None:
        """Start or stop the poll thread; with AP interrupts it never starts.

        Like ap_bus.c:ap_poll_thread_start (v6.1).
        """
        self.state.poll_thread = run and not self.state.interrupts

    def set_apmask(self, apmask: int) -> None:
        """Set the adapters of the host and rebind the queues that this moves.

        Raises the policy's `veto_errno`, with nothing changed, when a driver refuses. Drivers
        are asked only if the host gains an adapter.
        """
        if apmask == self.state.apmask:
            return
        if apmask & ~self.state.apmask:
            self._refuse_queues_in_use(apmask, self.state.aqmask)
        self.state.apmask = apmask
        self._masks_changed("apmask", apmask)

    def set_aqmask(self, aqmask: int) -> None:
        """Set the domains of the host; otherwise like `set_apmask`."""
        if aqmask == self.state.aqmask:
            return
        if aqmask & ~self.state.aqmask:
            self._refuse_queues_in_use(self.state.apmask, aqmask)
        self.state.aqmask = aqmask
        self._masks_changed("aqmask", aqmask)

    def bind(self, driver: QueueDriver | CardDriver, name: str) -> None:
        """Bind a device by name, as a driver's `bind` does. Raises ENODEV, EBUSY."""
        device = self.state.device(name)
        if isinstance(driver, QueueDriver) and isinstance(device, ApQueue):
            self._binding.bind(driver, device)
        elif isinstance(driver, CardDriver) and isinstance(device, ApCard):
            self._binding.bind_card_by_hand(device)
        else:
            raise KernelError(ENODEV, f"{driver.name} takes no such device as {name}")

    def unbind(self, driver: QueueDriver | CardDriver, name: str) -> None:
        """Unbind a device by name, as a driver's `unbind` does. Raises ENODEV."""
        device = self.state.device(name)
        if isinstance(driver, QueueDriver) and isinstance(device, ApQueue):
            self._binding.unbind(driver, device)
        elif isinstance(device, ApCard) and device.driver == driver.name:
            self._binding.unbind_card(device)
        else:
            raise KernelError(ENODEV, f"{name} is not bound to {driver.name}")

    def probe(self, name: str) -> None:
        """Offer a device to the drivers, as `drivers_probe` does. Raises ENODEV if unknown."""
        device = self.state.device(name)
        if isinstance(device, ApQueue):
            self._binding.reprobe(device)
        else:
            self._binding.offer_card(device)

    def register(self, driver: QueueDriver) -> None:
        """Add the queue driver of a module that was loaded, and offer it the unbound queues."""
        self.state.queue_drivers[driver.name] = driver
        self.state.kernel.bus.emit(Changed((self,)))
        if self.state.autoprobe:
            self._binding.offer_all(driver)
        self.devices.announce("add", f"/bus/ap/drivers/{driver.name}", "drivers")
        self._binding.check_complete()

    def unregister(self, driver: QueueDriver) -> None:
        """Take all queues from a driver and remove it: its module is being unloaded."""
        self._binding.release_all(driver)
        del self.state.queue_drivers[driver.name]
        self.state.kernel.bus.emit(Changed((self,)))
        self.devices.announce("remove", f"/bus/ap/drivers/{driver.name}", "drivers")

    def register_host_drivers(self) -> None:
        """Add the host's drivers of cards and queues, and offer them what is unbound.

        Like zcrypt_cex4.c:zcrypt_cex4_init (v6.1).
        """
        self.state.card_driver.registered = True
        self.state.kernel.bus.emit(Changed((self,)))
        if self.state.autoprobe:
            for card in self.state.sorted_cards():
                self._binding.offer_card(card)
        self.devices.announce("add", "/bus/ap/drivers/cex4card", "drivers")
        self.register(self.state.host_driver)

    def unregister_host_drivers(self) -> None:
        """Take all queues and cards from the host's drivers and remove these.

        Like zcrypt_cex4.c:zcrypt_cex4_exit (v6.1).
        """
        self.unregister(self.state.host_driver)
        for apid in reversed(list(self.state.card_driver.order)):
            self._binding.unbind_card(self.state.cards[apid])
        self.state.card_driver.registered = False
        self.state.kernel.bus.emit(Changed((self,)))
        self.devices.announce("remove", "/bus/ap/drivers/cex4card", "drivers")

    def submit(self, apqn: Apqn, count: int) -> None:
        """Send `count` requests of the host to a queue.

        Raises ENODEV when the card has no device, or the queue is not the host's or not online.
        """
        if apqn.apid not in self.state.cards:
            raise KernelError(ENODEV, f"card {apqn.apid:02x} has no device")
        queue = self.state.queue(apqn)
        if queue is None or not queue.is_host or not queue.online:
            raise KernelError(ENODEV, "the queue is not online under the host's driver")
        queue.submit(count)

    def _is_domain(self, domain: int) -> bool:
        highest = self.state.hardware.highest_domain
        return 0 <= domain <= highest and bool(self.state.aqmask >> domain & 1)

    def _refuse_queues_in_use(self, apmask: int, aqmask: int) -> None:
        for driver in self.state.queue_drivers.values():
            if driver.owner.in_use(apmask, aqmask):
                why = f"{driver.name} has given queues of the new masks to a mediated device"
                raise KernelError(self.state.policy.veto_errno, why)

    def _masks_changed(self, name: str, mask: int) -> None:
        self._binding.revise()
        # Like ap_bus.c:ap_send_mask_changed_uevent (v6.1), with the newline.
        self.devices.change(self.state.root, {name.upper(): f"{format_mask(mask)}\n"})

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _restart_timer(self) -> None:
        self._stop_timer()
        self._timer = self.state.kernel.clock.after(self.state.config_time, self._periodic)

    def _periodic(self) -> None:
        self.scan()

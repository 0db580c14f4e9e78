"""The AP bus: masks, settings, cards and drivers. Knows no text and no path of a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from errno import EBUSY, EINVAL, ENODEV
from typing import Any

from fakesys.core.clock import Timer
from fakesys.core.errors import KernelError
from fakesys.core.events import Changed, Touched
from fakesys.core.kernel import Kernel
from fakesys.core.text import ALL_IDS, format_mask, ids
from fakesys.subsystems.ap_bus.apqn import Apqn, apid_of, apqn_of
from fakesys.subsystems.ap_bus.binding import Binding
from fakesys.subsystems.ap_bus.card import ApCard
from fakesys.subsystems.ap_bus.drivers import CardDriver, QueueDriver
from fakesys.subsystems.ap_bus.hardware import Hardware, Lpar
from fakesys.subsystems.ap_bus.policy import BusPolicy
from fakesys.subsystems.ap_bus.queue import ApQueue
from fakesys.subsystems.ap_bus.scan import follow_hardware, lowest_usable_domain, scan
from fakesys.subsystems.ap_bus.zcrypt import Zcrypt

DEFAULT_CONFIG_TIME = 30
DEFAULT_POLL_TIMEOUT_NS = 250_000
MAX_POLL_TIMEOUT_NS = 120_000_000_000
NO_DOMAIN = -1


class RootDevice:
    """/sys/devices/ap, the parent of all cards."""

    devpath = "/devices/ap"
    subsystem = "ap"
    driver = None

    def __init__(self, bus: ApBus) -> None:
        self.bus = bus

    def uevent_env(self) -> Mapping[str, str]:
        """No fields of its own."""
        return {}

    def listed_in(self) -> Iterable[object]:
        """Nowhere: it never comes or goes."""
        return ()


class ApBus:
    """The bus of one machine. `scan` looks at the hardware, everything else at the last scan."""

    def __init__(self, kernel: Kernel, hardware: Hardware, policy: BusPolicy) -> None:
        self.kernel = kernel
        self.hardware = hardware
        self.policy = policy
        self.root = RootDevice(self)
        self.cards: dict[int, ApCard] = {}
        self.apmask = ALL_IDS
        self.aqmask = ALL_IDS
        self.lpar = Lpar(0, 0, 0)
        self.domain = NO_DOMAIN
        self.config_time = DEFAULT_CONFIG_TIME
        self.poll_timeout_ns = DEFAULT_POLL_TIMEOUT_NS
        self.poll_thread = False
        self.scans = 0
        self.autoprobe = True
        # Do events of the machine cause a scan at once?
        self.autoscan = True
        self.card_driver = CardDriver(self)
        self.host_driver = QueueDriver(
            self, "cex4queue", "zcrypt_cex4", Zcrypt(self), takes_host_queues=True
        )
        self.queue_drivers: dict[str, QueueDriver] = {"cex4queue": self.host_driver}
        self.binding = Binding(self)
        self._timer: Timer | None = None
        hardware.on_change = self.machine_changed

    def start(self) -> None:
        """What happens at boot: the first scan, then one every `config_time` seconds."""
        self.scan()
        self._restart_timer()

    def stop(self) -> None:
        """The machine is switched off: no more scans."""
        if self._timer is not None:
            self._timer.cancel()

    def scan(self) -> None:
        """One complete scan."""
        scan(self)

    def follow_policy(self) -> None:
        """Another kernel: make the devices that it would have made, outside of any scan."""
        follow_hardware(self)

    def rescan(self) -> None:
        """What `scans` does; nothing before the first scan."""
        if self.scans:
            self.scan()

    def machine_changed(self) -> None:
        """The machine tells of a change of its configuration. Like ap_bus.c:ap_bus_cfg_chg."""
        for card in self.cards.values():
            if card.waiting:
                card.wake(self.hardware.by_answer(card.apid, ALL_IDS).get(0, 0))
        if self.autoscan:
            self.rescan()

    def pick_domain(self) -> None:
        """Choose a default domain while there is none."""
        if self.domain == NO_DOMAIN:
            self.domain = lowest_usable_domain(self)

    def set_domain(self, domain: int) -> None:
        """Choose the default domain. Raises EINVAL. Like ap_bus.c:ap_domain_store (v6.1)."""
        highest = self.hardware.max_domain_id
        if not 0 <= domain <= highest or not self.aqmask >> domain & 1:
            raise KernelError(EINVAL, f"{domain} is not a domain of the host within 0-{highest}")
        self.domain = domain

    def set_config_time(self, seconds: int) -> None:
        """The period of the scan. Raises EINVAL outside 5-120; the timer starts anew."""
        if not 5 <= seconds <= 120:
            raise KernelError(EINVAL, f"{seconds} is not within 5-120")
        self.config_time = seconds
        self._restart_timer()

    def set_poll_timeout(self, nanoseconds: int, lowest: int) -> None:
        """The period of the high resolution poll timer. Raises EINVAL."""
        if not lowest <= nanoseconds <= MAX_POLL_TIMEOUT_NS:
            raise KernelError(EINVAL, f"not within {lowest}-{MAX_POLL_TIMEOUT_NS}")
        self.poll_timeout_ns = nanoseconds

    def set_poll_thread(self, run: bool) -> None:
        """Start or stop it; with interrupts there is none to start (ap_poll_thread_start)."""
        self.poll_thread = run and not self.hardware.interrupts

    def set_apmask(self, apmask: int) -> None:
        """Change which adapters are the host's. Raises the veto's errno and changes nothing."""
        if apmask == self.apmask:
            return
        if apmask & ~self.apmask:
            self._ask_drivers(apmask, self.aqmask)
        self.apmask = apmask
        self._masks_changed("apmask", apmask)

    def set_aqmask(self, aqmask: int) -> None:
        """Change which domains are the host's. Raises the veto's errno and changes nothing."""
        if aqmask == self.aqmask:
            return
        if aqmask & ~self.aqmask:
            self._ask_drivers(self.apmask, aqmask)
        self.aqmask = aqmask
        self._masks_changed("aqmask", aqmask)

    def owned_by_host(self, apid: int, aqm: int) -> int:
        """Which of these domains of an adapter the masks give to the host."""
        return self.binding.host_row(apid) & aqm

    def driver_of(self, apqn: Apqn) -> QueueDriver | None:
        """The driver that has a queue; None while it is unbound or absent."""
        for driver in self.queue_drivers.values():
            if driver.bound[apqn.apid] >> apqn.apqi & 1:
                return driver
        return None

    def queue(self, apqn: Apqn) -> ApQueue | None:
        """The queue device of an address; None when there is none."""
        card = self.cards.get(apqn.apid)
        return card.queue(apqn.apqi) if card else None

    def queue_addresses(self) -> Iterable[Apqn]:
        """The addresses of all queue devices, ascending."""
        for apid in sorted(self.cards):
            for apqi in ids(self.cards[apid].queues):
                yield Apqn(apid, apqi)

    def device(self, name: str) -> ApCard | ApQueue:
        """A device by its name. Raises ENODEV."""
        apid, apqn = apid_of(name), apqn_of(name)
        found = self.cards.get(apid) if apid is not None else None
        device = self.queue(apqn) if apqn is not None else found
        if device is None:
            raise KernelError(ENODEV, f"{name!r} is no device of the AP bus")
        return device

    def queue_counts(self) -> tuple[int, int]:
        """Queue devices with a driver, and all."""
        total = sum(card.queues.bit_count() for card in self.cards.values())
        return total - self.binding.unbound_count(), total

    def bind(self, driver: QueueDriver | CardDriver, name: str) -> None:
        """What a driver's `bind` does. Raises ENODEV, EBUSY."""
        device = self.device(name)
        if isinstance(driver, QueueDriver) and isinstance(device, ApQueue):
            self.binding.bind(driver, device)
        elif isinstance(driver, CardDriver) and isinstance(device, ApCard):
            self._bind_card_by_hand(device)
        else:
            raise KernelError(ENODEV, f"{driver.name} takes no such device as {name}")

    def unbind(self, driver: QueueDriver | CardDriver, name: str) -> None:
        """What a driver's `unbind` does. Raises ENODEV."""
        device = self.device(name)
        if isinstance(driver, QueueDriver) and isinstance(device, ApQueue):
            self.binding.unbind(driver, device)
        elif isinstance(device, ApCard) and device.driver == driver.name:
            self.unbind_card(device)
        else:
            raise KernelError(ENODEV, f"{name} is not bound to {driver.name}")

    def probe(self, name: str) -> None:
        """What `drivers_probe` does. Raises ENODEV for an unknown device."""
        device = self.device(name)
        if isinstance(device, ApQueue):
            self.binding.reprobe(device)
        elif device.driver is None and device.has_driver_type:
            self.bind_card(device)

    def bind_card(self, card: ApCard) -> None:
        """A card gets its driver, and is online with it."""
        card.driver = self.card_driver.name
        card.soft_online = True
        self.card_driver.bound |= 1 << card.apid
        self.binding.card_probed()
        self.kernel.devices.bind(card)

    def unbind_card(self, card: ApCard) -> None:
        """A card loses its driver."""
        card.driver = None
        self.card_driver.bound &= ~(1 << card.apid)
        self.kernel.devices.unbind(card)

    def register(self, driver: QueueDriver) -> None:
        """A module with a queue driver is loaded: it gets the free queues that fit."""
        self.queue_drivers[driver.name] = driver
        self.kernel.bus.emit(Changed((self,)))
        if self.autoprobe:
            self.binding.offer_all(driver)

    def unregister(self, driver: QueueDriver) -> None:
        """The module is unloaded: its queues are free."""
        self.binding.release_all(driver)
        del self.queue_drivers[driver.name]
        self.kernel.bus.emit(Changed((self,)))

    def state(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "apmask": format_mask(self.apmask),
            "aqmask": format_mask(self.aqmask),
            "autoprobe": self.autoprobe,
            "autoscan": self.autoscan,
            "bindings_complete": self.binding.completions,
            "cards": {f"{apid:02x}": self.cards[apid].state() for apid in sorted(self.cards)},
            "config_time": self.config_time,
            "domain": self.domain,
            "drivers": {name: d.state() for name, d in sorted(self.queue_drivers.items())},
            "lpar": [format_mask(mask) for mask in self.lpar],
            "poll_thread": self.poll_thread,
            "poll_timeout_ns": self.poll_timeout_ns,
            "scans": self.scans,
        }

    def _bind_card_by_hand(self, card: ApCard) -> None:
        if not card.has_driver_type:
            raise KernelError(ENODEV, f"no driver takes type {card.hwtype}")
        if card.driver is not None:
            raise KernelError(EBUSY, f"card {card.apid:02x} is bound")
        self.bind_card(card)

    def _ask_drivers(self, apmask: int, aqmask: int) -> None:
        for driver in self.queue_drivers.values():
            if driver.owner.in_use(apmask, aqmask):
                why = f"{driver.name} has given queues of the new masks to a mediated device"
                raise KernelError(self.policy.veto_errno, why)

    def _masks_changed(self, name: str, mask: int) -> None:
        self.kernel.bus.emit(Touched(self, (name,)))
        self.binding.revise()
        self.kernel.devices.change(self.root, {name.upper(): format_mask(mask)})

    def _restart_timer(self) -> None:
        self.stop()
        self._timer = self.kernel.clock.after(self.config_time, self._periodic)

    def _periodic(self) -> None:
        self.scan()
        self._restart_timer()

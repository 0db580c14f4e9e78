"""A card device: what the bus knows of an adapter and, as masks, of all its queues."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from errno import EINVAL, ENODEV
from typing import TYPE_CHECKING, Any

from fakesys.core.errors import KernelError
from fakesys.core.text import ALL_IDS, format_mask
from fakesys.subsystems.ap_bus.apqn import BitCounter
from fakesys.subsystems.ap_bus.hardware import CardMode, CardSpec
from fakesys.subsystems.ap_bus.queue import ApQueue
from fakesys.subsystems.ap_bus.queue_states import QueueStates

if TYPE_CHECKING:
    from fakesys.subsystems.ap_bus.bus import ApBus

# ap_card.c:ap_card_create (v6.1): bytes when the card does not say.
DEFAULT_MAX_MSG_SIZE = 12288
PAGE = 4096
# Types below CEX4 have no driver here.
FIRST_TYPE_WITH_DRIVER = 10
CARD_DRIVER = "cex4card"


class ApCard:
    """One card device. State of a queue is a bit in a mask, or an entry of a sparse mapping."""

    subsystem = "ap"

    def __init__(self, bus: ApBus, spec: CardSpec, *, config: bool, chkstop: bool) -> None:
        self.bus = bus
        self.spec = spec
        self.config = config
        self.chkstop = chkstop
        self.driver: str | None = None
        self.soft_online = True
        self.requests = 0
        # Masks of domains: which have a device, are configured off, checkstopped, set offline.
        self.queues = 0
        self.deconfigured = 0
        self.checkstopped = 0
        self.offline = 0
        self.states = QueueStates()
        # How often each queue device was made; tells a new one from its predecessor.
        self.plugs = BitCounter()
        self.queue_requests: dict[int, int] = {}
        self.waiting: dict[int, int] = {}

    @property
    def apid(self) -> int:
        """Adapter number."""
        return self.spec.id

    @property
    def devpath(self) -> str:
        """Path below /sys."""
        return f"/devices/ap/card{self.apid:02x}"

    @property
    def hwtype(self) -> int:
        """The type that Linux works with."""
        return self.spec.hwtype

    @property
    def mode(self) -> CardMode:
        """Accelerator, CCA or EP11 coprocessor."""
        return self.spec.mode

    @property
    def has_driver_type(self) -> bool:
        """Does any driver take cards and queues of this type?"""
        return self.hwtype >= FIRST_TYPE_WITH_DRIVER

    @property
    def max_msg_size(self) -> int:
        """Longest message in bytes."""
        return self.spec.ml * PAGE or DEFAULT_MAX_MSG_SIZE

    @property
    def usable(self) -> bool:
        """May it be online?"""
        return self.bus.policy.usable(config=self.config, checkstop=self.chkstop)

    @property
    def online(self) -> bool:
        """Does it take requests?"""
        return self.soft_online and self.usable

    def uevent_env(self) -> Mapping[str, str]:
        """Like ap_bus.c:ap_uevent (v6.1)."""
        return {
            "DEVTYPE": "ap_card",
            **({"DRIVER": self.driver} if self.driver else {}),
            "DEV_TYPE": f"{self.hwtype:04X}",
            "MODALIAS": f"ap:t{self.hwtype:02X}",
            "MODE": str(self.mode),
        }

    def listed_in(self) -> Iterable[object]:
        """The root device, the bus and the card driver."""
        return (self.bus.root, self.bus, self.bus.card_driver)

    def queue(self, apqi: int) -> ApQueue | None:
        """The queue device of a domain; None when there is none."""
        if not self.queues >> apqi & 1:
            return None
        return ApQueue(self, apqi, self.plugs.count(apqi))

    def start(self, mask: int) -> None:
        """Initiate these queues for the host. Like ap_queue.c:ap_queue_init_state (v6.1)."""
        self.states.operating |= mask
        self.restart(mask)

    def restart(self, mask: int) -> None:
        """Begin with a reset of these queues."""
        self.states.reset_started |= mask
        self.poll(mask)

    def poll(self, mask: int) -> None:
        """Run the state machines of these queues."""
        hardware = self.bus.hardware
        runnable = mask & ~(self.deconfigured | self.checkstopped)
        done = self.states.poll(runnable, interrupts=hardware.interrupts)
        hardware.set_irq(self.apid, done, on=hardware.interrupts)

    def configure(self, config: bool) -> None:
        """Switch the card on or off. Raises EOPNOTSUPP, EIO; says so even if nothing changes.

        Like ap_card.c:config_store (v6.1).
        """
        if config != self.config:
            self.bus.hardware.configure(self.apid, config)
        self.config = config
        self.tell("CONFIG", config)
        self.bus.machine_changed()

    def set_online(self, online: bool) -> None:
        """Set the card and all its host queues. Raises ENODEV. Like zcrypt_card.c:online_store."""
        if online and not self.usable:
            raise KernelError(ENODEV, f"card {self.apid:02x} cannot work now")
        self.soft_online = online
        self.tell("ONLINE", online)
        host = self.bus.host_driver.bound[self.apid]
        changing = host & (self.offline if online else ~self.offline)
        self.offline ^= changing
        if not online:
            self.flush(changing)
        self.bus.binding.tell_queues(self, changing, ("ONLINE", str(int(online))))

    def clear_requests(self) -> None:
        """Count the requests of the card and its queues from zero."""
        self.requests = 0
        self.queue_requests.clear()

    def flush(self, mask: int) -> None:
        """Pending requests of these queues end with an error."""
        if not self.waiting:
            return
        self.waiting = {apqi: n for apqi, n in self.waiting.items() if not mask >> apqi & 1}

    def wake(self, mask: int) -> None:
        """These queues answer again: pending requests are done."""
        self.flush(mask)

    def forget(self, mask: int) -> None:
        """These queue devices are gone, with all that was known of them."""
        keep = ALL_IDS & ~mask
        self.queues &= keep
        self.deconfigured &= keep
        self.checkstopped &= keep
        self.offline &= keep
        self.flush(mask)
        if self.queue_requests:
            counts = self.queue_requests.items()
            self.queue_requests = {apqi: n for apqi, n in counts if keep >> apqi & 1}

    def tell(self, key: str, value: bool) -> None:
        """Uevent `change` of the card with one field."""
        self.bus.kernel.devices.change(self, {key: str(int(value))})

    def submit(self, apqi: int, count: int) -> None:
        """`count` requests of the host to a queue. Raises ENODEV when it takes none."""
        queue = self.queue(apqi)
        if queue is None or queue.driver != self.bus.host_driver.name or not queue.online:
            raise KernelError(ENODEV, "the queue is not online under the host's driver")
        self.queue_requests[apqi] = self.queue_requests.get(apqi, 0) + count
        self.requests += count
        self.poll(1 << apqi)
        if self.bus.hardware.is_busy(queue.apqn):
            self.waiting[apqi] = self.waiting.get(apqi, 0) + count

    def state(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "checkstopped": format_mask(self.checkstopped),
            "chkstop": self.chkstop,
            "config": self.config,
            "deconfigured": format_mask(self.deconfigured),
            "driver": self.driver,
            "offline": format_mask(self.offline),
            "plugs": self.plugs.state(),
            "queue_requests": {f"{n:04x}": self.queue_requests[n] for n in self.queue_requests},
            "queues": format_mask(self.queues),
            "requests": self.requests,
            "soft_online": self.soft_online,
            "states": self.states.state(),
            "waiting": {f"{n:04x}": self.waiting[n] for n in self.waiting},
        }


def zero_or_one(number: int) -> bool:
    """A switch. Raises EINVAL for other numbers."""
    if number not in (0, 1):
        raise KernelError(EINVAL, f"{number} is neither 0 nor 1")
    return number == 1

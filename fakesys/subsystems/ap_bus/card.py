"""A card device: what the bus knows of an adapter and, as masks, of all its queues."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from errno import ENODEV
from typing import Any, Protocol

from fakesys.core.devices import Devices
from fakesys.core.errors import KernelError
from fakesys.core.kernel import Kernel
from fakesys.core.text import ALL_IDS, format_mask
from fakesys.subsystems.ap_bus.apqn import Apqn, BitCounter
from fakesys.subsystems.ap_bus.drivers import OLDEST_TYPE_WITH_DRIVER, CardDriver, QueueDriver
from fakesys.subsystems.ap_bus.hardware import Hardware
from fakesys.subsystems.ap_bus.hardware_spec import CardMode, CardSpec
from fakesys.subsystems.ap_bus.messages.bus import BusMessages
from fakesys.subsystems.ap_bus.messages.zcrypt import ZcryptMessages
from fakesys.subsystems.ap_bus.policy import BusPolicy
from fakesys.subsystems.ap_bus.queues.states import QueueStates
from fakesys.subsystems.ap_bus.uevents import Action, Row, Step, send

# ap_card.c:ap_card_create (v6.1): bytes when the card does not say.
DEFAULT_MAX_MSG_SIZE = 12288
PAGE = 4096


class CardBus(Protocol):
    """What a card needs of the bus that it is on."""

    @property
    def kernel(self) -> Kernel:
        """The kernel, for uevents."""

    @property
    def hardware(self) -> Hardware:
        """The installed hardware, which the card's state machines talk to."""

    @property
    def policy(self) -> BusPolicy:
        """The choices of the kernel."""

    @property
    def messages(self) -> BusMessages:
        """What the bus says in `debug/s390dbf`."""

    @property
    def zcrypt_messages(self) -> ZcryptMessages:
        """What zcrypt says there."""

    @property
    def interrupts(self) -> bool:
        """Whether the bus uses AP interrupts."""

    @property
    def root(self) -> object:
        """The device that is the parent of all cards."""

    @property
    def card_driver(self) -> CardDriver:
        """The driver of cards."""

    @property
    def host_driver(self) -> QueueDriver:
        """The driver of the host's queues."""

    def driver_of(self, apqn: Apqn) -> QueueDriver | None:
        """Return the driver that has a queue; None while it is unbound."""

    def want_poll(self) -> None:
        """Start the timer that polls the queues of all cards."""

    def poll(self) -> None:
        """Run the state machines of all queues until they wait for something else than a poll."""

    def poll_later(self) -> None:
        """Do this after the period of the poll timer."""


class ApCard:
    """One card device. A fact about a queue is a bit in a mask, or an entry of a sparse mapping.

    `config`, `chkstop`: configured, checkstopped, as of the last scan. `queues`, `deconfigured`,
    `checkstopped`, `offline`: the domains whose queue exists, is configured off, is checkstopped,
    was set offline. `requests`: of the host, since they were cleared; `queue_requests`: the same
    per domain. `waiting`: requests per domain that wait because the queue is busy.

    `left`: the queues of the host that were bound while the card had lost its driver, or before:
    zcrypt knows them by a card that is gone, so they get nothing of this one until they are bound
    again. `left_offline`: those of them whose earlier card was offline.
    """

    subsystem = "ap"

    def __init__(self, bus: CardBus, spec: CardSpec, *, config: bool, chkstop: bool) -> None:
        self.bus = bus
        self.spec = spec
        self.config = config
        self.chkstop = chkstop
        self.driver: str | None = None
        self.soft_online = True
        self.requests = 0
        self.queues = 0
        self.deconfigured = 0
        self.checkstopped = 0
        self.offline = 0
        self.left = 0
        self.left_offline = 0
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
    def hardware(self) -> Hardware:
        """The hardware that the card and its queues belong to."""
        return self.bus.hardware

    @property
    def policy(self) -> BusPolicy:
        """The choices of the kernel."""
        return self.bus.policy

    @property
    def devices(self) -> Devices:
        """The driver core, which sends the uevents of the card and its queues."""
        return self.bus.kernel.devices

    @property
    def has_driver_type(self) -> bool:
        """Whether there is a driver for cards and queues of this type."""
        return self.hwtype >= OLDEST_TYPE_WITH_DRIVER

    @property
    def max_msg_size(self) -> int:
        """Longest message in bytes."""
        return self.spec.ml * PAGE or DEFAULT_MAX_MSG_SIZE

    @property
    def usable(self) -> bool:
        """Whether the card may be online."""
        return self.policy.usable(config=self.config, checkstop=self.chkstop)

    @property
    def online(self) -> bool:
        """Whether the card takes requests."""
        return self.soft_online and self.usable

    def uevent_env(self) -> Mapping[str, str]:
        """Return the fields of the card's uevents. Like ap_bus.c:ap_uevent (v6.1)."""
        return {
            "DEVTYPE": "ap_card",
            **({"DRIVER": self.driver} if self.driver else {}),
            "DEV_TYPE": f"{self.hwtype:04X}",
            "MODALIAS": f"ap:t{self.hwtype:02X}",
            "MODE": str(self.mode),
        }

    def listed_in(self) -> Iterable[object]:
        """Return the models whose directories list cards: root device, bus, card driver."""
        return (self.bus.root, self.bus, self.bus.card_driver)

    def queue_driver(self, apqi: int) -> QueueDriver | None:
        """Return the driver that has the queue of a domain; None while it is unbound."""
        return self.bus.driver_of(Apqn(self.apid, apqi))

    def start(self, mask: int) -> None:
        """Initiate these queues. Like ap_queue.c:ap_queue_init_state (v6.1)."""
        self.states.operate(mask)
        self.poke(mask)

    def restart(self, mask: int) -> None:
        """Begin a reset of these queues, which goes on where it can."""
        self.states.begin_reset(mask)
        self.poke(mask)

    def poke(self, mask: int) -> None:
        """Do one step of the state machines of these queues, and have them polled if they wait."""
        if self.poll(mask):
            self.bus.want_poll()

    def poll(self, mask: int) -> bool:
        """Do one step of the state machines of these queues, as far as they are configured.

        Return whether any of them is in another state now.
        """
        states = self.states
        runnable = mask & ~(self.deconfigured | self.checkstopped) & states.initiated & states.busy
        if not runnable:
            return False
        answers = self.hardware.by_answer(self.apid, runnable)
        steps = states.poll(runnable, answers, interrupts=self.bus.interrupts)
        if steps.reset:
            self.hardware.reset(self.apid, steps.reset)
        if steps.enabled:
            self.hardware.set_irq(self.apid, steps.enabled, on=True)
        for function, mask in steps.failed.items():
            self.bus.messages.failed(function, self.apid, mask, answers)
        return bool(steps.moved)

    def configure(self, config: bool) -> None:
        """Switch the card on or off by SCLP. Raises EOPNOTSUPP, EIO.

        The uevent and the machine's notification follow even if nothing changes. Like
        ap_card.c:config_store (v6.1).
        """
        if config != self.config:
            self.hardware.configure(self.apid, config)
        self.config = config
        self.send_change("CONFIG", config)
        self.hardware.on_change()

    def set_online(self, online: bool) -> None:
        """Set the card and all its host queues online or offline.

        Raises ENODEV when the card cannot be online. Like zcrypt_card.c:online_store (v6.1).
        """
        if online and not self.usable:
            raise KernelError(ENODEV, f"card {self.apid:02x} cannot work now")
        self.soft_online = online
        self.bus.zcrypt_messages.card_online(self.apid, online=online)
        self.send_change("ONLINE", online)
        host = self.bus.host_driver
        changing = host.bound[self.apid] & ~self.left & (self.offline if online else ~self.offline)
        self.offline ^= changing
        if not online:
            self.flush(changing)
        change = (Action("change", host.name, (("ONLINE", str(int(online))),)),)
        rows = [mask & changing for _, mask in host.order.rows_of(self.apid)]
        send(self.bus.kernel.bus, [self.row([Step(mask, change)]) for mask in rows if mask])

    def leave_queues(self, mask: int) -> None:
        """Leave these queues of the host with the card that zcrypt has until now, which goes.

        Like zcrypt_card.c:zcrypt_card_unregister (v6.1).
        """
        fresh = mask & ~self.left
        self.left |= fresh
        self.left_offline |= 0 if self.soft_online else fresh

    def keep_queues(self, mask: int) -> None:
        """Have these queues in zcrypt as all others: they are bound again, or no longer."""
        self.left &= ~mask
        self.left_offline &= ~mask

    def row(self, steps: Iterable[Step]) -> Row:
        """Return the steps of queues of this card as one row of uevents."""
        return Row(self.apid, str(self.mode), tuple(steps))

    def clear_requests(self) -> None:
        """Set the counts of requests of the card and its queues to zero."""
        self.requests = 0
        self.queue_requests.clear()

    def flush(self, mask: int) -> None:
        """Drop the waiting requests of these queues, whether they failed or were answered."""
        if not self.waiting:
            return
        self.waiting = {apqi: n for apqi, n in self.waiting.items() if not mask >> apqi & 1}

    def forget(self, mask: int) -> None:
        """Forget queue devices that are gone, except for their counters in `plugs`."""
        keep = ALL_IDS & ~mask
        self.queues &= keep
        self.states.create(mask)
        self.deconfigured &= keep
        self.checkstopped &= keep
        self.offline &= keep
        self.keep_queues(mask)
        self.flush(mask)
        if self.queue_requests:
            counts = self.queue_requests.items()
            self.queue_requests = {apqi: n for apqi, n in counts if keep >> apqi & 1}

    def send_change(self, key: str, value: bool) -> None:
        """Send the uevent `change` of the card with one field."""
        self.devices.change(self, {key: str(int(value))})

    def state(self) -> dict[str, Any]:
        """Return what the bus knows of the card and its queues as plain data."""
        return {
            "checkstopped": format_mask(self.checkstopped),
            "chkstop": self.chkstop,
            "config": self.config,
            "deconfigured": format_mask(self.deconfigured),
            "driver": self.driver,
            **({"left": format_mask(self.left)} if self.left else {}),
            **({"left_offline": format_mask(self.left_offline)} if self.left_offline else {}),
            "offline": format_mask(self.offline),
            "plugs": self.plugs.state(),
            "queue_requests": {f"{n:04x}": self.queue_requests[n] for n in self.queue_requests},
            "queues": format_mask(self.queues),
            "requests": self.requests,
            "soft_online": self.soft_online,
            "states": self.states.state(),
            "waiting": {f"{n:04x}": self.waiting[n] for n in self.waiting},
        }

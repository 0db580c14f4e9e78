"""The files of the AP bus: /sys/bus/ap and its drivers, and where all tables appear.

Source: ap_bus.c, drivers/base/bus.c (v6.1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from errno import EADDRINUSE, EBUSY, EINVAL, ENODEV, ERANGE

from fakesys.core.devices import Devices
from fakesys.core.errors import KernelError
from fakesys.core.features import Features
from fakesys.core.text import (
    format_mask,
    ids,
    kstrtobool,
    kstrtoull,
    parse_mask,
    scan_d,
    scan_i,
)
from fakesys.subsystems.ap_bus.apqn import Apqn, apid_of, apqn_of
from fakesys.subsystems.ap_bus.bus import ApBus
from fakesys.subsystems.ap_bus.card import ApCard
from fakesys.subsystems.ap_bus.drivers import (
    HOST_QUEUE_DRIVER,
    ZCRYPT_MODULE,
    CardDriver,
    QueueDriver,
)
from fakesys.subsystems.ap_bus.files.cards import card_layout
from fakesys.subsystems.ap_bus.files.modules import DRIVERS_OF_ZCRYPT, PARAMETERS, anything
from fakesys.subsystems.ap_bus.files.queues import queue_layout
from fakesys.subsystems.ap_bus.policy import ApFeature
from fakesys.subsystems.ap_bus.state import BusState, RootDevice
from fakesys.subsystems.driver_core.files import (
    bus_uevent,
    device_name,
    device_rows,
    driver_uevent,
    probe_rows,
)
from fakesys.tree.attr import Attr, Children, Dir, Layout, Link, Links, Mount, Row

_UNSIGNED = re.compile(r"[ \t\n\v\f\r]*([0-9]+)")
_ULL = 1 << 64
DEVICES = "sys/devices/ap"

NOT_A_MASK = {EINVAL: "not a mask, absolute or relative"}
VETO = {
    EADDRINUSE: "a mediated device has queues of the new mask",
    EBUSY: "the same, from 6.1 on",
}


def _lpar_mask(index: int) -> Callable[[ApBus], str]:
    return lambda bus: (
        f"{format_mask(bus.state.lpar[index])}\n" if bus.state.hardware.qci else "not supported\n"
    )


def _set_apmask(bus: ApBus, text: str) -> None:
    bus.set_apmask(parse_mask(text, bus.state.apmask))


def _set_aqmask(bus: ApBus, text: str) -> None:
    bus.set_aqmask(parse_mask(text, bus.state.aqmask))


def _bindings(bus: ApBus) -> str:
    bound, total = bus.state.queue_counts()
    return f"{bound}/{total}{' (complete)' if bound == total and bus.state.scans else ''}\n"


def _features(bus: ApBus) -> str:
    if not bus.state.hardware.qci:
        return "-\n"
    return f"{' '.join(bus.state.hardware.qci_words)}\n" if bus.state.hardware.qci_words else ""


def _set_poll_timeout(bus: ApBus, text: str) -> None:
    found = _UNSIGNED.match(text)
    if not found:
        raise KernelError(EINVAL, f"{text!r} does not begin with a number")
    bus.set_poll_timeout(int(found[1]) % _ULL, lowest=1)


BUS: tuple[Row, ...] = (
    Attr(
        name="ap_domain",
        mode=0o644,
        doc="Default domain of the host, -1 for none.",
        show=lambda bus: f"{bus.state.domain}\n",
        store=lambda bus, text: bus.set_domain(scan_i(text)),
        errors={EINVAL: "no number, above the maximum, or not in aqmask"},
    ),
    Attr(
        name="ap_adapter_mask",
        mode=0o444,
        doc="Adapters that the machine gives to this Linux, as of the last scan.",
        show=_lpar_mask(0),
    ),
    Attr(
        name="ap_usage_domain_mask",
        mode=0o444,
        doc="Domains that the machine gives to this Linux, as of the last scan.",
        show=_lpar_mask(1),
    ),
    Attr(
        name="ap_control_domain_mask",
        mode=0o444,
        doc="Control domains that the machine gives to this Linux, as of the last scan.",
        show=_lpar_mask(2),
    ),
    Attr(
        name="ap_interrupts",
        mode=0o444,
        doc="1: the machine has AP interrupts, and the parameter `useirq` is not 0.",
        show=lambda bus: f"{bus.state.interrupts:d}\n",
    ),
    Attr(
        name="config_time",
        mode=0o644,
        doc="Seconds between two scans of the bus.",
        show=lambda bus: f"{bus.state.config_time}\n",
        store=lambda bus, text: bus.set_config_time(scan_d(text)),
        errors={EINVAL: "no number, or not within 5-120"},
    ),
    Attr(
        name="poll_thread",
        mode=0o644,
        doc="1: a thread polls for replies; there is none where interrupts are.",
        show=lambda bus: f"{bus.state.poll_thread:d}\n",
        store=lambda bus, text: bus.set_poll_thread(scan_d(text) != 0),
        errors={EINVAL: "no number"},
        unless=ApFeature.STRICT_POLL,
    ),
    Attr(
        name="poll_thread",
        mode=0o644,
        doc="1: a thread polls for replies; written as a truth value.",
        show=lambda bus: f"{bus.state.poll_thread:d}\n",
        store=lambda bus, text: bus.set_poll_thread(kstrtobool(text)),
        errors={EINVAL: "neither true nor false"},
        needs=ApFeature.STRICT_POLL,
    ),
    Attr(
        name="poll_timeout",
        mode=0o644,
        doc="Nanoseconds between two polls by the timer, 1 to 120000000000.",
        show=lambda bus: f"{bus.state.poll_timeout_ns}\n",
        store=_set_poll_timeout,
        errors={EINVAL: "no number, or out of range"},
        unless=ApFeature.STRICT_POLL,
    ),
    Attr(
        name="poll_timeout",
        mode=0o644,
        doc="Nanoseconds between two polls by the timer, 0 to 120000000000.",
        show=lambda bus: f"{bus.state.poll_timeout_ns}\n",
        store=lambda bus, text: bus.set_poll_timeout(kstrtoull(text), lowest=0),
        errors={EINVAL: "not a number, or out of range", ERANGE: "more than 64 bits"},
        needs=ApFeature.STRICT_POLL,
    ),
    Attr(
        name="ap_max_domain_id",
        mode=0o444,
        doc="Highest domain ID.",
        show=lambda bus: f"{bus.state.hardware.highest_domain}\n",
    ),
    Attr(
        name="ap_max_adapter_id",
        mode=0o444,
        doc="Highest adapter ID.",
        show=lambda bus: f"{bus.state.hardware.highest_adapter}\n",
    ),
    Attr(
        name="apmask",
        mode=0o644,
        doc="Adapters of the host; queues of the others are vfio_ap's.",
        show=lambda bus: f"{format_mask(bus.state.apmask)}\n",
        store=_set_apmask,
        errors={**NOT_A_MASK, **VETO},
    ),
    Attr(
        name="aqmask",
        mode=0o644,
        doc="Domains of the host; queues of the others are vfio_ap's.",
        show=lambda bus: f"{format_mask(bus.state.aqmask)}\n",
        store=_set_aqmask,
        errors={**NOT_A_MASK, **VETO},
    ),
    Attr(
        name="scans",
        mode=0o644,
        doc="Scans since boot; any write causes one.",
        show=lambda bus: f"{bus.state.scans}\n",
        store=anything(ApBus.rescan_for_user),
    ),
    Attr(
        name="bindings",
        mode=0o444,
        doc="Queues with a driver, all queues, and whether all have one.",
        show=_bindings,
    ),
    Attr(
        name="features",
        mode=0o444,
        doc="Facilities of the machine; `-` without PQAP(QCI).",
        show=_features,
        needs=ApFeature.FEATURES,
    ),
    *probe_rows(),
    bus_uevent(lambda bus: bus.devices, lambda _bus: "/bus/ap"),
)


def _device_names(bus: BusState) -> Iterator[str]:
    for apid in sorted(bus.cards):
        yield f"card{apid:02x}"
        for apqi in ids(bus.cards[apid].queues):
            yield str(Apqn(apid, apqi))


def _device_path(bus: BusState, name: str) -> str | None:
    apqn, apid = apqn_of(name), apid_of(name)
    if apqn is not None:
        card = bus.cards.get(apqn.apid)
        there = card is not None and card.queues >> apqn.apqi & 1
        return f"{DEVICES}/card{apqn.apid:02x}/{name}" if there else None
    return f"{DEVICES}/{name}" if apid is not None and apid in bus.cards else None


def _bound_queues(driver: QueueDriver) -> Iterator[str]:
    for apid, mask in enumerate(driver.bound):
        for apqi in ids(mask):
            yield str(Apqn(apid, apqi))


def _bound_queue(driver: QueueDriver, name: str) -> str | None:
    apqn = apqn_of(name)
    if apqn is None or not driver.has(*apqn):
        return None
    return f"{DEVICES}/card{apqn.apid:02x}/{name}"


def _bound_cards(driver: CardDriver) -> list[str]:
    return [f"card{apid:02x}" for apid in ids(driver.bound)]


def _bound_card(driver: CardDriver, name: str) -> str | None:
    apid = apid_of(name)
    there = apid is not None and driver.bound >> apid & 1
    return f"{DEVICES}/{name}" if there else None


def bind_rows(needs: Features = ()) -> tuple[Row, ...]:
    """Return `bind` and `unbind` of a driver of this bus. Source: drivers/base/bus.c (v6.1)."""

    def bind(driver: CardDriver | QueueDriver, text: str) -> None:
        driver.bus.bind(driver, device_name(text))

    def unbind(driver: CardDriver | QueueDriver, text: str) -> None:
        driver.bus.unbind(driver, device_name(text))

    return (
        Attr(
            name="bind",
            mode=0o200,
            doc="Write a device's name to bind it to this driver.",
            store=bind,
            errors={
                ENODEV: "unknown, not for this driver, or it has one (5.3 and the series on it)",
                EBUSY: "it has a driver",
            },
            needs=needs,
        ),
        Attr(
            name="unbind",
            mode=0o200,
            doc="Write a device's name to take it from this driver.",
            store=unbind,
            errors={ENODEV: "not bound to this driver"},
            needs=needs,
        ),
    )


DRIVER_UEVENT: Attr[CardDriver | QueueDriver] = driver_uevent(
    lambda driver: driver.bus.devices, lambda driver: f"/bus/ap/drivers/{driver.name}"
)


DRIVER_MODULE: Link[CardDriver | QueueDriver] = Link(
    name="module", to=lambda driver: f"sys/module/{driver.module}"
)


def queue_driver_layout(rows: tuple[Row, ...]) -> Layout[QueueDriver]:
    """Return the directory of a queue driver; `rows`: `bind` and `unbind` where it has them."""
    queues = Links(names=_bound_queues, get=_bound_queue)
    return Layout((*rows, DRIVER_UEVENT, DRIVER_MODULE, queues))


CARD_DRIVER: Layout[CardDriver] = Layout(
    (
        *bind_rows(),
        DRIVER_UEVENT,
        DRIVER_MODULE,
        Links(names=_bound_cards, get=_bound_card),
    )
)

BUS_DEVICES: Layout[BusState] = Layout((Links(names=_device_names, get=_device_path),))


def _card_driver(bus: ApBus) -> CardDriver | None:
    driver = bus.state.card_driver
    return driver if driver.registered else None


def _card_names(root: RootDevice) -> list[str]:
    return [f"card{apid:02x}" for apid in sorted(root.cards)]


def _card(root: RootDevice, name: str) -> ApCard | None:
    apid = apid_of(name)
    return root.cards.get(apid) if apid is not None else None


def mounts(
    bus: Callable[[], ApBus],
    devices: Devices,
    *,
    queue_rows: tuple[Row, ...] = (),
    drivers: tuple[Row, ...] = (),
) -> tuple[Mount, ...]:
    """Return where the files of the AP bus appear.

    `queue_rows`, `drivers`: what other modules add to queues and to the list of drivers.
    """
    # The root device is registered before it gets its bus, so it has no `subsystem` link.
    own = tuple(row for row in device_rows(devices, power=False) if not isinstance(row, Link))
    queue = queue_layout(devices, lambda: bus().zcrypt.info, queue_rows)
    card = card_layout(devices, lambda: bus().zcrypt.info, queue)
    cards = Children(names=_card_names, get=_card, layout=card, label="cardXX")
    root: Layout[RootDevice] = Layout((*own, cards))
    known: Layout[ApBus] = Layout(
        (
            Dir(name="cex4card", layout=CARD_DRIVER, of=_card_driver),
            Dir(
                name="cex4queue",
                layout=queue_driver_layout(bind_rows()),
                of=lambda bus: bus.state.queue_drivers.get(HOST_QUEUE_DRIVER),
            ),
            *drivers,
        )
    )
    return (
        Mount(DEVICES, root, lambda: bus().state.root),
        Mount("sys/bus/ap", Layout(BUS), bus),
        Mount("sys/bus/ap/devices", BUS_DEVICES, lambda: bus().state),
        Mount("sys/bus/ap/drivers", known, bus),
        Mount("sys/module/ap/parameters", PARAMETERS, bus),
        Mount(f"sys/module/{ZCRYPT_MODULE}/drivers", DRIVERS_OF_ZCRYPT, bus),
    )

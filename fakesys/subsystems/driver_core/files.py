"""Rows that every device, bus or driver has: `uevent`, `subsystem`, `power/`, probe files."""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL, EIO, ENODEV
from typing import Any, Protocol, TypeVar

from fakesys.core.devices import Device, Devices
from fakesys.core.errors import KernelError
from fakesys.tree.attr import Attr, Dir, Layout, Link, Row

M = TypeVar("M")


class ProbingBus(Protocol):
    """A bus that offers devices to drivers. `autoprobe`: whether new ones are offered at once."""

    autoprobe: bool

    def probe(self, name: str) -> None:
        """Offer a device to the drivers unless it has one. Raises ENODEV for an unknown name."""


UEVENT_ERRORS = {EINVAL: "not ACTION [UUID [KEY=VALUE ...]] with a known action"}


def _constant(text: str) -> Callable[[Any], str]:
    return lambda _model: text


def _control(_model: object, text: str) -> None:
    if text.removesuffix("\n") not in ("auto", "on"):
        raise KernelError(EINVAL, f"{text!r} is neither auto nor on")


def _delay(_model: object, _text: str) -> None:
    raise KernelError(EIO, "the device does not use autosuspend")


# Like drivers/base/power/sysfs.c (v6.1) for a device without power management callbacks.
POWER: Layout[Any] = Layout(
    (
        Attr(
            name="control",
            mode=0o644,
            doc="Runtime power management: `auto` or `on`; without effect here.",
            show=_constant("auto\n"),
            store=_control,
            errors={EINVAL: "neither auto nor on"},
        ),
        Attr(
            name="runtime_status",
            mode=0o444,
            doc="Runtime power state.",
            show=_constant("unsupported\n"),
        ),
        Attr(
            name="runtime_active_time",
            mode=0o444,
            doc="Milliseconds active under runtime power management.",
            show=_constant("0\n"),
        ),
        Attr(
            name="runtime_suspended_time",
            mode=0o444,
            doc="Milliseconds suspended under runtime power management.",
            show=_constant("0\n"),
        ),
        Attr(
            name="autosuspend_delay_ms",
            mode=0o644,
            doc="Idle time before autosuspend; not in use here: reading fails too.",
            store=_delay,
            errors={EIO: "the device does not use autosuspend"},
        ),
    )
)


def device_rows(devices: Devices, *, power: bool = True) -> tuple[Row, ...]:
    """Return `uevent`, `subsystem`, `driver` and `power/` of a device model.

    `driver` and `subsystem` of the model are the names that the links lead to; a link whose name is
    None or "" is absent. `power`: False leaves `power/` out.
    Source: drivers/base/core.c:device_add, uevent_show, uevent_store (v6.1).
    """

    def show_uevent(device: Device) -> str:
        return "".join(f"{key}={value}\n" for key, value in device.uevent_env().items())

    rows: tuple[Row, ...] = (
        Attr(
            name="uevent",
            mode=0o644,
            doc="The fields of this device's uevents; write an action to send one again.",
            show=show_uevent,
            store=devices.resend,
            errors=UEVENT_ERRORS,
        ),
        Link(name="subsystem", to=_subsystem_path),
        Link(name="driver", to=_driver_path),
    )
    return (*rows, Dir(name="power", layout=POWER)) if power else rows


def _subsystem_path(device: Any) -> str | None:
    return f"sys/bus/{device.subsystem}" if device.subsystem else None


def _driver_path(device: Any) -> str | None:
    driver = getattr(device, "driver", None)
    return f"sys/bus/{device.subsystem}/drivers/{driver}" if driver else None


def device_name(text: str) -> str:
    """Return a device name as the driver core compares it (lib/string.c:sysfs_streq, v6.1)."""
    return text.removesuffix("\n")


def _set_autoprobe(bus: ProbingBus, text: str) -> None:
    bus.autoprobe = not text.startswith("0")


def _probe(bus: ProbingBus, text: str) -> None:
    bus.probe(device_name(text))


def probe_rows() -> tuple[Attr[ProbingBus], ...]:
    """Return the probe files of a bus. Source: drivers/base/bus.c:add_probe_files (v6.1)."""
    return (
        Attr(
            name="drivers_probe",
            mode=0o200,
            doc="Write a device's name to offer it to the drivers.",
            store=_probe,
            errors={ENODEV: "no such device"},
        ),
        Attr(
            name="drivers_autoprobe",
            mode=0o644,
            doc="1: new devices are offered to the drivers.",
            show=lambda bus: f"{bus.autoprobe:d}\n",
            store=_set_autoprobe,
        ),
    )


def bus_uevent(devices: Callable[[M], Devices], path: Callable[[M], str]) -> Attr[M]:
    """Return the write-only `uevent` of a bus; `path`: of the bus, below /sys, such as `/bus/ap`.

    Source: drivers/base/bus.c:bus_uevent_store (v6.1).
    """
    return _uevent_of("bus", devices, path)


def driver_uevent(devices: Callable[[M], Devices], path: Callable[[M], str]) -> Attr[M]:
    """Return the write-only `uevent` of a driver; `path`: such as `/bus/ap/drivers/vfio_ap`.

    Source: drivers/base/bus.c:uevent_store (v6.1).
    """
    return _uevent_of("drivers", devices, path)


def _uevent_of(
    subsystem: str, devices: Callable[[M], Devices], path: Callable[[M], str]
) -> Attr[M]:
    return Attr(
        name="uevent",
        mode=0o200,
        doc="Write an action to send a uevent for this bus or driver itself.",
        store=lambda model, text: devices(model).synthesize(text, path(model), subsystem),
        errors=UEVENT_ERRORS,
    )

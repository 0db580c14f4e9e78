"""The files of the selftest subsystem, and where they appear.

A row parses the text, calls one method of its model, and lists the errors that can come of it.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EEXIST, EINTR, EINVAL, ENODEV, ERANGE

from fakesys.core.devices import Devices
from fakesys.core.text import kstrtoll, kstrtoull, require_one
from fakesys.subsystems.driver_core.files import bus_uevent, device_rows
from fakesys.subsystems.selftest.model import Selftest, SelftestDevice
from fakesys.tree.attr import Attr, Dir, Layout, Links, Mount
from fakesys.tree.kinds import CONTROL, DEBUGFS, DEBUGFS_SEQ

NUMBER = {EINVAL: "not a number", ERANGE: "does not fit"}


def _store_number(device: SelftestDevice, text: str) -> None:
    device.set_number(kstrtoll(text, bits=32))


def _store_debug_number(device: SelftestDevice, text: str) -> None:
    device.debug_number = kstrtoull(text)


def _check_number(_device: SelftestDevice, text: str) -> None:
    kstrtoull(text)


DEVICE: tuple[Attr[SelftestDevice], ...] = (
    Attr(
        name="rw",
        mode=0o644,
        doc="An integer, like the mtu of a network device.",
        show=lambda device: f"{device.number}\n",
        store=_store_number,
        errors={EINVAL: "not a number, or negative", ERANGE: "more than 32 bits"},
    ),
    Attr(
        name="ro",
        mode=0o444,
        doc="A constant, like the address length of a network device.",
        show=lambda _device: "6\n",
    ),
    Attr(
        name="wo",
        mode=0o200,
        doc="Takes any unsigned number and does nothing, like the flush of a bridge.",
        store=_check_number,
        errors=NUMBER,
    ),
    Attr(
        name="notify",
        mode=0o444,
        doc="Changes at each notify and wakes pollers, like the active terminal.",
        show=lambda device: f"tty{device.active}\n",
    ),
)

DEBUG: Layout[SelftestDevice] = Layout(
    (
        Attr(
            name="rw",
            mode=0o644,
            doc="A debugfs simple attribute of 64 bits.",
            show=lambda device: f"{device.debug_number}\n",
            store=_store_debug_number,
            errors=NUMBER,
        ),
        Attr(
            name="wo",
            mode=0o200,
            doc="A debugfs simple attribute without a getter.",
            store=_check_number,
            errors=NUMBER,
        ),
        Attr(
            name="seq",
            mode=0o444,
            doc="A debugfs seq_file of two lines.",
            show=lambda _device: "first line\nsecond line\n",
            kind=DEBUGFS_SEQ,
        ),
        # A directory in a directory, like bdi/ in debugfs.
        Dir(name="nested", layout=Layout((Dir(name="inner", layout=Layout()),))),
    ),
    kind=DEBUGFS,
)


def _command(action: Callable[[Selftest], None]) -> Callable[[Selftest, str], None]:
    """Return a store that runs an action when 1 is written, and raises EINVAL for other text."""

    def store(selftest: Selftest, text: str) -> None:
        require_one(text)
        action(selftest)

    return store


COMMANDS: Layout[Selftest] = Layout(
    (
        Attr(
            name="create",
            mode=0o200,
            doc="Write 1 to plug the device in again.",
            store=_command(Selftest.create),
            errors={EINVAL: "not 1", EEXIST: "it is plugged in"},
        ),
        Attr(
            name="remove",
            mode=0o200,
            doc="Write 1 to unplug the device and its debugfs files.",
            store=_command(Selftest.remove),
            errors={EINVAL: "not 1", ENODEV: "it is unplugged"},
        ),
        Attr(
            name="notify",
            mode=0o200,
            doc="Write 1 to change `notify` and wake its pollers.",
            store=_command(Selftest.notify),
            errors={EINVAL: "not 1", ENODEV: "it is unplugged"},
        ),
        Attr(
            name="work",
            mode=0o200,
            doc="Write a number of steps, which are worked in slices: others are served meanwhile.",
            store=lambda selftest, text: selftest.work(kstrtoull(text)),
            errors=NUMBER | {EINTR: "a signal came before the last step"},
        ),
        Attr(
            name="spin",
            mode=0o200,
            doc="Write a number of steps, which are worked at once: no one is served meanwhile.",
            store=lambda selftest, text: selftest.spin(kstrtoull(text)),
            errors=NUMBER,
        ),
    ),
    kind=CONTROL,
)

BUS: Layout[Selftest] = Layout(
    (bus_uevent(lambda selftest: selftest.devices, lambda _selftest: "/bus/selftest"),)
)


def _device_names(selftest: Selftest) -> tuple[str, ...]:
    return ("selftest0",) if selftest.device else ()


def _device_target(selftest: Selftest, name: str) -> str | None:
    there = selftest.device is not None and name == "selftest0"
    return "sys/devices/virtual/selftest/selftest0" if there else None


BUS_DEVICES: Layout[Selftest] = Layout((Links(names=_device_names, get=_device_target),))


def mounts(selftest: Selftest, devices: Devices) -> tuple[Mount, ...]:
    """Return where the files appear. A mount whose model is None at the moment is absent."""
    device: Layout[SelftestDevice] = Layout((*DEVICE, *device_rows(devices)))
    return (
        Mount("sys/devices/virtual/selftest/selftest0", device, lambda: selftest.device),
        Mount("sys/bus/selftest", BUS, lambda: selftest),
        Mount("sys/bus/selftest/devices", BUS_DEVICES, lambda: selftest),
        Mount("sys/bus/selftest/drivers", Layout(), lambda: selftest),
        Mount("sys/kernel/debug/selftest", DEBUG, lambda: selftest.device),
        Mount("sys/kernel/debug/fakesys/selftest", COMMANDS, lambda: selftest),
    )

"""The driver core: devices are added and removed, bound and unbound, each with its uevent.

Nothing else emits these uevents. Precondition of every call: the model has changed its own state,
so that a device's whole directory exists before its `add` is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from errno import EINVAL
from typing import Protocol

from fakesys.core.errors import KernelError
from fakesys.core.events import Bus, Changed, LogLine, Uevent

ACTIONS = ("add", "remove", "change", "move", "online", "offline", "bind", "unbind")


class Device(Protocol):
    """What the driver core needs to know of a device; models implement it."""

    @property
    def devpath(self) -> str:
        """Path below /sys, with a leading slash: `/devices/ap/card05`."""

    @property
    def subsystem(self) -> str:
        """Name of its bus or class; empty for a device without one."""

    def uevent_env(self) -> Mapping[str, str]:
        """Return the fields of its `uevent` file, DRIVER included while it is bound."""

    def listed_in(self) -> Iterable[object]:
        """Return the models whose directories show this device: its parent, its bus, its driver."""


class Devices:
    """The calls by which devices appear, change and vanish: they mark directories, send uevents."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def add(self, device: Device) -> None:
        """Send `add` for a device that exists now."""
        self._announce("add", device)

    def remove(self, device: Device) -> None:
        """Send `remove` for a device that is gone."""
        self._announce("remove", device)

    def bind(self, device: Device) -> None:
        """Send `bind` for a device that a driver has taken."""
        self._announce("bind", device)

    def unbind(self, device: Device) -> None:
        """Send `unbind` for a device that its driver has released, without its MODALIAS.

        Like lib/kobject_uevent.c:zap_modalias_env (v6.1).
        """
        self._announce("unbind", device)

    def change(self, device: Device, extra: Mapping[str, str]) -> None:
        """Send `change` for a device, with the `extra` fields first; the tree is not affected."""
        self.send("change", device, extra)

    def send(self, action: str, device: Device, extra: Mapping[str, str] | None = None) -> None:
        """Send a uevent that does not affect the tree.

        A device without bus and class sends none: drivers/base/core.c:dev_uevent_filter (v6.1).
        """
        if not device.subsystem:
            return
        env = {**(extra or {}), **device.uevent_env()}
        if action == "unbind":
            env.pop("MODALIAS", None)
        self._bus.emit(Uevent(action, device.devpath, device.subsystem, env))

    def announce(self, action: str, path: str, subsystem: str) -> None:
        """Send `add` or `remove` of a bus or driver itself, without fields.

        Like drivers/base/bus.c:bus_register, driver.c:driver_register (v6.1).
        """
        self._bus.emit(Uevent(action, path, subsystem))

    def resend(self, device: Device, text: str) -> None:
        """Send the event that was written to the device's `uevent` file.

        Raises EINVAL. Like drivers/base/core.c:uevent_store (v6.1).
        """
        env = device.uevent_env()
        try:
            self.synthesize(text, device.devpath, device.subsystem, env)
        except KernelError as refusal:
            owner = env.get("DRIVER") or device.subsystem
            name = device.devpath.rpartition("/")[2]
            trouble = f"uevent: failed to send synthetic uevent: -{refusal.errno}"
            self._bus.emit(LogLine(f"{owner} {name}: {trouble}"))
            raise

    def synthesize(
        self, text: str, devpath: str, subsystem: str, env: Mapping[str, str] | None = None
    ) -> None:
        """Send the event that `text` asks for on behalf of any object of the driver core.

        Raises EINVAL. Like lib/kobject_uevent.c:kobject_synth_uevent (v6.1).
        """
        try:
            action, extra = parse_synthetic(text)
        except KernelError:
            known = text.removesuffix("\n").split(" ")[0] in ACTIONS
            why = "incorrect uevent action arguments" if known else "unknown uevent action string"
            self._bus.emit(LogLine(f"synth uevent: {devpath}: {why}"))
            raise
        if subsystem:
            self._bus.emit(Uevent(action, devpath, subsystem, {**extra, **(env or {})}))

    def _announce(self, action: str, device: Device) -> None:
        self._bus.emit(Changed((device, *device.listed_in())))
        self.send(action, device)


def parse_synthetic(text: str) -> tuple[str, dict[str, str]]:
    """Return action and fields of a text written to a `uevent` file.

    Raises EINVAL for anything but `ACTION [UUID [KEY=VALUE ...]]`.
    Like lib/kobject_uevent.c:kobject_synth_uevent (v6.1).
    """
    words = text.removesuffix("\n").split(" ")
    action, arguments = words[0], words[1:]
    if action not in ACTIONS:
        raise KernelError(EINVAL, f"{action!r} is no uevent action ({', '.join(ACTIONS)})")
    if not arguments:
        return action, {"SYNTH_UUID": "0"}
    uuid, *pairs = arguments
    if not is_uuid(uuid):
        raise KernelError(EINVAL, f"{uuid!r} is no UUID")
    env = {"SYNTH_UUID": uuid}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not (separator and _is_word(key) and _is_word(value)):
            raise KernelError(EINVAL, f"{pair!r} is not KEY=VALUE of letters and digits")
        env[f"SYNTH_ARG_{key}"] = value
    return action, env


def is_uuid(text: str) -> bool:
    """Return whether the text is 36 characters of the form 8-4-4-4-12 hex digits."""
    if len(text) != 36:
        return False
    return all(
        character == "-" if index in (8, 13, 18, 23) else character in "0123456789abcdefABCDEF"
        for index, character in enumerate(text)
    )


def _is_word(text: str) -> bool:
    return bool(text) and text.isascii() and text.isalnum()

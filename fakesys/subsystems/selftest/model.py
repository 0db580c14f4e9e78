"""A device that can be unplugged, plugged in again, and notified. Knows no text and no path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from errno import EEXIST, EINVAL, ENODEV

from fakesys.core.devices import Devices
from fakesys.core.errors import KernelError
from fakesys.core.events import Bus, Changed, Notified


class SelftestDevice:
    """What is plugged in: an integer that can be set, a terminal name that a notify switches."""

    subsystem = "selftest"
    devpath = "/devices/virtual/selftest/selftest0"
    driver = None

    def __init__(self, owner: Selftest) -> None:
        self._owner = owner
        self.number = 1500
        self.active = 1
        self.debug_number = 65536

    def uevent_env(self) -> Mapping[str, str]:
        """No fields of its own."""
        return {}

    def listed_in(self) -> Iterable[object]:
        """The subsystem's directories."""
        return (self._owner,)

    def set_number(self, number: int) -> None:
        """Like a network device's mtu. Raises EINVAL for a negative number."""
        if number < 0:
            raise KernelError(EINVAL, f"{number} is negative")
        self.number = number


class Selftest:
    """The subsystem: at most one device."""

    def __init__(self, bus: Bus, devices: Devices) -> None:
        self._bus = bus
        self.devices = devices
        self.device: SelftestDevice | None = None
        self.create()

    def create(self) -> None:
        """Plug the device in. Raises EEXIST."""
        if self.device is not None:
            raise KernelError(EEXIST, "the device is there")
        self.device = SelftestDevice(self)
        self._bus.emit(Changed((None,)))
        self.devices.add(self.device)

    def remove(self) -> None:
        """Unplug the device and its debugfs files. Raises ENODEV."""
        device = self._present()
        self.device = None
        self._bus.emit(Changed((None,)))
        self.devices.remove(device)

    def notify(self) -> None:
        """Switch the active terminal and tell pollers. Raises ENODEV."""
        device = self._present()
        device.active = 3 - device.active
        self._bus.emit(Notified(device, "notify"))

    def state(self) -> dict[str, int] | None:
        """The device's numbers, None without one."""
        device = self.device
        if device is None:
            return None
        return {
            "active": device.active,
            "debug_number": device.debug_number,
            "number": device.number,
        }

    def _present(self) -> SelftestDevice:
        if self.device is None:
            raise KernelError(ENODEV, "the device is unplugged")
        return self.device

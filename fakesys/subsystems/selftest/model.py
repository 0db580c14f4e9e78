"""A device that can be unplugged, plugged in again, and notified. Knows no text and no path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from errno import EEXIST, EINVAL, ENODEV

from fakesys.core.devices import Devices
from fakesys.core.errors import KernelError
from fakesys.core.events import Bus, Changed, Notified
from fakesys.core.scheduling.resched import cond_resched_killable, might_resched


class SelftestDevice:
    """The device: a number that can be set, and a terminal that a notification switches.

    `number`: like the mtu of a network device. `active`: 1 or 2, like the active virtual terminal.
    `debug_number`: the value behind a debugfs simple attribute. `bus`: the model of the directory
    that lists the device.
    """

    subsystem = "selftest"
    devpath = "/devices/virtual/selftest/selftest0"
    driver = None

    def __init__(self, bus: object) -> None:
        self._bus = bus
        self.number = 1500
        self.active = 1
        self.debug_number = 65536

    def uevent_env(self) -> Mapping[str, str]:
        """Return the fields of its uevents: none of its own."""
        return {}

    def listed_in(self) -> Iterable[object]:
        """Return the models whose directories list the device."""
        return (self._bus,)

    def set_number(self, number: int) -> None:
        """Set the number. Raises EINVAL when it is negative, as for an mtu."""
        if number < 0:
            raise KernelError(EINVAL, f"{number} is negative")
        self.number = number

    def switch_terminal(self) -> None:
        """Switch between terminals 1 and 2."""
        self.active = 3 - self.active


class Selftest:
    """The subsystem. `device`: the device, None while it is unplugged."""

    def __init__(self, bus: Bus, devices: Devices) -> None:
        self._bus = bus
        self.devices = devices
        self.device: SelftestDevice | None = None
        self.create()

    def create(self) -> None:
        """Plug the device in. Raises EEXIST while it is."""
        if self.device is not None:
            raise KernelError(EEXIST, "the device is there")
        self.device = SelftestDevice(self)
        # None stands for the directories above all mounts, which list the device's own.
        self._bus.emit(Changed((None,)))
        self.devices.add(self.device)

    def remove(self) -> None:
        """Unplug the device with its debugfs files. Raises ENODEV while it is unplugged."""
        device = self._present()
        self.device = None
        self._bus.emit(Changed((None,)))
        self.devices.remove(device)

    def notify(self) -> None:
        """Switch the terminal and wake those who poll for it. Raises ENODEV."""
        device = self._present()
        device.switch_terminal()
        self._bus.emit(Notified(device, "notify"))

    @staticmethod
    def spin(steps: int) -> None:
        """Work for so many steps without letting others in, as no model should."""
        done = 0
        while done < steps:
            done += 1

    @staticmethod
    def work(steps: int) -> None:
        """Work for so many steps and let others in between. Raises EINTR after a signal."""
        might_resched()
        done = 0
        while done < steps:
            cond_resched_killable()
            done += 1

    def state(self) -> dict[str, int] | None:
        """Return the device as plain data; None while it is unplugged."""
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

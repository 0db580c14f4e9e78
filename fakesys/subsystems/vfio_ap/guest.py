"""Guests: which mediated device each has attached, and what its control block holds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from errno import EBUSY, EEXIST, ENODEV, EPERM
from typing import Any, NamedTuple, Protocol

from fakesys.core.errors import KernelError
from fakesys.core.events import Bus, Changed
from fakesys.core.text import ids
from fakesys.subsystems.ap_bus.apqn import Apqn
from fakesys.subsystems.ap_bus.hardware import Hardware
from fakesys.subsystems.ap_bus.hardware_spec import CardSpec
from fakesys.subsystems.ap_bus.queues.answers import NORMAL
from fakesys.subsystems.vfio_ap.policy import NOTHING, Masks

LAST_ISC = 7
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# Names that a directory cannot have.
_RESERVED = (".", "..")


def is_guest_name(text: str) -> bool:
    """Return whether a guest can have this name: letters, digits, `_`, `.` and `-`."""
    return _NAME.fullmatch(text) is not None and text not in _RESERVED


class GuestMdev(Protocol):
    """What a guest needs of the mediated device that it opens."""

    @property
    def uuid(self) -> str:
        """Its name."""

    @property
    def guest(self) -> Guest | None:
        """The guest that it is open for."""

    @property
    def guest_masks(self) -> Masks:
        """What a guest gets of it."""

    @property
    def interrupts(self) -> Mapping[Apqn, int]:
        """The queues with interrupts on, and the subclass (ISC) of each."""

    def open(self, guest: Guest) -> None:
        """Open the device for a guest."""

    def close(self) -> None:
        """Close the device; its queues are reset."""

    def reset_for_user(self) -> None:
        """Reset its queues. Raises EBUSY, EIO, ENODEV."""

    def enable_interrupts(self, apqn: Apqn, isc: int) -> None:
        """Turn interrupts of a queue on. Raises ENODEV, EFAULT."""

    def disable_interrupts(self, apqn: Apqn) -> None:
        """Turn interrupts of a queue off. Raises ENODEV."""


class GuestCard(NamedTuple):
    """A card as the guest sees it, with the domains in which it can use it."""

    spec: CardSpec
    domains: int


class Guest:
    """One guest. `ap`: does its CPU model have AP instructions? Without, no mask is set."""

    def __init__(self, name: str, hardware: Hardware, *, ap: bool) -> None:
        self.name = name
        self.ap = ap
        self.mdev: GuestMdev | None = None
        self._hardware = hardware

    @property
    def masks(self) -> Masks:
        """What its control block holds; nothing while detached."""
        return self.mdev.guest_masks if self.mdev and self.ap else NOTHING

    def cards(self) -> Iterator[GuestCard]:
        """Yield the cards that it can use now: those of its masks with a queue that answers."""
        for apid in ids(self.masks.apm):
            usable = self._hardware.by_answer(apid, self.masks.aqm).get(NORMAL, 0)
            if usable:
                yield GuestCard(self._hardware.cards[apid].spec, usable)

    def attach(self, mdev: GuestMdev) -> None:
        """Open a mediated device.

        Raises EBUSY when another guest has it, EPERM when this guest has one already. Like
        vfio_ap_ops.c:vfio_ap_mdev_open_device (v6.1).
        """
        if mdev.guest is not None:
            raise KernelError(EBUSY, f"{mdev.uuid} is open for {mdev.guest.name}")
        if self.mdev is not None:
            raise KernelError(EPERM, f"{self.name} has {self.mdev.uuid}")
        self.mdev = mdev
        mdev.open(self)

    def detach(self) -> None:
        """Close its mediated device. Raises ENODEV without one."""
        if self.mdev is None:
            raise KernelError(ENODEV, f"{self.name} has nothing attached")
        mdev, self.mdev = self.mdev, None
        mdev.close()

    def reset(self) -> None:
        """Reset all queues of its mediated device, whatever its CPU model.

        Raises ENODEV without a device; EBUSY, EIO, ENODEV for a queue that is not reset, in some
        kernels.

        Like vfio_ap_ops.c:vfio_ap_mdev_ioctl with VFIO_DEVICE_RESET (v6.1).
        """
        if self.mdev is None:
            raise KernelError(ENODEV, f"{self.name} has nothing attached")
        self.mdev.reset_for_user()

    def enable_interrupts(self, apqn: Apqn, isc: int) -> None:
        """Execute PQAP(AQIC) to turn interrupts on. Raises the answer's errno: ENODEV, EFAULT."""
        self._attached().enable_interrupts(apqn, isc)

    def disable_interrupts(self, apqn: Apqn) -> None:
        """Execute PQAP(AQIC) to turn interrupts off. Raises ENODEV."""
        self._attached().disable_interrupts(apqn)

    def _attached(self) -> GuestMdev:
        if self.mdev is None or not self.ap:
            raise KernelError(ENODEV, f"{self.name} has no AP queues")
        return self.mdev


class Guests:
    """The guests of this host, by name. `shown_in`: the model of the directory that lists them."""

    def __init__(self, bus: Bus, hardware: Hardware, shown_in: object = None) -> None:
        self._bus = bus
        self._shown_in = shown_in
        self._hardware = hardware
        self.by_name: dict[str, Guest] = {}

    def create(self, name: str, *, ap: bool = True) -> Guest:
        """Power a guest on. Raises EEXIST."""
        if name in self.by_name:
            raise KernelError(EEXIST, f"guest {name} exists")
        guest = self.by_name[name] = Guest(name, self._hardware, ap=ap)
        self._bus.emit(Changed((self._shown_in,)))
        return guest

    def remove(self, name: str) -> None:
        """Power a guest off; its device is detached first. Raises ENODEV."""
        guest = self.by_name.get(name)
        if guest is None:
            raise KernelError(ENODEV, f"there is no guest {name}")
        if guest.mdev is not None:
            guest.detach()
        del self.by_name[name]
        self._bus.emit(Changed((self._shown_in,)))

    def state(self) -> dict[str, Any]:
        """Return the guests as plain data."""
        return {
            name: {"ap": guest.ap, "mdev": guest.mdev.uuid if guest.mdev else None}
            for name, guest in sorted(self.by_name.items())
        }

"""The mediated device core: parents offer types, devices of a type are created and removed.

What a device does is its type's business: a parent hands in callbacks.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from errno import EEXIST, ENODEV
from functools import partial
from typing import Any

from fakesys.core.errors import KernelError
from fakesys.core.events import Changed
from fakesys.core.kernel import Kernel
from fakesys.subsystems.mdev.policy import MdevPolicy


class Numbers:
    """Numbers from 0; the smallest free one is given out next."""

    def __init__(self) -> None:
        self._freed: list[int] = []
        self._next = 0

    def take(self) -> int:
        """The smallest free number."""
        if self._freed:
            return heapq.heappop(self._freed)
        self._next += 1
        return self._next - 1

    def give_back(self, number: int) -> None:
        """This number is free again."""
        heapq.heappush(self._freed, number)


@dataclass(eq=False, slots=True)
class MdevType:
    """A kind of device that a parent offers.

    `available`: how many more can be made. `create` makes what stands behind a new device and
    raises what the driver refuses with. `remove` is asked before anything changes: it raises
    KernelError or Blocked, or takes the device out of service.
    """

    name: str
    device_api: str
    pretty_name: str
    available: Callable[[], int]
    create: Callable[[Mdev], Any]
    remove: Callable[[Mdev], None]
    devices: dict[str, Mdev] = field(default_factory=dict)
    # Set when the parent is registered: makes a device of this UUID.
    make: Callable[[str], object] = field(init=False)


@dataclass(eq=False, slots=True)
class MdevParent:
    """A device that offers types. `devpath`: below /sys; `name`: in class/mdev_bus.

    `device`: the model of its directory.
    """

    name: str
    devpath: str
    device: object
    types: dict[str, MdevType]


class Mdev:
    """One mediated device; `data` is what its type's driver made for it."""

    subsystem = "mdev"

    def __init__(
        self, bus: MdevBus, uuid: str, parent: MdevParent, kind: MdevType, group: int, vfio: int
    ) -> None:
        self.bus = bus
        self.uuid = uuid
        self.parent = parent
        self.type = kind
        self.group = group
        self.vfio = vfio
        self.driver: str | None = None
        self.data: Any = None

    @property
    def devpath(self) -> str:
        """Path below /sys."""
        return f"{self.parent.devpath}/{self.uuid}"

    def uevent_env(self) -> Mapping[str, str]:
        """The driver's name while bound."""
        return {"DRIVER": self.driver} if self.driver else {}

    def listed_in(self) -> Iterable[object]:
        """Parent, type, bus and iommu group."""
        return (self.parent.device, self.type, self.bus)


class MdevBus:
    """The bus `mdev`, the class `mdev_bus` and the iommu groups of its devices."""

    def __init__(self, kernel: Kernel, policy: MdevPolicy) -> None:
        self.kernel = kernel
        self.policy = policy
        # Without effect: a device is bound when it is created, by the one driver of its parent.
        self.autoprobe = True
        self.parents: dict[str, MdevParent] = {}
        self.devices: dict[str, Mdev] = {}
        self.groups: dict[int, Mdev] = {}
        self.vfio_devices: dict[int, Mdev] = {}
        self._group_numbers = Numbers()
        self._vfio_numbers = Numbers()

    def register(self, parent: MdevParent) -> None:
        """A parent is there."""
        self.parents[parent.name] = parent
        for kind in parent.types.values():
            kind.make = partial(self.create, parent, kind)
        self.kernel.bus.emit(Changed((self, parent.device)))

    def unregister(self, parent: MdevParent) -> None:
        """A parent goes, and all its devices before it."""
        for kind in parent.types.values():
            for mdev in list(kind.devices.values()):
                self.remove(mdev)
        del self.parents[parent.name]
        self.kernel.bus.emit(Changed((self, parent.device)))

    def create(self, parent: MdevParent, kind: MdevType, uuid: str) -> Mdev:
        """Make a device. Raises EEXIST, then what the driver refuses with.

        Like mdev_core.c:mdev_device_create (v6.1).
        """
        if uuid in self.devices:
            raise KernelError(EEXIST, f"{uuid} exists")
        mdev = Mdev(self, uuid, parent, kind, -1, -1)
        mdev.data = kind.create(mdev)
        mdev.group, mdev.vfio = self._group_numbers.take(), self._vfio_numbers.take()
        self.devices[uuid] = kind.devices[uuid] = mdev
        self.groups[mdev.group] = self.vfio_devices[mdev.vfio] = mdev
        self.kernel.devices.add(mdev)
        mdev.driver = self.policy.driver
        self.kernel.devices.bind(mdev)
        return mdev

    def probe(self, name: str) -> None:
        """What `drivers_probe` does: no driver takes a device so (mdev_driver.c:mdev_match).

        Raises ENODEV for an unknown device.
        """
        if name not in self.devices:
            raise KernelError(ENODEV, f"there is no mediated device {name}")

    def remove(self, mdev: Mdev) -> None:
        """Remove a device. Raises what the driver refuses with, KernelError or Blocked."""
        mdev.type.remove(mdev)
        mdev.driver = None
        self.kernel.devices.unbind(mdev)
        del self.devices[mdev.uuid], mdev.type.devices[mdev.uuid]
        del self.groups[mdev.group], self.vfio_devices[mdev.vfio]
        self._group_numbers.give_back(mdev.group)
        self._vfio_numbers.give_back(mdev.vfio)
        self.kernel.devices.remove(mdev)

    def state(self) -> list[dict[str, Any]]:
        """The devices in the order in which they were made."""
        return [
            {
                "group": mdev.group,
                "parent": mdev.parent.name,
                "type": mdev.type.name,
                "uuid": mdev.uuid,
                "vfio": mdev.vfio,
            }
            for mdev in self.devices.values()
        ]

"""The mediated device core: parents offer types, devices of a type are created and removed.

What a device does is its type's business: a parent hands in callbacks.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from errno import EEXIST, ENODEV
from functools import partial
from typing import Any, NamedTuple

from fakesys.core.errors import KernelError
from fakesys.core.events import Changed
from fakesys.core.kernel import Kernel
from fakesys.subsystems.mdev.policy import MdevPolicy

# No number yet, or no longer.
NONE = -1


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

    `driver`: that of the parent itself. `device`: the model of its directory.
    """

    name: str
    driver: str
    devpath: str
    device: object
    types: dict[str, MdevType]


class Mdev:
    """One mediated device; `data` is what its type's driver made for it.

    `group`, `vfio`: numbers of its iommu group and its vfio device while it is bound.
    """

    subsystem = "mdev"

    def __init__(self, bus: MdevBus, uuid: str, parent: MdevParent, kind: MdevType) -> None:
        self.bus = bus
        self.uuid = uuid
        self.parent = parent
        self.type = kind
        self.group = NONE
        self.vfio = NONE
        self.driver: str | None = None
        self.data: Any = None

    @property
    def devpath(self) -> str:
        """Path below /sys."""
        return f"{self.parent.devpath}/{self.uuid}"

    @property
    def vfio_device(self) -> VfioDevice:
        """The device below it, while it is bound."""
        return VfioDevice(self, self.vfio)

    def uevent_env(self) -> Mapping[str, str]:
        """The driver's name while bound."""
        return {"DRIVER": self.driver} if self.driver else {}

    def listed_in(self) -> Iterable[object]:
        """Parent, type, bus and iommu group."""
        return (self.parent.device, self.type, self.bus)


class VfioDevice(NamedTuple):
    """The device of class vfio-dev below a mediated device."""

    mdev: Mdev
    number: int

    @property
    def name(self) -> str:
        """`vfio` and its number."""
        return f"vfio{self.number}"

    @property
    def devpath(self) -> str:
        """Path below /sys."""
        return f"{self.mdev.devpath}/vfio-dev/{self.name}"

    @property
    def subsystem(self) -> str:
        """Its class."""
        return "vfio-dev"

    def uevent_env(self) -> Mapping[str, str]:
        """No fields."""
        return {}

    def listed_in(self) -> Iterable[object]:
        """Its parent, and its class, which stands on the bus."""
        return (self.mdev, self.mdev.bus)


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
        self.kernel.log(f"{parent.driver} {parent.name}: MDEV: Registered")

    def unregister(self, parent: MdevParent) -> None:
        """A parent goes, and all its devices before it."""
        self.kernel.log(f"{parent.driver} {parent.name}: MDEV: Unregistering")
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
        mdev = Mdev(self, uuid, parent, kind)
        mdev.data = kind.create(mdev)
        self.devices[uuid] = kind.devices[uuid] = mdev
        self.kernel.devices.add(mdev)
        self._attach(mdev)
        return mdev

    def probe(self, name: str) -> None:
        """What `drivers_probe` does: no driver takes a device so (mdev_driver.c:mdev_match).

        Raises ENODEV for an unknown device.
        """
        if name not in self.devices:
            raise KernelError(ENODEV, f"there is no mediated device {name}")

    def bind(self, name: str) -> None:
        """What `bind` of the driver does. Raises ENODEV: it matches no device, free or not."""
        raise KernelError(ENODEV, f"{self.policy.driver} takes {name!r} at its creation only")

    def unbind(self, name: str) -> None:
        """What `unbind` of the driver does. Raises ENODEV, and what the driver refuses with."""
        mdev = self.devices.get(name)
        if mdev is None or mdev.driver is None:
            raise KernelError(ENODEV, f"{name!r} is not bound to {self.policy.driver}")
        self._detach(mdev)

    def remove(self, mdev: Mdev) -> None:
        """Remove a device. Raises what the driver refuses with, KernelError or Blocked."""
        if mdev.driver is not None:
            self._detach(mdev)
        del self.devices[mdev.uuid], mdev.type.devices[mdev.uuid]
        self.kernel.devices.remove(mdev)

    def state(self) -> list[dict[str, Any]]:
        """The devices in the order in which they were made."""
        return [
            {
                "driver": mdev.driver,
                "group": mdev.group,
                "parent": mdev.parent.name,
                "type": mdev.type.name,
                "uuid": mdev.uuid,
                "vfio": mdev.vfio,
            }
            for mdev in self.devices.values()
        ]

    def _attach(self, mdev: Mdev) -> None:
        """Its driver's probe. Like vfio_main.c:vfio_register_emulated_iommu_dev (v6.1)."""
        mdev.group, mdev.vfio = self._group_numbers.take(), self._vfio_numbers.take()
        self.groups[mdev.group] = self.vfio_devices[mdev.vfio] = mdev
        mdev.driver = self.policy.driver
        self.kernel.log(f"{mdev.driver} {mdev.uuid}: Adding to iommu group {mdev.group}")
        if self.policy.vfio_devices:
            self.kernel.devices.add(mdev.vfio_device)
        self.kernel.devices.bind(mdev)

    def _detach(self, mdev: Mdev) -> None:
        """Its driver's remove. Like vfio_main.c:vfio_unregister_group_dev (v6.1)."""
        mdev.type.remove(mdev)
        driver, group, vfio = mdev.driver, mdev.group, mdev.vfio_device
        del self.groups[group], self.vfio_devices[vfio.number]
        self._group_numbers.give_back(group)
        self._vfio_numbers.give_back(vfio.number)
        mdev.driver, mdev.group, mdev.vfio = None, NONE, NONE
        if self.policy.vfio_devices:
            self.kernel.devices.remove(vfio)
        self.kernel.log(f"{driver} {mdev.uuid}: Removing from iommu group {group}")
        self.kernel.devices.unbind(mdev)

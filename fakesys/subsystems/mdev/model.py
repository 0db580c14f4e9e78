"""The mediated device core: parents offer types, devices of a type are created and removed.

It knows nothing of what a device does: the parent's driver hands in callbacks (`MdevDriver`).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Set
from errno import EEXIST, ENODEV
from typing import Any, NamedTuple

from fakesys.core.errors import KernelError
from fakesys.core.events import Changed, Uevent
from fakesys.core.kernel import Kernel
from fakesys.subsystems.mdev.policy import MdevPolicy

# The number of an iommu group or vfio device while there is none.
NONE = -1
VFIO_MAJOR = 253


class Numbers:
    """A pool of numbers from 0, like an IDA (lib/idr.c, v6.1): the smallest free one is next."""

    def __init__(self) -> None:
        self._freed: list[int] = []
        self._next = 0

    def take(self) -> int:
        """Take the smallest free number."""
        if self._freed:
            return heapq.heappop(self._freed)
        self._next += 1
        return self._next - 1

    def give_back(self, number: int) -> None:
        """Free a number that was taken."""
        heapq.heappush(self._freed, number)

    @property
    def end(self) -> int:
        """The number above all that were ever taken."""
        return self._next

    def restore(self, end: int, taken: Set[int]) -> None:
        """Have these numbers taken, and all others below `end` freed."""
        self._next = end
        self._freed = [number for number in range(end) if number not in taken]


class MdevDriver(NamedTuple):
    """What the driver of a parent hands to the mediated device core.

    `name`: of the parent's driver. `available`: how many more devices of a type can be created.
    `probe` makes the model behind a new device and raises the errno with which the driver refuses
    it. `remove` is asked before anything changes: it raises KernelError or Blocked, or takes the
    device out of service. Like struct mdev_driver (v6.1).
    """

    name: str
    device_api: str
    available: Callable[[MdevType], int]
    probe: Callable[[Mdev], Any]
    remove: Callable[[Mdev], None]


class MdevType:
    """A kind of device that a parent offers. `devices`: those of this type, by UUID."""

    def __init__(self, parent: MdevParent, name: str, pretty_name: str) -> None:
        self.parent = parent
        self.name = name
        self.pretty_name = pretty_name
        self.devices: dict[str, Mdev] = {}

    @property
    def device_api(self) -> str:
        """The interface that devices of this type offer."""
        return self.parent.driver.device_api

    @property
    def available(self) -> int:
        """How many more devices of this type can be created."""
        return self.parent.driver.available(self)

    def create(self, uuid: str) -> Mdev:
        """Create a device. Raises EEXIST, or the errno of the driver's refusal."""
        return self.parent.bus.create(self, uuid)


class MdevParent:
    """A device that offers types of mediated devices. `device`: the model of its directory.

    `devpath`: below /sys; its last name is the one in /sys/class/mdev_bus. `pretty_names`: name of
    each type -> what it is called for people.
    """

    def __init__(
        self,
        bus: MdevBus,
        device: object,
        devpath: str,
        driver: MdevDriver,
        pretty_names: Mapping[str, str],
    ) -> None:
        self.bus = bus
        self.device = device
        self.devpath = devpath
        self.driver = driver
        self.types = {name: MdevType(self, name, text) for name, text in pretty_names.items()}

    @property
    def name(self) -> str:
        """Name of the device."""
        return self.devpath.rpartition("/")[2]


class Mdev:
    """One mediated device.

    `data`: what the parent's driver made for it, None until it was probed. `group`, `vfio`: numbers
    of its iommu group and its vfio device while it is bound, otherwise NONE.
    """

    subsystem = "mdev"

    def __init__(self, kind: MdevType, uuid: str) -> None:
        self.type = kind
        self.uuid = uuid
        self.group = NONE
        self.vfio = NONE
        self.driver: str | None = None
        self.data: Any = None

    @property
    def parent(self) -> MdevParent:
        """The device that it was created from."""
        return self.type.parent

    @property
    def bus(self) -> MdevBus:
        """The bus of all mediated devices."""
        return self.parent.bus

    @property
    def devpath(self) -> str:
        """Path below /sys."""
        return f"{self.parent.devpath}/{self.uuid}"

    @property
    def vfio_device(self) -> VfioDevice:
        """The device of class vfio-dev below it, while it is bound."""
        return VfioDevice(self, self.vfio)

    @property
    def vfio_group(self) -> VfioGroup:
        """The device of class vfio for its group, while it is bound."""
        return VfioGroup(self, self.group)

    def uevent_env(self) -> Mapping[str, str]:
        """Return the driver's name while it is bound."""
        return {"DRIVER": self.driver} if self.driver else {}

    def listed_in(self) -> Iterable[object]:
        """Return the models whose directories list it: parent, type and bus."""
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
        """Return no fields."""
        return {}

    def listed_in(self) -> Iterable[object]:
        """Return its parent, and the bus, which is the model of its class, too."""
        return (self.mdev, self.mdev.bus)


class VfioGroup(NamedTuple):
    """The device of class vfio for the iommu group of a mediated device: the node that users open.

    Like vfio_main.c:vfio_group_alloc, vfio_devnode (v6.1).
    """

    mdev: Mdev
    number_in_class: int

    @property
    def name(self) -> str:
        """The number of the group."""
        return f"{self.number_in_class}"

    @property
    def number(self) -> tuple[int, int]:
        """Major and minor number of the node, which both are given out dynamically."""
        return VFIO_MAJOR, self.number_in_class

    @property
    def devpath(self) -> str:
        """Path below /sys."""
        return f"/devices/virtual/vfio/{self.name}"

    @property
    def subsystem(self) -> str:
        """Its class."""
        return "vfio"

    def uevent_env(self) -> Mapping[str, str]:
        """Return the number and the name of the node."""
        major, minor = self.number
        return {"MAJOR": f"{major}", "MINOR": f"{minor}", "DEVNAME": f"vfio/{self.name}"}

    def listed_in(self) -> Iterable[object]:
        """Return the bus, which is the model of its class, too, and of the directories above."""
        return (None, self.mdev.bus)


class MdevBus:
    """The bus `mdev`, the class `mdev_bus`, and the iommu groups and vfio devices of its devices.

    `autoprobe` has no effect: a device is bound when it is created, by the one driver of its type.
    """

    def __init__(self, kernel: Kernel, policy: MdevPolicy) -> None:
        self.kernel = kernel
        self.policy = policy
        self.autoprobe = True
        self.parents: dict[str, MdevParent] = {}
        self.devices: dict[str, Mdev] = {}
        self.groups: dict[int, Mdev] = {}
        self.vfio_devices: dict[int, Mdev] = {}
        self.group_numbers = Numbers()
        self.vfio_numbers = Numbers()

    def module_loaded(self) -> None:
        """Show the bus and its class: the module mdev was loaded."""
        self._announce_bus("add")

    def module_removed(self) -> None:
        """Show the bus and its class no longer. Precondition: there is no parent."""
        self._announce_bus("remove")

    def _announce_bus(self, action: str) -> None:
        bus = self.kernel.bus
        bus.emit(Uevent(action, "/bus/mdev", "bus"))
        bus.emit(Uevent(action, "/class/mdev_bus", "class"))
        bus.emit(Changed((None, self)))

    def register(self, parent: MdevParent) -> None:
        """Register a parent, whose types can be used from now on.

        Like mdev_core.c:mdev_register_parent (v6.1).
        """
        self.parents[parent.name] = parent
        self.kernel.bus.emit(Changed((self, parent.device)))
        self.kernel.log(f"{parent.driver.name} {parent.name}: MDEV: Registered")

    def unregister(self, parent: MdevParent) -> None:
        """Remove all devices of a parent, then the parent.

        Like mdev_core.c:mdev_unregister_parent (v6.1).
        """
        self.kernel.log(f"{parent.driver.name} {parent.name}: MDEV: Unregistering")
        for kind in parent.types.values():
            for mdev in list(kind.devices.values()):
                self.remove(mdev)
        del self.parents[parent.name]
        self.kernel.bus.emit(Changed((self, parent.device)))

    def create(self, kind: MdevType, uuid: str) -> Mdev:
        """Create a device and bind it. Raises EEXIST, or the errno of the driver's refusal.

        Like mdev_core.c:mdev_device_create (v6.1).
        """
        if uuid in self.devices:
            raise KernelError(EEXIST, f"{uuid} exists")
        mdev = Mdev(kind, uuid)
        mdev.data = kind.parent.driver.probe(mdev)
        self.devices[uuid] = kind.devices[uuid] = mdev
        self.kernel.devices.add(mdev)
        self._attach(mdev)
        return mdev

    def probe(self, name: str) -> None:
        """Offer a device to the drivers, none of which takes it (mdev_driver.c:mdev_match, v6.1).

        Raises ENODEV for an unknown device.
        """
        if name not in self.devices:
            raise KernelError(ENODEV, f"there is no mediated device {name}")

    def bind(self, name: str) -> None:
        """Refuse to bind a device by hand: the driver matches none. Raises ENODEV."""
        raise KernelError(ENODEV, f"{self.policy.driver} takes {name!r} at its creation only")

    def unbind(self, name: str) -> None:
        """Unbind a device by name. Raises ENODEV, or what the driver refuses with."""
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
        """Return the devices, in the order in which they were created, as plain data."""
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
        """Bind a device to its driver. Like vfio_main.c:vfio_register_emulated_iommu_dev (v6.1)."""
        mdev.group, mdev.vfio = self.group_numbers.take(), self.vfio_numbers.take()
        self.groups[mdev.group] = self.vfio_devices[mdev.vfio] = mdev
        mdev.driver = self.policy.driver
        self.kernel.log(f"{mdev.driver} {mdev.uuid}: Adding to iommu group {mdev.group}")
        self.kernel.devices.add(mdev.vfio_group)
        if self.policy.vfio_devices:
            self.kernel.devices.add(mdev.vfio_device)
        self.kernel.devices.bind(mdev)

    def _detach(self, mdev: Mdev) -> None:
        """Unbind a device from its driver. Like vfio_main.c:vfio_unregister_group_dev (v6.1)."""
        mdev.parent.driver.remove(mdev)
        driver, group, vfio = mdev.driver, mdev.group, mdev.vfio_device
        vfio_group = mdev.vfio_group
        del self.groups[group], self.vfio_devices[vfio.number]
        self.group_numbers.give_back(group)
        self.vfio_numbers.give_back(vfio.number)
        mdev.driver, mdev.group, mdev.vfio = None, NONE, NONE
        if self.policy.vfio_devices:
            self.kernel.devices.remove(vfio)
        self.kernel.devices.remove(vfio_group)
        self.kernel.log(f"{driver} {mdev.uuid}: Removing from iommu group {group}")
        self.kernel.devices.unbind(mdev)

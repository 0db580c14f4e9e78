"""Mediated devices and their parents: what they are and where they are listed.

They know nothing of what a device does: the parent's driver hands in callbacks (`MdevDriver`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from fakesys.core.errors import Underway, Waiters
from fakesys.core.kernel import Kernel
from fakesys.subsystems.mdev.policy import MdevPolicy

# The number of an iommu group or vfio device while there is none.
NONE = -1
VFIO_MAJOR = 253


class Core(Protocol):
    """What devices and parents need of the bus of mediated devices."""

    @property
    def kernel(self) -> Kernel:
        """Clock, bus and devices of the machine."""

    @property
    def policy(self) -> MdevPolicy:
        """The choices of the kernel."""

    def create(self, kind: MdevType, uuid: str) -> Mdev:
        """Create a device and bind it."""

    def remove(self, mdev: Mdev) -> None:
        """Remove a device."""

    def let_go(self, mdev: Mdev) -> None:
        """Finish what waits for the user of a device."""


class MdevDriver(NamedTuple):
    """What the driver of a parent hands to the mediated device core.

    `name`: of the parent's driver. `available`: how many more devices of a type can be created.
    `probe` makes the model behind a new device and raises the errno with which the driver refuses
    it. `release` is called before anything changes: it raises KernelError, or makes the user of a
    device let go of it. `in_use`: does a user have the device? `request`: asks that user for it.
    `remove` takes the device out of service. Like struct mdev_driver (v6.1).
    """

    name: str
    device_api: str
    available: Callable[[MdevType], int]
    probe: Callable[[Mdev], Any]
    release: Callable[[Mdev], None]
    in_use: Callable[[Mdev], bool]
    request: Callable[[Mdev], None]
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
        bus: Core,
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


class Stage(StrEnum):
    """How far the end of a device has come that waits for its user to let go of it."""

    ALIVE = "alive"
    # Unbound by hand; it will be a device without driver.
    UNBINDING = "unbinding"
    # Removed; of its directory only group and vfio device are left.
    REMOVING = "removing"


class Mdev:
    """One mediated device.

    `data`: what the parent's driver made for it, None until it was probed. `group`, `vfio`: numbers
    of its iommu group and its vfio device while it has them, otherwise NONE. `shows_vfio`: is the
    latter still in the tree? `released` wakes those who wait for its user.
    """

    subsystem = "mdev"

    def __init__(self, kind: MdevType, uuid: str) -> None:
        self.type = kind
        self.uuid = uuid
        self.group = NONE
        self.vfio = NONE
        self.shows_vfio = False
        self.driver: str | None = None
        self.data: Any = None
        self.stage = Stage.ALIVE
        self.released = Waiters()
        # Whether the log tells already of the process that waits.
        self._told = False

    @property
    def parent(self) -> MdevParent:
        """The device that it was created from."""
        return self.type.parent

    @property
    def bus(self) -> Core:
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

    @property
    def is_listed(self) -> bool:
        """Whether its bus and its type list it."""
        return self.stage is not Stage.REMOVING

    @property
    def in_service(self) -> bool:
        """Whether its driver has a model for it: it is bound, or its end waits for its user."""
        return self.driver is not None or self.stage is not Stage.ALIVE

    def wait(self) -> None:
        """Return once its user has let go of it. Raises Underway before that."""
        if self.stage is not Stage.ALIVE:
            raise Underway(self.released, self.wait, self._tell_who_waits)

    def _tell_who_waits(self) -> None:
        """Log the process that waits, at its first signal (vfio_main.c, v6.1)."""
        if self._told:
            return
        self._told = True
        kernel = self.bus.kernel
        self.bus.kernel.log(
            f"{self.bus.policy.driver} {self.uuid}: Device is currently in use, "
            f'task "{kernel.bus.task.comm}" ({kernel.caller.pid}) blocked until device is released'
        )

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

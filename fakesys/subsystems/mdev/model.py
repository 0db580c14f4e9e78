"""The mediated device core: parents offer types, devices of a type are created and removed."""

from __future__ import annotations

from errno import EEXIST, ENODEV
from typing import Any

from fakesys.core.errors import KernelError
from fakesys.core.events import Changed, Uevent
from fakesys.core.kernel import Kernel
from fakesys.subsystems.mdev.device import NONE, Mdev, MdevParent, MdevType, Stage
from fakesys.subsystems.mdev.numbers import Numbers
from fakesys.subsystems.mdev.policy import MdevPolicy


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
        self._announce_driver("add")
        self.parents[parent.name] = parent
        self.kernel.bus.emit(Changed((self, parent.device)))
        self.kernel.log(f"{parent.driver.name} {parent.name}: MDEV: Registered")

    def unregister(self, parent: MdevParent) -> None:
        """Remove all devices of a parent, of which none is in use, then the parent.

        Like mdev_core.c:mdev_unregister_parent (v6.1).
        """
        self.kernel.log(f"{parent.driver.name} {parent.name}: MDEV: Unregistering")
        for kind in parent.types.values():
            for mdev in list(kind.devices.values()):
                self.remove(mdev)
        del self.parents[parent.name]
        self.kernel.bus.emit(Changed((self, parent.device)))

    def unregister_driver(self) -> None:
        """Tell that the driver of all devices goes, with the module that it is in."""
        self._announce_driver("remove")

    def _announce_driver(self, action: str) -> None:
        if self.policy.module is not None:
            path = f"/bus/mdev/drivers/{self.policy.driver}"
            self.kernel.devices.announce(action, path, "drivers")

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
        """Unbind a device by name. Raises ENODEV, what the driver refuses with, or Underway."""
        mdev = self.devices.get(name)
        if mdev is None or mdev.driver is None:
            raise KernelError(ENODEV, f"{name!r} is not bound to {self.policy.driver}")
        self._end(mdev, Stage.UNBINDING)

    def remove(self, mdev: Mdev) -> None:
        """Remove a device. Raises what the driver refuses with; Underway while a user has it."""
        if mdev.stage is Stage.UNBINDING:
            mdev.stage = Stage.REMOVING
            self._directories_changed(mdev)
            mdev.wait()
        elif mdev.driver is not None:
            self._end(mdev, Stage.REMOVING)
        else:
            self._forget(mdev)

    def let_go(self, mdev: Mdev) -> None:
        """Finish what waits for the user of a device, who has just let go of it."""
        if mdev.stage is Stage.ALIVE:
            return
        removing = mdev.stage is Stage.REMOVING
        mdev.stage = Stage.ALIVE
        self._detach(mdev)
        if removing:
            self._forget(mdev)
        mdev.released.wake()

    def _end(self, mdev: Mdev, stage: Stage) -> None:
        """Unbind a device, and remove it; wait for its user, if there is one."""
        driver = mdev.parent.driver
        driver.release(mdev)
        if not driver.in_use(mdev):
            self._detach(mdev)
            if stage is Stage.REMOVING:
                self._forget(mdev)
            return
        mdev.stage, mdev.driver = stage, None
        self._directories_changed(mdev)
        if self.policy.vfio_leaves_first:
            self._hide_vfio_device(mdev)
            driver.request(mdev)
        mdev.wait()

    def _directories_changed(self, mdev: Mdev) -> None:
        self.kernel.bus.emit(Changed((mdev, *mdev.listed_in())))

    def _forget(self, mdev: Mdev) -> None:
        del self.devices[mdev.uuid], mdev.type.devices[mdev.uuid]
        self.kernel.devices.remove(mdev)

    def state(self) -> list[dict[str, Any]]:
        """Return the devices, in the order in which they were created, as plain data."""
        return [
            {
                "driver": mdev.driver,
                "group": mdev.group,
                "parent": mdev.parent.name,
                "stage": str(mdev.stage),
                "type": mdev.type.name,
                "uuid": mdev.uuid,
                "vfio": mdev.vfio,
            }
            for mdev in self.devices.values()
        ]

    def _attach(self, mdev: Mdev) -> None:
        """Bind a device to its driver. Like vfio_main.c:vfio_register_emulated_iommu_dev (v6.1)."""
        mdev.group = self.group_numbers.take()
        self.groups[mdev.group] = mdev
        if self.policy.vfio_devices:
            mdev.vfio, mdev.shows_vfio = self.vfio_numbers.take(), True
            self.vfio_devices[mdev.vfio] = mdev
        mdev.driver = self.policy.driver
        self.kernel.log(f"{mdev.driver} {mdev.uuid}: Adding to iommu group {mdev.group}")
        self.kernel.devices.add(mdev.vfio_group)
        if self.policy.vfio_devices:
            self.kernel.devices.add(mdev.vfio_device)
        self.kernel.devices.bind(mdev)

    def _detach(self, mdev: Mdev) -> None:
        """Unbind a device from its driver. Like vfio_main.c:vfio_unregister_group_dev (v6.1)."""
        self._hide_vfio_device(mdev)
        mdev.parent.driver.remove(mdev)
        vfio_group = mdev.vfio_group
        group, mdev.driver, mdev.group = mdev.group, None, NONE
        del self.groups[group]
        self.group_numbers.give_back(group)
        if mdev.vfio != NONE:
            self.vfio_numbers.give_back(mdev.vfio)
            mdev.vfio = NONE
        self.kernel.devices.remove(vfio_group)
        self.kernel.log(f"{self.policy.driver} {mdev.uuid}: Removing from iommu group {group}")
        self.kernel.devices.unbind(mdev)

    def _hide_vfio_device(self, mdev: Mdev) -> None:
        if mdev.shows_vfio:
            mdev.shows_vfio = False
            del self.vfio_devices[mdev.vfio]
            self.kernel.devices.remove(mdev.vfio_device)

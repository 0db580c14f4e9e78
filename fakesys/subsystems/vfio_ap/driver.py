"""The module vfio_ap: its queue driver, its matrix device, and what it does when queues move."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from errno import EAGAIN, EBUSY, ENODEV
from typing import Any

from fakesys.core.devices import Devices
from fakesys.core.errors import KernelError
from fakesys.core.kernel import Kernel
from fakesys.core.text import ids
from fakesys.subsystems.ap_bus.apqn import Apqn
from fakesys.subsystems.ap_bus.bus import ApBus
from fakesys.subsystems.ap_bus.drivers import QueueDriver
from fakesys.subsystems.ap_bus.hardware import Lpar
from fakesys.subsystems.ap_bus.queues.answers import NOT_AVAILABLE
from fakesys.subsystems.mdev.device import Mdev, MdevDriver, MdevParent, MdevType
from fakesys.subsystems.mdev.model import MdevBus
from fakesys.subsystems.s390dbf.model import DebugFeatures
from fakesys.subsystems.vfio_ap.assignments import Assignments, common_queues
from fakesys.subsystems.vfio_ap.matrix_mdev import MatrixMdev
from fakesys.subsystems.vfio_ap.messages import VfioApMessages
from fakesys.subsystems.vfio_ap.policy import NOTHING, Masks, VfioApPolicy
from fakesys.subsystems.vfio_ap.resets import QueueResets
from fakesys.subsystems.vfio_ap.state import RemovePolicy, VfioApState, masks_of

MAX_INSTANCES = 65536
MATRIX_DEVPATH = "/devices/vfio_ap/matrix"
MATRIX_TYPE = "vfio_ap-passthrough"


class QueueStatus(StrEnum):
    """What a queue bound to vfio_ap is used for."""

    UNASSIGNED = "unassigned"
    ASSIGNED = "assigned"
    IN_USE = "in use"


class RootDevice:
    """/sys/devices/vfio_ap, the parent of the matrix device. Without a bus it sends no uevents."""

    devpath = "/devices/vfio_ap"
    subsystem = ""

    def uevent_env(self) -> Mapping[str, str]:
        """Return no fields."""
        return {}

    def listed_in(self) -> Iterable[object]:
        """Return None, which stands for the directories above all mounts."""
        return (None,)


class MatrixDevice:
    """/sys/devices/vfio_ap/matrix, the parent of all mediated devices.

    The bus `matrix` has no other device, and comes and goes with this one; so its two files,
    `autoprobe` and `probe`, are here.
    """

    devpath = MATRIX_DEVPATH
    subsystem = "matrix"

    def __init__(self, devices: Devices, bus: MdevBus, driver: MdevDriver) -> None:
        self.devices = devices
        self.root = RootDevice()
        self.driver: str | None = None
        self.autoprobe = True
        names = {MATRIX_TYPE: "VFIO AP Passthrough Device"}
        self.parent = MdevParent(bus, self, MATRIX_DEVPATH, driver, names)

    @property
    def type(self) -> MdevType:
        """The one type of mediated device that it offers."""
        return self.parent.types[MATRIX_TYPE]

    def uevent_env(self) -> Mapping[str, str]:
        """Return its driver while it is bound."""
        return {"DRIVER": self.driver} if self.driver else {}

    def listed_in(self) -> Iterable[object]:
        """Return None, which stands for the directories above all mounts."""
        return (None,)

    def probe(self, name: str) -> None:
        """Offer a device to the drivers of the bus `matrix`. Raises ENODEV if unknown."""
        if name != self.parent.name:
            raise KernelError(ENODEV, f"{name!r} is no device of the bus matrix")


class VfioAp:
    """The module. Loaded, it has a queue driver on the AP bus and a parent of mediated devices.

    `matrix`: the matrix device, None while the module is not loaded.
    """

    def __init__(
        self,
        kernel: Kernel,
        bus: ApBus,
        mdev_bus: MdevBus,
        policy: VfioApPolicy,
        debug: DebugFeatures | None = None,
    ) -> None:
        self.driver = QueueDriver(bus, "vfio_ap", "vfio_ap", self, takes_host_queues=False)
        messages = VfioApMessages(debug or DebugFeatures(kernel))
        self.state = VfioApState(kernel, bus.state, policy, self.driver.bound, messages)
        self.assignments: Assignments[MatrixMdev] = Assignments()
        self.resets = QueueResets(self.state, self.assignments)
        self.matrix: MatrixDevice | None = None
        self._bus = bus
        self._mdev_bus = mdev_bus
        # What the machine gave in the present scan.
        self._added = NOTHING

    @property
    def mdevs(self) -> dict[str, MatrixMdev]:
        """The mediated devices by UUID, oldest first."""
        return self.assignments.holders

    def load(self) -> None:
        """Load the module: make the matrix device, bind unbound queues, offer mediated devices.

        Do nothing if it is loaded. Like vfio_ap_drv.c:vfio_ap_init (v6.1).
        """
        if self.matrix is not None:
            return
        self.state.query()
        devices = self.state.kernel.devices
        matrix = self.matrix = MatrixDevice(devices, self._mdev_bus, self._mdev_driver())
        devices.announce("add", "/bus/matrix", "bus")
        devices.add(matrix)
        matrix.driver = "vfio_ap"
        devices.bind(matrix)
        devices.announce("add", "/bus/matrix/drivers/vfio_ap", "drivers")
        self._bus.register(self.driver)
        self._mdev_bus.register(matrix.parent)
        devices.change(matrix, {"MDEV_STATE": "registered"})

    def unload(self) -> None:
        """Unload the module: remove mediated devices, unbind queues.

        Do nothing if it is not loaded. Raises EAGAIN while a guest has a device, as the call
        delete_module(2) does (kernel/module/main.c:try_stop_module, v6.1). Like
        vfio_ap_drv.c:vfio_ap_exit (v6.1).
        """
        if self.matrix is None:
            return
        if self.state.attached:
            raise KernelError(EAGAIN, f"{self.state.attached[0]} is open for a guest")
        devices, matrix = self.state.kernel.devices, self.matrix
        self._mdev_bus.unregister(matrix.parent)
        devices.change(matrix, {"MDEV_STATE": "unregistered"})
        self._mdev_bus.unregister_driver()
        self._bus.unregister(self.driver)
        matrix.driver = None
        devices.unbind(matrix)
        devices.announce("remove", "/bus/matrix/drivers/vfio_ap", "drivers")
        self.matrix = None
        devices.remove(matrix)
        devices.announce("remove", "/bus/matrix", "bus")

    def create(self, mdev: Mdev) -> MatrixMdev:
        """Probe a new mediated device: give it an empty matrix.

        Raises the policy's `no_instances_errno` when no instance is left. Like
        vfio_ap_ops.c:vfio_ap_mdev_probe (v6.1).
        """
        if not mdev.type.available:
            raise KernelError(self.state.policy.no_instances_errno, "no instance is left")
        made = MatrixMdev(mdev, self.state, self.assignments, self.resets)
        self.assignments.add(made)
        return made

    def release(self, mdev: Mdev) -> None:
        """Begin the removal of a device: of one in use, refuse it or detach the guest, or wait.

        Which of these is the setting `remove_policy`. Raises EBUSY for the first.
        """
        guest = self.mdevs[mdev.uuid].guest
        if guest is None or self.state.remove_policy is RemovePolicy.BLOCK:
            return
        if self.state.remove_policy is RemovePolicy.EBUSY:
            raise KernelError(EBUSY, f"{mdev.uuid} is open for {guest.name}")
        guest.detach()

    def is_in_use(self, mdev: Mdev) -> bool:
        """Return whether a guest has a device."""
        return self.mdevs[mdev.uuid].guest is not None

    def request(self, mdev: Mdev) -> None:
        """Ask the guest for a device, which no guest here listens for.

        Like vfio_ap_ops.c:vfio_ap_mdev_request (v6.12).
        """
        if self.state.policy.requests_device:
            self.state.kernel.log(
                f"vfio_ap_mdev {mdev.uuid}: No device request registered, "
                "blocked until released by user"
            )

    def remove(self, mdev: Mdev) -> None:
        """Take a mediated device out of service: reset its queues and free them.

        Like vfio_ap_ops.c:vfio_ap_mdev_remove (v6.1).
        """
        matrix_mdev = self.mdevs[mdev.uuid]
        matrix_mdev.reset()
        self.assignments.remove(matrix_mdev)

    def status(self, apqn: Apqn) -> QueueStatus:
        """Return what a queue is used for. Like vfio_ap_ops.c:status_show (v6.1)."""
        for uuid in self.state.attached:
            mdev = self.mdevs[uuid]
            if mdev.guest is not None and mdev.guest.ap and mdev.guest_masks.has(*apqn):
                return QueueStatus.IN_USE
        assigned = self.assignments.is_assigned(apqn)
        return QueueStatus.ASSIGNED if assigned else QueueStatus.UNASSIGNED

    def in_use(self, apmask: int, aqmask: int) -> bool:
        """Return whether the policy vetoes that these masks give the host a queue of a matrix.

        The log may name every such queue of the newest device that has one. Like
        vfio_ap_ops.c:vfio_ap_mdev_resource_in_use (v6.1).
        """
        masks = Masks(apmask, aqmask, 0)
        other = self.assignments.sharer(masks) if self.state.policy.vetoes else None
        if other is None:
            return False
        if self.state.policy.logs_refusals:
            for apqn in common_queues(masks, other.matrix):
                self.state.kernel.log(
                    f"vfio_ap_mdev {other.uuid}: Can not reserve queue {apqn} for host driver: "
                    "in use by mdev"
                )
        return True

    def queues_bound(self, apid: int, mask: int) -> None:
        """Give queues that were just bound to the guests of their devices.

        Like vfio_ap_ops.c:vfio_ap_mdev_probe_queue (v6.1).
        """
        if not self.state.policy.following.queues:
            return
        for mdev in self.assignments.holders_of(apid, mask):
            if self.state.policy.guest_decides and mdev.guest is None:
                continue
            # What the machine gave in this scan reaches the guest all at once, in `scan_complete`.
            added = self._added
            if not (added.apm & mdev.matrix.apm or added.aqm & mdev.matrix.aqm):
                mdev.plug(apid, mask)

    def queues_leaving(self, apid: int, mask: int) -> None:
        """Unplug queues from their guest, then reset them.

        In kernels that reset what leaves a guest, the first queue takes its whole adapter along;
        before that, some kernels leave the guest its queues.
        Like vfio_ap_ops.c:vfio_ap_mdev_remove_queue (v6.1, v6.12).
        """
        own_reset = mask
        for mdev in self.assignments.holders_of(apid, mask):
            mdev.forget_interrupts(apid, mask)
            if self._leaves_guest(mdev, apid, mask):
                mdev.unplug_adapter(apid)
                if self.state.policy.resets_filtered:
                    self.resets.reset({apid: mdev.guest_masks.aqm})
                    in_guest = mask & mdev.guest_masks.aqm
                    own_reset &= ~(in_guest & -in_guest)
        if self.state.policy.resets_filtered:
            # The reset of a queue that the machine took away would only fail.
            own_reset &= self.state.info.row(apid)
        self.resets.reset_row(apid, own_reset)
        self.resets.forget(apid, mask)

    def facilities_changed(self) -> None:
        """Be as if the module had been loaded on the machine that there is now."""
        if not self.state.policy.follows_machine:
            return
        self.state.query()
        for mdev in self.mdevs.values():
            mdev.refilter()
            mdev.refilter_control_domains()

    def config_changed(self, new: Lpar, old: Lpar) -> None:
        """Take from guests what the machine took away, at the beginning of a scan.

        Like vfio_ap_ops.c:vfio_ap_on_cfg_changed (v6.1).
        """
        if not self.state.policy.follows_machine:
            return
        gone = Masks(*(before & ~now for before, now in zip(old, new, strict=True)))
        for mdev in self.mdevs.values():
            mdev.unplug(gone)
        if self.mdevs:
            self._added = self._supported(masks_of(new), masks_of(old))
        self.state.info = masks_of(new)

    def _supported(self, new: Masks, old: Masks) -> Masks:
        """Return what came into the machine, without adapters that this module cannot use.

        An adapter is left out when one of its queues in the new domains does not answer. Like
        vfio_ap_ops.c:vfio_ap_filter_apid_by_qtype (v6.1, v6.12).
        """
        added = Masks(*(now & ~before for before, now in zip(old, new, strict=True)))
        hardware = self.state.hardware
        apm = added.apm
        for apid in ids(added.apm) if added.aqm else ():
            card = hardware.cards.get(apid)
            old_type = card is not None and card.spec.type < self.state.policy.oldest_added
            if old_type or NOT_AVAILABLE in hardware.by_answer(apid, added.aqm):
                apm &= ~(1 << apid)
        return added._replace(apm=apm)

    def scan_complete(self, new: Lpar, old: Lpar) -> None:
        """Give guests what the machine added, at the end of a scan.

        Like vfio_ap_ops.c:vfio_ap_on_scan_complete, vfio_ap_mdev_hot_plug_cfg (v6.1).
        """
        added, self._added = self._added, NOTHING
        for mdev in self.mdevs.values():
            if added.apm & mdev.matrix.apm or added.aqm & mdev.matrix.aqm:
                mdev.refilter()
            if added.adm & mdev.matrix.adm:
                mdev.refilter_control_domains()

    def plain(self) -> dict[str, Any]:
        """Return the module as plain data."""
        return {
            "bad_resets": self.resets.state(),
            "filter": str(self.state.filter),
            "loaded": self.matrix is not None,
            "mdevs": {uuid: mdev.state() for uuid, mdev in sorted(self.mdevs.items())},
            "remove_policy": str(self.state.remove_policy),
        }

    def _mdev_driver(self) -> MdevDriver:
        return MdevDriver(
            name="vfio_ap",
            device_api="vfio-ap",
            available=_instances_left,
            probe=self.create,
            release=self.release,
            in_use=self.is_in_use,
            request=self.request,
            remove=self.remove,
        )

    def _leaves_guest(self, mdev: MatrixMdev, apid: int, mask: int) -> bool:
        if not self.state.policy.following.queues:
            return False
        if self.state.policy.guest_decides:
            return mdev.guest is not None
        return bool(mdev.guest_masks.row(apid) & mask)


def _instances_left(kind: MdevType) -> int:
    return MAX_INSTANCES - len(kind.devices)

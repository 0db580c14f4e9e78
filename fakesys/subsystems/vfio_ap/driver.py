"""The module vfio_ap: the matrix device, its queues, and the rules that no two devices share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from errno import EBUSY, ENODEV
from typing import Any

from fakesys.core.errors import Blocked, KernelError
from fakesys.core.kernel import Kernel
from fakesys.core.text import ALL_IDS, ids
from fakesys.subsystems.ap_bus.apqn import Apqn
from fakesys.subsystems.ap_bus.bus import ApBus
from fakesys.subsystems.ap_bus.drivers import QueueDriver
from fakesys.subsystems.ap_bus.hardware import NORMAL, Lpar
from fakesys.subsystems.mdev.model import Mdev, MdevBus, MdevParent, MdevType
from fakesys.subsystems.vfio_ap.matrix_mdev import MatrixMdev
from fakesys.subsystems.vfio_ap.policy import NOTHING, Filtering, FilterName, Masks, VfioApPolicy

MAX_INSTANCES = 65536
MATRIX_DEVPATH = "/devices/vfio_ap/matrix"


class RemovePolicy(StrEnum):
    """What `remove` of a device with a guest does: refuse, wait, or ask the guest to let go."""

    EBUSY = "ebusy"
    BLOCK = "block"
    REQUEST = "request"


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
        """No fields."""
        return {}

    def listed_in(self) -> Iterable[object]:
        """The trunk directories."""
        return (None,)


class MatrixDevice:
    """/sys/devices/vfio_ap/matrix, the parent of all mediated devices."""

    devpath = MATRIX_DEVPATH
    subsystem = "matrix"

    def __init__(self, module: VfioAp) -> None:
        self.module = module
        self.root = RootDevice()
        self.driver: str | None = None
        # The bus of this name has no other device, and comes and goes with it.
        self.autoprobe = True
        self.type: MdevType = MdevType(
            name="vfio_ap-passthrough",
            device_api="vfio-ap",
            pretty_name="VFIO AP Passthrough Device",
            available=lambda: MAX_INSTANCES - len(self.type.devices),
            create=module.create,
            remove=module.remove,
        )
        self.parent = MdevParent(
            "matrix", "vfio_ap", MATRIX_DEVPATH, self, {self.type.name: self.type}
        )

    def uevent_env(self) -> Mapping[str, str]:
        """Its driver while bound."""
        return {"DRIVER": self.driver} if self.driver else {}

    def listed_in(self) -> Iterable[object]:
        """The trunk directories: it comes and goes with the module."""
        return (None,)

    def probe(self, name: str) -> None:
        """What `drivers_probe` of the bus `matrix` does. Raises ENODEV."""
        if name != self.parent.name:
            raise KernelError(ENODEV, f"{name!r} is no device of the bus matrix")


class VfioAp:
    """The module. Loaded: it has a queue driver on the AP bus and a parent of mdevs."""

    def __init__(self, kernel: Kernel, bus: ApBus, mdev_bus: MdevBus, policy: VfioApPolicy) -> None:
        self.kernel = kernel
        self.bus = bus
        self.hardware = bus.hardware
        self.policy = policy
        self.filter = FilterName.ADAPTER
        self.remove_policy = RemovePolicy.EBUSY
        self.mdevs: dict[str, MatrixMdev] = {}
        self.attached: dict[str, MatrixMdev] = {}
        self.driver = QueueDriver(bus, "vfio_ap", "vfio_ap", self, takes_host_queues=False)
        self.matrix: MatrixDevice | None = None
        self._mdev_bus = mdev_bus
        # Domains per adapter that are in some matrix; no queue is in two.
        self._assigned = [0] * 256
        # Answers other than normal to the last reset of a bound queue: answer -> rows.
        self._bad_resets: dict[int, list[int]] = {}
        self._added = NOTHING

    @property
    def filtering(self) -> Filtering:
        """How the guest's share is found."""
        return self.policy.filters[self.filter]

    @property
    def host(self) -> Masks:
        """The machine's masks as of the last scan."""
        lpar = self.bus.lpar
        return Masks(lpar.adapters, lpar.domains, lpar.control_domains)

    def load(self) -> None:
        """modprobe: the matrix device appears, free queues bind, mediated devices can be made.

        Like vfio_ap_drv.c:vfio_ap_init (v6.1).
        """
        if self.matrix is not None:
            return
        matrix = self.matrix = MatrixDevice(self)
        self.kernel.devices.add(matrix)
        matrix.driver = "vfio_ap"
        self.kernel.devices.bind(matrix)
        self.bus.register(self.driver)
        self._mdev_bus.register(matrix.parent)
        self.kernel.devices.change(matrix, {"MDEV_STATE": "registered"})

    def unload(self) -> None:
        """rmmod: mediated devices go, queues are free. Raises EBUSY while a guest has one.

        Like vfio_ap_drv.c:vfio_ap_exit (v6.1).
        """
        if self.matrix is None:
            return
        if self.attached:
            raise KernelError(EBUSY, f"{next(iter(self.attached))} is open for a guest")
        matrix = self.matrix
        self._mdev_bus.unregister(matrix.parent)
        self.kernel.devices.change(matrix, {"MDEV_STATE": "unregistered"})
        self.bus.unregister(self.driver)
        matrix.driver = None
        self.kernel.devices.unbind(matrix)
        self.matrix = None
        self.kernel.devices.remove(matrix)

    def create(self, mdev: Mdev) -> MatrixMdev:
        """A new mediated device, empty. Raises the kernel's errno when none is left."""
        if not mdev.type.available():
            raise KernelError(self.policy.no_instances_errno, "no instance is left")
        made = self.mdevs[mdev.uuid] = MatrixMdev(self, mdev)
        return made

    def remove(self, mdev: Mdev) -> None:
        """Take a device out of service. Raises EBUSY or Blocked while a guest has it."""
        matrix_mdev = self.mdevs[mdev.uuid]
        guest = matrix_mdev.guest
        if guest is not None:
            if self.remove_policy is RemovePolicy.EBUSY:
                raise KernelError(EBUSY, f"{mdev.uuid} is open for {guest.name}")
            if self.remove_policy is RemovePolicy.BLOCK:
                raise Blocked(matrix_mdev.released)
            guest.detach()
        matrix_mdev.reset()
        self.give(matrix_mdev.matrix, NOTHING)
        del self.mdevs[mdev.uuid]

    def give(self, old: Masks, new: Masks) -> None:
        """A matrix becomes another one; the caller has checked that nobody shares it."""
        for apid in ids(old.apm | new.apm):
            before = old.aqm if old.apm >> apid & 1 else 0
            after = new.aqm if new.apm >> apid & 1 else 0
            self._assigned[apid] = self._assigned[apid] & ~before | after

    def sharer(self, masks: Masks, own: MatrixMdev | None) -> MatrixMdev | None:
        """Another device that has a queue of these; the newest one, as the kernel's list goes.

        Like vfio_ap_ops.c:vfio_ap_mdev_verify_no_sharing (v6.1).
        """
        mine = own.matrix if own else NOTHING
        for apid in ids(masks.apm):
            others = self._assigned[apid] & (~mine.aqm if mine.apm >> apid & 1 else ALL_IDS)
            if others & masks.aqm:
                return self._newest_with(masks, own)
        return None

    def _newest_with(self, masks: Masks, own: MatrixMdev | None) -> MatrixMdev:
        return next(
            mdev
            for mdev in reversed(self.mdevs.values())
            if mdev is not own and mdev.matrix.apm & masks.apm and mdev.matrix.aqm & masks.aqm
        )

    def log_sharing(self, mdev: MatrixMdev, new: Masks, other: MatrixMdev) -> None:
        """Say for each queue who has it."""
        for apqn in _common(new, other.matrix):
            self.kernel.log(
                f"vfio_ap_mdev {mdev.uuid}: Userspace may not assign queue {apqn} to mdev: "
                f"already assigned to {other.uuid}"
            )

    def status(self, apqn: Apqn) -> QueueStatus:
        """What a queue is used for."""
        if not self._assigned[apqn.apid] >> apqn.apqi & 1:
            return QueueStatus.UNASSIGNED
        for mdev in self.attached.values():
            assert mdev.guest is not None
            if mdev.guest.ap and mdev.matrix.has(*apqn) and mdev.guest_masks.has(*apqn):
                return QueueStatus.IN_USE
        return QueueStatus.ASSIGNED

    def passable(self) -> Sequence[int]:
        """The bound domains per adapter whose last reset does not keep them from a guest."""
        rows = [self._bad_resets[rc] for rc in self.policy.bad_resets if rc in self._bad_resets]
        if not rows:
            return self.driver.bound
        return [bound & ~_union(rows, apid) for apid, bound in enumerate(self.driver.bound)]

    def reset(self, queues: Mapping[int, int]) -> None:
        """ZAPQ of those of these queues that are bound; a failure never stops anything."""
        for apid, wanted in queues.items():
            mask = wanted & self.driver.bound[apid]
            if mask:
                self._reset_row(apid, mask)

    def in_use(self, apmask: int, aqmask: int) -> bool:
        """Is a queue that these masks give to the host in a matrix?"""
        masks = Masks(apmask, aqmask, 0)
        other = self.sharer(masks, None)
        if other is None:
            return False
        for apqn in _common(masks, other.matrix):
            self.kernel.log(
                f"vfio_ap_mdev {other.uuid}: Can not reserve queue {apqn} for host driver: "
                "in use by mdev"
            )
        return True

    def queues_bound(self, apid: int, mask: int) -> None:
        """Like vfio_ap_ops.c:vfio_ap_mdev_probe_queue (v6.1)."""
        for mdev in self._with_queues(apid, mask):
            if self.policy.guest_decides and mdev.guest is None:
                continue
            # What the machine gave in this scan reaches the guest in one go, at its end.
            added = self._added
            if not (added.apm & mdev.matrix.apm or added.aqm & mdev.matrix.aqm):
                mdev.plug(apid, mask)

    def queues_leaving(self, apid: int, mask: int) -> None:
        """Like vfio_ap_ops.c:vfio_ap_mdev_remove_queue (v6.1, v6.12): unplug, then reset.

        Where what leaves a guest is reset, the first queue takes its whole adapter along.
        """
        own_reset = mask
        for mdev in self._with_queues(apid, mask):
            mdev.forget_interrupts(apid, mask)
            if self._leaves_guest(mdev, apid, mask):
                mdev.unplug_adapter(apid)
                if self.policy.resets_filtered:
                    self.reset({apid: mdev.guest_masks.aqm})
                    in_guest = mask & mdev.guest_masks.aqm
                    own_reset &= ~(in_guest & -in_guest)
        self._reset_row(apid, own_reset)
        for rows in self._bad_resets.values():
            rows[apid] &= ~mask

    def config_changed(self, new: Lpar, old: Lpar) -> None:
        """Like vfio_ap_ops.c:vfio_ap_on_cfg_changed (v6.1)."""
        if not self.policy.follows_machine:
            return
        gone = Masks(*(before & ~now for before, now in zip(old, new, strict=True)))
        self._added = Masks(*(now & ~before for before, now in zip(old, new, strict=True)))
        for mdev in self.mdevs.values():
            mdev.unplug(gone)

    def scan_complete(self, new: Lpar, old: Lpar) -> None:
        """Like vfio_ap_ops.c:vfio_ap_on_scan_complete (v6.1)."""
        added, self._added = self._added, NOTHING
        for mdev in self.mdevs.values():
            if any(assigned & more for assigned, more in zip(mdev.matrix, added, strict=True)):
                mdev.refilter()

    def state(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "bad_resets": {
                f"{rc:02x}": {f"{apid:02x}": hex(mask) for apid, mask in enumerate(rows) if mask}
                for rc, rows in sorted(self._bad_resets.items())
            },
            "filter": str(self.filter),
            "loaded": self.matrix is not None,
            "mdevs": {uuid: mdev.state() for uuid, mdev in sorted(self.mdevs.items())},
            "remove_policy": str(self.remove_policy),
        }

    def _leaves_guest(self, mdev: MatrixMdev, apid: int, mask: int) -> bool:
        if self.policy.guest_decides:
            return mdev.guest is not None
        return bool(mdev.guest_masks.apm >> apid & 1 and mdev.guest_masks.aqm & mask)

    def _with_queues(self, apid: int, mask: int) -> list[MatrixMdev]:
        if not self._assigned[apid] & mask:
            return []
        return [
            mdev
            for mdev in self.mdevs.values()
            if mdev.matrix.apm >> apid & 1 and mdev.matrix.aqm & mask
        ]

    def _reset_row(self, apid: int, mask: int) -> None:
        answers = self.hardware.zeroize(apid, mask)
        for rc in answers:
            if rc != NORMAL:
                self._bad_resets.setdefault(rc, [0] * 256)
        for rc, rows in self._bad_resets.items():
            rows[apid] = rows[apid] & ~mask | answers.get(rc, 0)
        for mdev in self._with_queues(apid, mask):
            mdev.forget_interrupts(apid, mask)


def _union(rows: Sequence[Sequence[int]], apid: int) -> int:
    mask = 0
    for row in rows:
        mask |= row[apid]
    return mask


def _common(one: Masks, other: Masks) -> Iterable[Apqn]:
    for apid in ids(one.apm & other.apm):
        for apqi in ids(one.aqm & other.aqm):
            yield Apqn(apid, apqi)

"""Mediated devices in a snapshot, without what their parent's driver made for them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fakesys.core.devices import is_uuid
from fakesys.core.saved import Line, Saved, check, check_unique, refuse
from fakesys.subsystems.mdev.model import NONE, Mdev, MdevBus, MdevType, Numbers

# No more devices can be made at one time, so no number is higher.
MOST = 65536


class SavedMdev(Saved, frozen=True):
    """A device. `group`, `vfio`: -1 while it is not bound."""

    parent: Line
    type: Line
    uuid: Line
    group: Annotated[int, Meta(ge=NONE, lt=MOST)]
    vfio: Annotated[int, Meta(ge=NONE, lt=MOST)]


class SavedMdevBus(Saved, frozen=True):
    """The bus; the devices are in the order of their creation.

    `groups`, `vfio_devices`: the numbers above all that were given out.
    """

    autoprobe: bool
    groups: Annotated[int, Meta(ge=0, le=MOST)]
    vfio_devices: Annotated[int, Meta(ge=0, le=MOST)]
    devices: tuple[SavedMdev, ...]


def save(bus: MdevBus) -> SavedMdevBus:
    """Return what a snapshot holds of the bus."""
    return SavedMdevBus(
        autoprobe=bus.autoprobe,
        groups=bus.group_numbers.end,
        vfio_devices=bus.vfio_numbers.end,
        devices=tuple(_save_device(mdev) for mdev in bus.devices.values()),
    )


def _save_device(mdev: Mdev) -> SavedMdev:
    return SavedMdev(
        parent=mdev.parent.name,
        type=mdev.type.name,
        uuid=mdev.uuid,
        group=mdev.group,
        vfio=mdev.vfio,
    )


def restore(saved: SavedMdevBus, bus: MdevBus) -> None:
    """Fill a bus without devices, whose parents are registered. Raises BadSnapshotError.

    The driver of each parent adds the `data` of its devices afterwards.
    """
    bus.autoprobe = saved.autoprobe
    check_unique([device.uuid for device in saved.devices], "a mediated device")
    for device in saved.devices:
        _restore_device(device, bus)
    bound = [mdev for mdev in bus.devices.values() if mdev.driver]
    _restore_numbers(bus.group_numbers, saved.groups, [mdev.group for mdev in bound])
    _restore_numbers(bus.vfio_numbers, saved.vfio_devices, [mdev.vfio for mdev in bound])
    bus.groups = {mdev.group: mdev for mdev in bound}
    bus.vfio_devices = {mdev.vfio: mdev for mdev in bound}


def _restore_device(saved: SavedMdev, bus: MdevBus) -> None:
    uuid = saved.uuid
    check(is_uuid(uuid) and uuid == uuid.lower(), f"{uuid!r} is no UUID of a device")
    kind = _type(saved, bus)
    mdev = bus.devices[uuid] = kind.devices[uuid] = Mdev(kind, uuid)
    mdev.group, mdev.vfio = saved.group, saved.vfio
    check((mdev.group == NONE) == (mdev.vfio == NONE), f"{uuid} is bound in half")
    if mdev.group != NONE:
        mdev.driver = bus.policy.driver


def _type(saved: SavedMdev, bus: MdevBus) -> MdevType:
    parent = bus.parents.get(saved.parent)
    kind = None if parent is None else parent.types.get(saved.type)
    if kind is None:
        refuse(f"{saved.uuid} is of a type that nothing offers")
    return kind


def _restore_numbers(numbers: Numbers, end: int, taken: list[int]) -> None:
    check_unique(taken, "the number of a group or vfio device")
    check(all(number < end for number in taken), "a number that was not given out yet")
    numbers.restore(end, set(taken))

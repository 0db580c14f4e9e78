"""Mediated devices in a snapshot, without what their parent's driver made for them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fakesys.core.devices import is_uuid
from fakesys.core.saved import Line, Saved, check, check_unique, refuse
from fakesys.subsystems.mdev.device import NONE, Mdev, MdevType, Stage
from fakesys.subsystems.mdev.model import MdevBus
from fakesys.subsystems.mdev.numbers import Numbers

# No more devices can be made at one time, so no number is higher.
MOST = 65536


class SavedMdev(Saved, frozen=True):
    """A device. `group`, `vfio`: -1 while it has none."""

    parent: Line
    type: Line
    uuid: Line
    group: Annotated[int, Meta(ge=NONE, lt=MOST)]
    vfio: Annotated[int, Meta(ge=NONE, lt=MOST)]
    bound: bool
    stage: Stage


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
        bound=mdev.driver is not None,
        stage=mdev.stage,
    )


def restore(saved: SavedMdevBus, bus: MdevBus) -> None:
    """Fill a bus without devices, whose parents are registered. Raises BadSnapshotError.

    The driver of each parent adds the `data` of its devices afterwards.
    """
    bus.autoprobe = saved.autoprobe
    check_unique([device.uuid for device in saved.devices], "a mediated device")
    for device in saved.devices:
        _restore_device(device, bus)
    grouped = [mdev for mdev in bus.devices.values() if mdev.group != NONE]
    with_vfio = [mdev for mdev in bus.devices.values() if mdev.vfio != NONE]
    _restore_numbers(bus.group_numbers, saved.groups, [mdev.group for mdev in grouped])
    _restore_numbers(bus.vfio_numbers, saved.vfio_devices, [mdev.vfio for mdev in with_vfio])
    bus.groups = {mdev.group: mdev for mdev in grouped}
    for mdev in with_vfio:
        mdev.shows_vfio = mdev.stage is Stage.ALIVE or not bus.policy.vfio_leaves_first
    bus.vfio_devices = {mdev.vfio: mdev for mdev in with_vfio if mdev.shows_vfio}


def _restore_device(saved: SavedMdev, bus: MdevBus) -> None:
    uuid = saved.uuid
    check(is_uuid(uuid) and uuid == uuid.lower(), f"{uuid!r} is no UUID of a device")
    kind = _type(saved, bus)
    mdev = bus.devices[uuid] = kind.devices[uuid] = Mdev(kind, uuid)
    mdev.group, mdev.vfio = saved.group, saved.vfio
    mdev.stage = saved.stage
    if saved.bound:
        mdev.driver = bus.policy.driver
    check(not saved.bound or mdev.stage is Stage.ALIVE, f"the end of {uuid} has come in half")
    check(mdev.in_service == (mdev.group != NONE), f"{uuid} is bound in half")
    has_vfio = mdev.in_service and bus.policy.vfio_devices
    check(has_vfio == (mdev.vfio != NONE), f"{uuid} has half of its vfio device")


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

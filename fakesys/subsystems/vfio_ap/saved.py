"""The module vfio_ap, its mediated devices and the guests in a snapshot."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fakesys.core.saved import (
    U8,
    Line,
    Mask,
    Saved,
    check,
    check_unique,
    mask_of,
    mask_text,
    refuse,
)
from fakesys.core.text import ids
from fakesys.subsystems.ap_bus.apqn import Apqn
from fakesys.subsystems.mdev.device import Stage
from fakesys.subsystems.mdev.model import MdevBus
from fakesys.subsystems.vfio_ap.driver import VfioAp
from fakesys.subsystems.vfio_ap.guest import LAST_ISC, Guests, is_guest_name
from fakesys.subsystems.vfio_ap.matrix_mdev import MatrixMdev
from fakesys.subsystems.vfio_ap.policy import FilterName, Masks
from fakesys.subsystems.vfio_ap.state import RemovePolicy

SavedMasks = tuple[Mask, Mask, Mask]
Isc = Annotated[int, Meta(ge=0, le=LAST_ISC)]


class SavedMatrixMdev(Saved, frozen=True):
    """A bound mediated device; `interrupts`: adapter, domain, subclass. Else as `MatrixMdev`."""

    uuid: Line
    matrix: SavedMasks
    guest_masks: SavedMasks
    max_apid: U8
    max_apqi: U8
    interrupts: tuple[tuple[U8, U8, Isc], ...]


class SavedGuest(Saved, frozen=True):
    """A guest; `mdev`: the UUID of the device that it has open."""

    name: Line
    ap: bool
    mdev: Line | None


class SavedVfioAp(Saved, frozen=True):
    """The module and the guests. `autoprobe`: of the bus `matrix`, None while it is not loaded.

    `info`: the machine's masks as the module knows them. `remove_policy`: None: the kernel's.
    `bad_resets`: an answer, then adapter and domains of the queues that gave it. `mdevs`: the bound
    devices in the order of their creation. `attached`: UUIDs in the order of opening.
    """

    autoprobe: bool | None
    filter: FilterName
    remove_policy: RemovePolicy | None
    info: SavedMasks
    bad_resets: Annotated[
        tuple[tuple[U8, Annotated[tuple[tuple[U8, Mask], ...], Meta(max_length=256)]], ...],
        Meta(max_length=256),
    ]
    mdevs: tuple[SavedMatrixMdev, ...]
    guests: tuple[SavedGuest, ...]
    attached: tuple[Line, ...]


def save(module: VfioAp, guests: Guests) -> SavedVfioAp:
    """Return what a snapshot holds of module and guests."""
    state, matrix = module.state, module.matrix
    return SavedVfioAp(
        autoprobe=None if matrix is None else matrix.autoprobe,
        filter=state.filter,
        remove_policy=state.chosen_policy,
        info=_save_masks(state.info),
        bad_resets=tuple(
            (rc, tuple((apid, mask_text(mask)) for apid, mask in enumerate(rows) if mask))
            for rc, rows in module.resets.bad.items()
        ),
        mdevs=tuple(_save_mdev(mdev) for mdev in module.mdevs.values()),
        guests=tuple(
            SavedGuest(name=name, ap=guest.ap, mdev=guest.mdev.uuid if guest.mdev else None)
            for name, guest in guests.by_name.items()
        ),
        attached=tuple(state.attached),
    )


def _save_mdev(mdev: MatrixMdev) -> SavedMatrixMdev:
    return SavedMatrixMdev(
        uuid=mdev.uuid,
        matrix=_save_masks(mdev.matrix),
        guest_masks=_save_masks(mdev.guest_masks),
        max_apid=mdev.max_apid,
        max_apqi=mdev.max_apqi,
        interrupts=tuple((*apqn, isc) for apqn, isc in mdev.interrupts.items()),
    )


def _save_masks(masks: Masks) -> SavedMasks:
    return mask_text(masks.apm), mask_text(masks.aqm), mask_text(masks.adm)


def restore(saved: SavedVfioAp, module: VfioAp, mdev_bus: MdevBus, guests: Guests) -> None:
    """Fill a module without devices. Raises BadSnapshotError.

    Precondition: the module is loaded if it is in the snapshot (`autoprobe`); the AP bus and the
    bus of mediated devices are restored.
    """
    state = module.state
    check(saved.filter in state.policy.filters, f"no filter {saved.filter} in this kernel")
    state.filter, state.chosen_policy = saved.filter, saved.remove_policy
    state.info = Masks(*map(mask_of, saved.info))
    if module.matrix is not None:
        module.matrix.autoprobe = bool(saved.autoprobe)
    bad = {rc: {apid: mask_of(mask) for apid, mask in rows} for rc, rows in saved.bad_resets}
    check_unique([rc for rc, _ in saved.bad_resets], "an answer to a reset")
    module.resets.restore(bad)
    _restore_mdevs(saved.mdevs, module, mdev_bus)
    for guest in saved.guests:
        _restore_guest(guest, module, guests)
    check_unique(saved.attached, "an attached device")
    attached = {guest.mdev.uuid for guest in guests.by_name.values() if guest.mdev}
    check(attached == set(saved.attached), "a device is attached without a guest, or not at all")
    for mdev in mdev_bus.devices.values():
        waits = mdev.stage is not Stage.ALIVE
        check(not waits or mdev.uuid in attached, f"the end of {mdev.uuid} waits for no guest")
    state.attached = list(saved.attached)


def _restore_mdevs(saved: tuple[SavedMatrixMdev, ...], module: VfioAp, mdev_bus: MdevBus) -> None:
    for mdev in mdev_bus.devices.values():
        mdev.data = MatrixMdev(mdev, module.state, module.assignments, module.resets)
    bound = [mdev for mdev in mdev_bus.devices.values() if mdev.in_service]
    check(
        [mdev.uuid for mdev in saved] == [mdev.uuid for mdev in bound],
        "the matrices are not those of the bound devices",
    )
    for matrix, mdev in zip(saved, bound, strict=True):
        _restore_mdev(matrix, mdev.data, module)


def _restore_mdev(saved: SavedMatrixMdev, mdev: MatrixMdev, module: VfioAp) -> None:
    new, guest_masks = Masks(*map(mask_of, saved.matrix)), Masks(*map(mask_of, saved.guest_masks))
    mdev.max_apid, mdev.max_apqi = saved.max_apid, saved.max_apqi
    beyond = new.apm >> (mdev.max_apid + 1) or (new.aqm | new.adm) >> (mdev.max_apqi + 1)
    check(not beyond, f"{mdev.uuid} has an ID above its maximum")
    check(module.assignments.sharer(new) is None, f"{mdev.uuid} has queues of another device")
    policy = module.state.policy
    for apid in ids(new.apm) if policy.vetoes else ():
        host = module.state.bus.host_domains(apid) & new.aqm
        check(not host, f"{mdev.uuid} has queues of the host")
    for given, assigned in zip(guest_masks, new, strict=True):
        less = not given & ~assigned
        check(less or not policy.following.matrix, f"{mdev.uuid} gives what is not assigned")
    module.assignments.add(mdev)
    module.assignments.give(mdev, new)
    mdev.guest_masks = guest_masks
    mdev.interrupts = {Apqn(apid, apqi): isc for apid, apqi, isc in saved.interrupts}
    check(len(mdev.interrupts) == len(saved.interrupts), "an interrupt occurs twice")
    check(all(new.has(*apqn) for apqn in mdev.interrupts), "interrupts of a queue without guest")


def _restore_guest(saved: SavedGuest, module: VfioAp, guests: Guests) -> None:
    name = saved.name
    check(is_guest_name(name), f"{name!r} is no name of a guest")
    check(name not in guests.by_name, f"there are two guests {name}")
    guest = guests.create(name, ap=saved.ap)
    if saved.mdev is None:
        return
    mdev = module.mdevs.get(saved.mdev)
    if mdev is None or mdev.guest is not None:
        refuse(f"guest {name} has a device that is not there, or another guest's")
    guest.mdev, mdev.guest = mdev, guest

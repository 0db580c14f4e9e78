"""The AP part of a machine in a snapshot: its models in the order in which they need each other."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fakesys.core.saved import Saved
from fakesys.subsystems.ap_bus.saved.bus import SavedBus, restore_bus, save_bus
from fakesys.subsystems.ap_bus.saved.hardware import SavedHardware, restore_hardware, save_hardware
from fakesys.subsystems.ap_control.model import ApSystem
from fakesys.subsystems.device_nodes import saved as nodes
from fakesys.subsystems.mdev import saved as mdev
from fakesys.subsystems.s390dbf import saved as s390dbf
from fakesys.subsystems.vfio_ap import saved as vfio_ap


class SavedAp(Saved, frozen=True):
    """Hardware, bus, mediated devices, module and guests; a parameter of zcrypt."""

    hardware: SavedHardware
    bus: SavedBus
    mdev: mdev.SavedMdevBus
    vfio_ap: vfio_ap.SavedVfioAp
    nodes: nodes.SavedNodes
    debug: s390dbf.SavedFeatures
    hwrng_seed: Annotated[int, Meta(ge=-(1 << 31), lt=1 << 31)]


def save(system: ApSystem) -> SavedAp:
    """Return what a snapshot holds of the AP part."""
    return SavedAp(
        hardware=save_hardware(system.hardware),
        bus=save_bus(system.bus),
        mdev=mdev.save(system.mdev_bus),
        vfio_ap=vfio_ap.save(system.vfio_ap, system.guests),
        nodes=nodes.save(system.nodes),
        debug=s390dbf.save(system.debug),
        hwrng_seed=system.hwrng_seed,
    )


def restore(saved: SavedAp, system: ApSystem) -> None:
    """Replace the models of a system by those of a snapshot. Raises BadSnapshotError.

    Precondition: the clock was restored, and nobody has seen a model of the system yet.
    """
    system.clear()
    # Without cards and devices, loading does nothing but register the driver and the parent.
    if saved.vfio_ap.autoprobe is not None:
        system.vfio_ap.load()
    restore_hardware(saved.hardware, system.hardware)
    restore_bus(saved.bus, system.bus)
    mdev.restore(saved.mdev, system.mdev_bus)
    vfio_ap.restore(saved.vfio_ap, system.vfio_ap, system.mdev_bus, system.guests)
    system.hwrng_seed = saved.hwrng_seed
    s390dbf.restore(saved.debug, system.debug)

"""How mediated devices of one kernel differ from another's."""

from __future__ import annotations

from msgspec import Struct

from fakesys.core.features import Feature


class MdevFeature(Feature):
    """Differences between kernels in the files of mediated devices."""

    BIND = "mdev.bind"


class MdevPolicy(Struct, frozen=True):
    """The choices of one kernel.

    `driver`: name of the driver that takes every mediated device of vfio_ap. `module`: the module
    of that driver, None if it has no directory. `vfio_devices`: does each mediated device have a
    device of class vfio-dev below it, and its group a name?
    `vfio_leaves_first`: is that device removed before the removal of a device in use waits? The
    driver is asked to request it back from its user then.
    """

    driver: str
    module: str | None
    vfio_devices: bool
    vfio_leaves_first: bool = False

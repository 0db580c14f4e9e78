"""What differs between kernels in mediated devices."""

from __future__ import annotations

from msgspec import Struct

from fakesys.core.features import Feature


class MdevFeature(Feature):
    """Differences between kernels in the files of mediated devices."""

    BIND = "mdev.bind"


class MdevPolicy(Struct, frozen=True):
    """`driver`: name of the driver that takes every mediated device of vfio_ap.
    `module`: the one that it belongs to, None if there is no directory of it.
    `vfio_devices`: does each have a device of class vfio-dev below it, and its group a name?
    """

    driver: str
    module: str | None
    vfio_devices: bool

"""The modules of the AP part: what loading and removing each of them does to the models."""

from __future__ import annotations

from typing import Protocol

from fakesys.core.boot.command_line import param_int
from fakesys.subsystems.ap_bus.bus import ApBus
from fakesys.subsystems.device_nodes.model import DeviceNodes
from fakesys.subsystems.mdev.model import MdevBus
from fakesys.subsystems.modules import known
from fakesys.subsystems.modules.model import Module, Modules
from fakesys.subsystems.vfio_ap.driver import VfioAp


class System(Protocol):
    """The models of now, and a parameter of zcrypt."""

    hwrng_seed: int
    bus: ApBus
    mdev_bus: MdevBus
    vfio_ap: VfioAp
    nodes: DeviceNodes


def register(modules: Modules, system: System) -> None:
    """Make the modules of the AP part known. Their models may be replaced by others later."""

    def set_seeding(value: str | None) -> None:
        system.hwrng_seed = param_int(value)

    def seed_by_default() -> None:
        system.hwrng_seed = 1

    for module in (
        Module(known.AP),
        Module(
            known.ZCRYPT,
            init=lambda: system.nodes.module_loaded("zcrypt", "zcrypt"),
            exit=lambda: system.nodes.module_removed("zcrypt", "zcrypt"),
            defaults=seed_by_default,
            params={"hwrng_seed": set_seeding},
        ),
        Module(
            known.ZCRYPT_CEX4,
            init=lambda: system.bus.register_host_drivers(),
            exit=lambda: system.bus.unregister_host_drivers(),
        ),
        Module(
            known.PKEY,
            init=lambda: system.nodes.module_loaded("pkey"),
            exit=lambda: system.nodes.module_removed("pkey"),
        ),
        Module(
            known.VFIO,
            init=lambda: system.nodes.module_loaded("vfio", "vfio", "vfio-dev"),
            exit=lambda: system.nodes.module_removed("vfio", "vfio", "vfio-dev"),
        ),
        Module(
            known.MDEV,
            init=lambda: system.mdev_bus.module_loaded(),
            exit=lambda: system.mdev_bus.module_removed(),
        ),
        Module(
            known.VFIO_AP,
            init=lambda: system.vfio_ap.load(),
            exit=lambda: system.vfio_ap.unload(),
            users=lambda: len(system.vfio_ap.state.attached),
        ),
    ):
        modules.register(module)

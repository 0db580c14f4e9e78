"""The AP bus, mediated devices and vfio_ap in a machine: models and files put together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fakesys.core.features import FeatureSet
from fakesys.core.journal import LineLog, UeventLog
from fakesys.core.kernel import Kernel
from fakesys.machine.kernels.ap import ApKernel
from fakesys.subsystems.ap_bus.files import bus as bus_files
from fakesys.subsystems.ap_bus.hardware_spec import HardwareSpec
from fakesys.subsystems.ap_bus.keys.secure_keys import SecureKeys
from fakesys.subsystems.ap_control import files as control_files
from fakesys.subsystems.ap_control import hardware_files
from fakesys.subsystems.ap_control.files import ApKernelChoice
from fakesys.subsystems.ap_control.model import ApPolicies, ApSystem
from fakesys.subsystems.device_nodes import dev_files
from fakesys.subsystems.device_nodes import files as node_files
from fakesys.subsystems.mdev import files as mdev_files
from fakesys.subsystems.modules.model import Modules
from fakesys.subsystems.s390dbf import files as debug_files
from fakesys.subsystems.vfio_ap import files as vfio_ap_files
from fakesys.tree.attr import Attr, Mount


class ApSubsystem:
    """The AP part of a machine, as the kernel that was chosen last has it."""

    def __init__(self, kernel: Kernel, ap: ApKernel, system: ApSystem) -> None:
        self._kernel = kernel
        self._ap = ap
        self.system = system
        self._dev = dev_files.top(kernel.bus, self._with_nodes)

    @property
    def features(self) -> FeatureSet:
        """The features of the chosen kernel."""
        return self._ap.features

    def use(self, ap: ApKernel) -> None:
        """Behave like this kernel. Raises EBUSY while a mediated device or a guest exists."""
        if ap is not self._ap:
            self.system.use(_policies(ap))
            self._ap = ap

    def mounts(self, choice: ApKernelChoice, uevents: UeventLog, log: LineLog) -> tuple[Mount, ...]:
        """Return the mount points of the AP part's files."""
        system, devices = self.system, self._kernel.devices
        return (
            *bus_files.mounts(
                lambda: system.bus,
                devices,
                queue_rows=vfio_ap_files.queue_rows(lambda: system.vfio_ap),
                drivers=vfio_ap_files.driver_rows(),
            ),
            *mdev_files.mounts(lambda: system.mdev_bus, devices, system.modules.is_loaded),
            *node_files.mounts(lambda: system.nodes, devices, SecureKeys(lambda: system.bus)),
            dev_files.mount(self._dev),
            debug_files.mount(lambda: system.debug),
            *vfio_ap_files.mounts(lambda: system.vfio_ap, devices),
            *control_files.mounts(system, choice, uevents, log),
        )

    def _with_nodes(self) -> Iterator[dev_files.WithNode]:
        """Yield every device that has a node now."""
        yield from self.system.nodes.present()
        for mdev in self.system.mdev_bus.groups.values():
            yield mdev.vfio_group

    def faults(self) -> tuple[Attr[Any], ...]:
        """Return the AP part's files below `fakesys/faults/`."""
        return hardware_files.fault_rows(lambda: self.system)


def ap_of(
    kernel: Kernel, ap: ApKernel, spec: HardwareSpec, modules: Modules | None = None
) -> ApSubsystem:
    """Return the AP part of a machine with this hardware, as the kernel `ap` has it.

    `modules`: the register of the machine, which gets the modules of the AP part.
    """
    return ApSubsystem(kernel, ap, ApSystem(kernel, spec, _policies(ap), modules))


def _policies(ap: ApKernel) -> ApPolicies:
    return ApPolicies(ap.bus, ap.mdev, ap.vfio_ap, ap.debug)

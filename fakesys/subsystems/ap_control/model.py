"""The AP part of a machine as a whole: built from hardware, rebuilt, examined. Knows no text."""

from __future__ import annotations

from errno import EBUSY, EINVAL
from typing import Any, NamedTuple

from fakesys.core.errors import KernelError
from fakesys.core.events import Changed, Uevent
from fakesys.core.kernel import Kernel
from fakesys.subsystems.ap_bus.bus import ApBus
from fakesys.subsystems.ap_bus.hardware import Hardware
from fakesys.subsystems.ap_bus.hardware_spec import PRESETS, HardwareSpec
from fakesys.subsystems.ap_bus.module.params import boot_params
from fakesys.subsystems.ap_bus.policy import BusPolicy
from fakesys.subsystems.ap_control.modules import register
from fakesys.subsystems.device_nodes.model import DeviceNodes
from fakesys.subsystems.mdev.model import MdevBus
from fakesys.subsystems.mdev.policy import MdevPolicy
from fakesys.subsystems.modules.known import AP_MODULES
from fakesys.subsystems.modules.model import Modules
from fakesys.subsystems.s390dbf.model import DebugFeatures, DebugPolicy
from fakesys.subsystems.vfio_ap.driver import VfioAp
from fakesys.subsystems.vfio_ap.guest import Guests
from fakesys.subsystems.vfio_ap.policy import VfioApPolicy


class ApPolicies(NamedTuple):
    """The choices of one kernel, for each of the four subsystems."""

    bus: BusPolicy
    mdev: MdevPolicy
    vfio_ap: VfioApPolicy
    debug: DebugPolicy


class ApSystem:
    """Hardware, bus, mediated devices, module, guests, device nodes, messages of one machine.

    A preset or a reset replaces all these models; callers must not keep one of them.
    """

    hardware: Hardware
    bus: ApBus
    mdev_bus: MdevBus
    vfio_ap: VfioAp
    guests: Guests
    nodes: DeviceNodes
    debug: DebugFeatures

    def __init__(
        self,
        kernel: Kernel,
        spec: HardwareSpec,
        policies: ApPolicies,
        modules: Modules | None = None,
    ) -> None:
        self.kernel = kernel
        self.modules = modules or Modules(kernel)
        # A parameter of zcrypt: whether random numbers of the cards feed the kernel's.
        self.hwrng_seed = 1
        self._params = boot_params(self.modules.boot.of("ap"), kernel.log)
        self._first_spec = spec
        self._policies = policies
        register(self.modules, self)
        self._build(spec)
        kernel.bus.subscribe(Uevent, self._on_uevent)

    @property
    def idle(self) -> bool:
        """Whether there is neither a mediated device nor a guest."""
        return not self.mdev_bus.devices and not self.guests.by_name

    def require_idle(self) -> None:
        """Refuse while a mediated device or a guest exists. Raises EBUSY."""
        if not self.idle:
            raise KernelError(EBUSY, "a mediated device or a guest exists")

    def use(self, policies: ApPolicies) -> None:
        """Behave like another kernel; masks and hardware stay. Raises EBUSY."""
        self.require_idle()
        self._policies = policies
        self.mdev_bus.policy = policies.mdev
        self.vfio_ap.state.policy = policies.vfio_ap
        self.debug.use(policies.debug)
        # Last, as the bus removes and makes devices, which vfio_ap is told of.
        self.bus.use(policies.bus)

    def load_preset(self, name: str) -> None:
        """Build another machine from a preset. Raises EINVAL for no such preset, then EBUSY."""
        if name not in PRESETS:
            raise KernelError(EINVAL, f"{name!r} is no preset ({', '.join(PRESETS)})")
        self.require_idle()
        self._rebuild(PRESETS[name])

    def reset(self) -> None:
        """Remove guests and mediated devices, and build the machine as it was at the start."""
        for name in list(self.guests.by_name):
            self.guests.remove(name)
        self.vfio_ap.unload()
        self._rebuild(self._first_spec)

    def set_max_adapter_id(self, highest: int) -> None:
        """Set the highest adapter ID.

        Raises EBUSY while a card or an assigned adapter is above it, EINVAL outside 0-255.
        """
        self._refuse_beyond(highest, adapters=True)
        self.hardware.set_max_adapter_id(highest)

    def set_max_domain_id(self, highest: int) -> None:
        """Set the highest domain ID.

        Raises EBUSY while an assigned domain is above it, EINVAL outside 0-255.
        """
        self._refuse_beyond(highest, adapters=False)
        self.hardware.set_max_domain_id(highest)

    def state(self) -> dict[str, Any]:
        """Return all models as plain data."""
        return {
            "bus": self.bus.state.plain(),
            "debug": self.debug.state(),
            "guests": self.guests.state(),
            "hardware": self.hardware.state(),
            "mdev": self.mdev_bus.state(),
            "nodes": self.nodes.state(),
            "vfio_ap": self.vfio_ap.plain(),
        }

    def _refuse_beyond(self, highest: int, *, adapters: bool) -> None:
        for mdev in self.vfio_ap.mdevs.values():
            matrix = mdev.matrix
            mask = matrix.apm if adapters else matrix.aqm | matrix.adm
            if 0 <= highest < mask.bit_length() - 1:
                raise KernelError(EBUSY, f"{mdev.uuid} has an ID above {highest}")

    def clear(self) -> None:
        """Replace all models by some that are empty and not started, for a snapshot to fill."""
        self.bus.stop()
        self._make(HardwareSpec())

    def _rebuild(self, spec: HardwareSpec) -> None:
        self.bus.stop()
        self._build(spec)
        self.kernel.bus.emit(Changed((None, self), deep=True))

    def _build(self, spec: HardwareSpec) -> None:
        self._make(spec)
        self.modules.at_boot(info.name for info in AP_MODULES)
        self.bus.start()
        self.vfio_ap.load()

    def _make(self, spec: HardwareSpec) -> None:
        policies = self._policies
        self.hardware = Hardware(spec, self.kernel.bus, self)
        self.debug = DebugFeatures(self.kernel, self.modules.is_loaded, policies.debug)
        self.bus = ApBus(self.kernel, self.hardware, policies.bus, self._params, self.debug)
        self.mdev_bus = MdevBus(self.kernel, policies.mdev)
        self.vfio_ap = VfioAp(self.kernel, self.bus, self.mdev_bus, policies.vfio_ap, self.debug)
        self.guests = Guests(self.kernel.bus, self.hardware, self)
        self.nodes = DeviceNodes(self.kernel, self.debug)

    def _on_uevent(self, event: Uevent) -> None:
        """Follow modules that come and go: with them their debug features do."""
        if event.subsystem == "module" and "SYNTH_UUID" not in event.env:
            self.debug.module_changed(event.devpath.rpartition("/")[2])

"""The models of one machine, of the kernels that were chosen for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import asdict, replace

from fakesys.core.boot.command_line import BootLine
from fakesys.core.features import FeatureSet
from fakesys.core.kernel import Kernel
from fakesys.machine.ap import ApSubsystem, ap_of
from fakesys.machine.hardware import hardware_of
from fakesys.machine.kernels.ap import AP_KERNELS
from fakesys.machine.kernels.apicv import APICV_KERNELS
from fakesys.machine.kernels.mmu import MMU_KERNELS
from fakesys.machine.kvm.subsystem import KvmSubsystem, kvm_of
from fakesys.machine.profiles import Profile, kernel_of
from fakesys.machine.scenario import Scenario
from fakesys.machine.tracing import TraceSubsystem, tracing_of
from fakesys.subsystems.kvm.vm import WatchProcess
from fakesys.subsystems.modules import control_files
from fakesys.subsystems.modules import files as module_files
from fakesys.subsystems.modules.model import Modules
from fakesys.subsystems.selftest.model import Selftest
from fakesys.subsystems.tracing.instances.state import state as tracing_state
from fakesys.subsystems.tracing.instances.task_watch import Processes
from fakesys.subsystems.vfio_ap import files as vfio_ap_files
from fakesys.tree.attr import Mount


class Subsystems:
    """All models, which share one `Kernel` (clock, bus, devices), and the profile of now.

    A reset and a load make another one; choosing another kernel changes this one.
    """

    def __init__(
        self,
        profile: Profile,
        kernel: Kernel,
        ap: ApSubsystem,
        kvm: KvmSubsystem,
        tracing: TraceSubsystem,
        selftest: Selftest | None,
    ) -> None:
        self.profile = profile
        self.kernel = kernel
        self.ap, self.kvm, self.tracing, self.selftest = ap, kvm, tracing, selftest

    @property
    def features(self) -> FeatureSet:
        """The features of all chosen kernels."""
        return self.kvm.features | self.ap.features | self.tracing.features

    def use(self, profile: Profile) -> None:
        """Behave like the kernels of `profile`. Raises EBUSY while an mdev, guest or VM exists."""
        self.kvm.kvm.require_idle()
        self.profile = profile
        self.kvm.use(MMU_KERNELS[profile.mmu], APICV_KERNELS[profile.apicv])
        self.ap.use(AP_KERNELS[profile.ap])
        self.tracing.change(profile.trace, self.kvm.features)

    def use_ap(self, name: str) -> None:
        """Let the AP part behave like this kernel. Raises EINVAL, EBUSY."""
        self.ap.use(kernel_of(AP_KERNELS, name))
        self.profile = replace(self.profile, ap=name)

    @property
    def modules(self) -> Modules:
        """Which modules are loaded."""
        return self.ap.system.modules

    def module_mounts(self) -> tuple[Mount, ...]:
        """Return where the files of modules appear, but for their parameters."""
        modules = self.modules
        rows = {"vfio_ap": vfio_ap_files.VERSION}
        return (*module_files.mounts(modules, rows), control_files.mount(modules))

    def state(self) -> Mapping[str, Any]:
        """Return the models as plain data."""
        return {
            "ap": self.ap.system.state(),
            "clock": {"rate": self.kernel.clock.rate},
            "kernels": asdict(self.profile),
            "kvm": self.kvm.state(),
            "modules": self.modules.state(),
            "profile": self.profile.name,
            "selftest": None if self.selftest is None else self.selftest.state(),
            "tracing": tracing_state(self.tracing.tracing),
        }


def built(
    kernel: Kernel,
    profile: Profile,
    scenario: Scenario,
    watch: WatchProcess,
    processes: Processes,
    *,
    selftest: bool,
) -> Subsystems:
    """Return new models on `kernel`, with the hardware of the scenario and without guests.

    Precondition: the journals listen to the bus already, as the first devices appear here.
    """
    toy = Selftest(kernel.bus, kernel.devices) if selftest else None
    spec = hardware_of(scenario.ap)
    modules = Modules(kernel, BootLine(scenario.boot))
    ap = ap_of(kernel, AP_KERNELS[profile.ap], spec, modules)
    kvm = kvm_of(kernel, MMU_KERNELS[profile.mmu], APICV_KERNELS[profile.apicv], watch, modules)
    tracing = tracing_of(kernel, profile.trace, kvm.features, processes)
    return Subsystems(profile, kernel, ap, kvm, TraceSubsystem(kernel, tracing), toy)

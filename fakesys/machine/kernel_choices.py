"""Which kernel each part of a machine behaves like, and the files that choose it."""

from __future__ import annotations

from typing import Protocol

from msgspec.structs import replace

from fakesys.machine.kernels.ap import AP_KERNELS
from fakesys.machine.kernels.apicv import APICV_KERNELS
from fakesys.machine.kernels.mmu import MMU_KERNELS
from fakesys.machine.profiles import (
    PROFILES,
    Profile,
    kernel_of,
    profile_of,
)
from fakesys.machine.scenario import Origin
from fakesys.machine.subsystems import Subsystems
from fakesys.subsystems.ap_control.files import ApKernelChoice
from fakesys.subsystems.kvm.files.control import KernelChoice


class Choosing(Protocol):
    """A machine whose kernels can be chosen."""

    origin: Origin
    subsystems: Subsystems

    def rebind(self) -> None:
        """Show the files of the kernels of now."""


class KernelChoices:
    """The kernels of a machine: a whole profile, or one for each part."""

    def __init__(self, machine: Choosing) -> None:
        self._machine = machine

    @property
    def profile_name(self) -> str:
        """The chosen profile."""
        return self._machine.subsystems.profile.name

    @property
    def profile_names(self) -> tuple[str, ...]:
        """The profiles there are."""
        return tuple(PROFILES)

    @property
    def boot(self) -> str:
        """The command line with which the kernel was booted."""
        return self._machine.origin.scenario.boot

    def set_profile(self, name: str) -> None:
        """Choose another profile. Raises EINVAL, EBUSY while an mdev, guest or VM exists."""
        profile = profile_of(name)
        self._machine.subsystems.ap.system.require_idle()
        self._use(profile)

    def set_ap(self, name: str) -> None:
        """Let the AP part behave like this kernel.

        Raises EINVAL, EBUSY while an mdev or guest exists.
        """
        self._machine.subsystems.use_ap(name)
        self._machine.rebind()

    def reset_ap(self) -> None:
        """Make the AP part as at mount time, guests and mediated devices gone."""
        self._machine.subsystems.ap.system.reset()
        self.set_ap(profile_of(self._machine.origin.profile).ap)

    def set_mmu(self, name: str) -> None:
        """Let KVM's memory behave like this kernel. Raises EINVAL, EBUSY while a VM exists."""
        kernel_of(MMU_KERNELS, name)
        self._use(replace(self._machine.subsystems.profile, mmu=name))

    def set_apicv(self, name: str) -> None:
        """Let KVM's interrupts behave like this kernel. Raises EINVAL, EBUSY while a VM exists."""
        kernel_of(APICV_KERNELS, name)
        self._use(replace(self._machine.subsystems.profile, apicv=name))

    def of_ap(self) -> ApKernelChoice:
        """Return the choice behind `fakesys/ap/`."""
        return ApKernelChoice(
            names=AP_KERNELS.names(),
            get=lambda: self._machine.subsystems.profile.ap,
            choose=self.set_ap,
            reset=self.reset_ap,
        )

    def of_kvm(self) -> tuple[KernelChoice, ...]:
        """Return the choices behind `fakesys/kvm/`."""
        return (
            KernelChoice(
                name="mmu_profile",
                doc="The kernel whose memory management KVM has.",
                names=MMU_KERNELS.names(),
                get=lambda: self._machine.subsystems.profile.mmu,
                choose=self.set_mmu,
            ),
            KernelChoice(
                name="apicv_profile",
                doc="The kernel whose interrupt virtualisation KVM has.",
                names=APICV_KERNELS.names(),
                get=lambda: self._machine.subsystems.profile.apicv,
                choose=self.set_apicv,
            ),
        )

    def _use(self, profile: Profile) -> None:
        self._machine.subsystems.use(profile)
        self._machine.rebind()

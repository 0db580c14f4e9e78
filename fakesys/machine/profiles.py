"""Each kernel as features and policies. With `kernels`, the only part that names versions.

A feature chooses rows (`needs=`, `unless=`), a policy is handed to a model's constructor.
"""

from __future__ import annotations

from collections.abc import Mapping
from errno import EINVAL
from typing import TypeVar

from msgspec import Struct

from fakesys.core.errors import KernelError
from fakesys.machine.kernels.ap import AP_KERNELS
from fakesys.machine.kernels.apicv import APICV_KERNELS
from fakesys.machine.kernels.mmu import MMU_KERNELS
from fakesys.subsystems.tracing.base.policy import V6_1, V6_12, V6_18, Build


class Profile(Struct, frozen=True):
    """A machine: one kernel for each part. The names are those of the control files."""

    name: str
    ap: str
    mmu: str
    apicv: str
    trace: str


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(name="seed", ap="v6", mmu="5.4", apicv="v3", trace="6.1"),
        Profile(name="6.1", ap="6.1", mmu="6.1", apicv="6.1", trace="6.1"),
        Profile(name="6.12", ap="6.12", mmu="6.12", apicv="6.12", trace="6.12"),
        Profile(name="6.18", ap="6.12", mmu="6.18", apicv="6.18", trace="6.18"),
    )
}


def profile_of(name: str) -> Profile:
    """Return the profile of this name. Raises EINVAL."""
    try:
        return PROFILES[name]
    except KeyError:
        known = ", ".join(PROFILES)
        raise KernelError(EINVAL, f"{name!r} is no profile ({known})") from None


TRACE_KERNELS: dict[str, Build] = {"6.1": V6_1, "6.12": V6_12, "6.18": V6_18}

K = TypeVar("K")


def kernel_of(kernels: Mapping[str, K], name: str) -> K:
    """Return the kernel of this name. Raises EINVAL."""
    try:
        return kernels[name]
    except KeyError:
        raise KernelError(EINVAL, f"{name!r} is none of {', '.join(kernels)}") from None


def require_known(profile: Profile) -> None:
    """Raise EINVAL unless there is a kernel for each part of `profile`."""
    kernel_of(AP_KERNELS, profile.ap)
    kernel_of(MMU_KERNELS, profile.mmu)
    kernel_of(APICV_KERNELS, profile.apicv)
    kernel_of(TRACE_KERNELS, profile.trace)

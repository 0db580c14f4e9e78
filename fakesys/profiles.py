"""Each kernel as features and policies. The only module below the machine that names versions.

A feature chooses rows (`needs=`, `unless=`), a policy is handed to a model's constructor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from errno import EINVAL
from typing import TypeVar

from fakesys.core.errors import KernelError
from fakesys.subsystems.kvm.model import VcpuLimits
from fakesys.subsystems.tracing.policy import V6_1, V6_18, Build


@dataclass(frozen=True, slots=True)
class Profile:
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
        Profile(name="6.18", ap="6.12", mmu="6.18", apicv="6.18", trace="6.18"),
    )
}


def profile_of(name: str) -> Profile:
    """The profile of this name. Raises EINVAL."""
    try:
        return PROFILES[name]
    except KeyError:
        known = ", ".join(PROFILES)
        raise KernelError(EINVAL, f"{name!r} is no profile ({known})") from None


@dataclass(frozen=True, slots=True)
class MmuKernel:
    """KVM's core and memory as one kernel has them. `params`: knobs that it sets differently."""

    name: str
    features: frozenset[str]
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ApicvKernel:
    """KVM's interrupts and vCPU entry as one kernel has them."""

    name: str
    features: frozenset[str]
    limits: VcpuLimits
    params: Mapping[str, str] = field(default_factory=dict)


_DESCRIBED_STATS = frozenset(
    {
        "debugfs.strict_numbers",
        "kvm.rmaps_stat_file",
        "kvm.stats_described",
        "kvm.stats_nx_pages",
        "kvm.stats_page_faults",
        "kvm.vcpu_guest_mode_file",
        "kvm.vcpu_pid_file",
    }
)
_FAST_ZAP = frozenset({"trace.mmu_valid_gen", "trace.mmu_zap_all_fast"})
_MMU_5_4 = _FAST_ZAP | {"kvm.stats_nx_pages", "trace.mmu_sptes"}
_MMU_6_1 = (
    _MMU_5_4 | _DESCRIBED_STATS | {"mmu.role_has_4_byte_gpte", "trace.dirty_ring", "trace.mmu_tdp"}
)


def _series(patch: int) -> frozenset[str]:
    """Features of 5.3 with the first patches of the series that made zapping fast."""
    features: set[str] = set()
    if patch >= 4:
        features.add("trace.mmu_valid_gen")
    if patch >= 5:
        features.add("trace.mmu_zap_all_fast")
    if 4 <= patch < 10:
        features.add("trace.mmu_valid_gen_wide")
    return frozenset(features)


MMU_KERNELS: dict[str, MmuKernel] = {
    kernel.name: kernel
    for kernel in (
        MmuKernel(name="5.3", features=frozenset()),
        *(MmuKernel(name=f"series-{n:02}", features=_series(n)) for n in range(1, 12)),
        MmuKernel(name="5.4", features=_MMU_5_4),
        MmuKernel(
            name="5.4-stable",
            features=_MMU_5_4 | {"debugfs.strict_numbers", "trace.mmu_fault_gpa"},
        ),
        MmuKernel(name="6.1", features=_MMU_6_1),
        MmuKernel(
            name="6.18",
            features=_MMU_6_1 | {"trace.mmu_wide_error_code", "trace.no_change_pte"},
        ),
    )
}

APICV_KERNELS: dict[str, ApicvKernel] = {
    kernel.name: kernel
    for kernel in (
        ApicvKernel("v3", frozenset(), VcpuLimits(count=288, ids=1023)),
        ApicvKernel("5.6", frozenset(), VcpuLimits(count=288, ids=1023)),
        ApicvKernel("6.1", frozenset(), VcpuLimits(count=1024, ids=4096)),
        ApicvKernel("6.18", frozenset(), VcpuLimits(count=1024, ids=4096)),
        ApicvKernel("7.x", frozenset(), VcpuLimits(count=1024, ids=4096)),
    )
}

TRACE_KERNELS: dict[str, Build] = {"6.1": V6_1, "6.18": V6_18}

K = TypeVar("K")


def kernel_of(kernels: Mapping[str, K], name: str) -> K:
    """The kernel of this name. Raises EINVAL."""
    try:
        return kernels[name]
    except KeyError:
        raise KernelError(EINVAL, f"{name!r} is none of {', '.join(kernels)}") from None

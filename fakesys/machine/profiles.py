"""Each kernel as features and policies. The only module below the machine that names versions.

A feature chooses rows (`needs=`, `unless=`), a policy is handed to a model's constructor.
"""

from __future__ import annotations

from collections.abc import Mapping
from errno import EADDRINUSE, EBUSY, EINVAL, EPERM, EUSERS
from typing import TypeVar

from msgspec import Struct, field
from msgspec.structs import replace

from fakesys.core.errors import KernelError
from fakesys.core.features import Feature, FeatureSet
from fakesys.subsystems.ap_bus import policy as ap_bus
from fakesys.subsystems.ap_bus.policy import ApFeature
from fakesys.subsystems.apicv.state import policy as apicv
from fakesys.subsystems.apicv.state.policy import ApicvPolicy
from fakesys.subsystems.device_nodes.features import NodeFeature
from fakesys.subsystems.kvm.features import KvmFeature
from fakesys.subsystems.kvm.model import VcpuLimits
from fakesys.subsystems.kvm_mmu.events.features import MmuFeature
from fakesys.subsystems.kvm_mmu.shadow import policy as kvm_mmu
from fakesys.subsystems.kvm_mmu.shadow.policy import MmuPolicy
from fakesys.subsystems.kvm_module.features import ParamFeature
from fakesys.subsystems.mdev.policy import MdevFeature, MdevPolicy
from fakesys.subsystems.s390dbf.model import DebugPolicy, Level
from fakesys.subsystems.tracing.base.policy import V6_1, V6_12, V6_18, Build
from fakesys.subsystems.vfio_ap import policy as vfio_ap
from fakesys.subsystems.vfio_ap.policy import Filtering, FilterName, VfioApFeature


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


class ApKernel(Struct, frozen=True):
    """The AP bus, mediated devices and vfio_ap as one kernel has them."""

    name: str
    features: FeatureSet
    bus: ap_bus.BusPolicy
    mdev: MdevPolicy
    vfio_ap: vfio_ap.VfioApPolicy
    debug: DebugPolicy = DebugPolicy()


class MmuKernel(Struct, frozen=True):
    """KVM's core and memory as one kernel has them. `params`: knobs that it sets differently."""

    name: str
    features: FeatureSet
    policy: MmuPolicy
    params: Mapping[str, str] = field(default_factory=dict)


class ApicvKernel(Struct, frozen=True):
    """KVM's interrupts and vCPU entry as one kernel has them."""

    name: str
    features: FeatureSet
    limits: VcpuLimits
    policy: ApicvPolicy
    params: Mapping[str, str] = field(default_factory=dict)


# The series of 2019 that made vfio_ap dynamic, on top of what 6.1 has.
_AP_V6 = ApKernel(
    name="v6",
    features=frozenset({VfioApFeature.VERSION}),
    bus=ap_bus.BusPolicy(
        veto_errno=EADDRINUSE,
        oldest_type=ap_bus.CEX2A,
        initiates_queues=False,
        asks_for_interrupts=False,
        bindings=ap_bus.BindingsEvent.EVERY_PROBE,
        queues=ap_bus.vanish_when_deconfigured,
        checkstop_is_offline=False,
        asks_state=False,
        rescans=False,
        poll_seconds=0,
    ),
    mdev=MdevPolicy(driver="vfio_mdev", module=None, vfio_devices=False),
    vfio_ap=vfio_ap.VfioApPolicy(
        filters={
            FilterName.ADAPTER: Filtering(vfio_ap.filter_or_nothing, vfio_ap.plug_by_filter),
            FilterName.LITERAL: Filtering(vfio_ap.filter_as_posted, vfio_ap.plug_whole_rows),
        },
        follows_machine=False,
        guest_decides=True,
        repeats_assign=True,
        resets_unassigned=False,
        resets_filtered=False,
        bad_resets=frozenset(),
        in_use="ebusy",
        requests_device=False,
        oldest_added=0,
        no_instances_errno=EPERM,
        isc_failure=0x08,
    ),
)
_MERGED_FILTER = Filtering(vfio_ap.filter_adapters, vfio_ap.plug_by_filter)
_AP_6_1 = ApKernel(
    name="6.1",
    features=frozenset({MdevFeature.BIND, VfioApFeature.BIND, VfioApFeature.GUEST_MATRIX_KEPT}),
    bus=replace(_AP_V6.bus, veto_errno=EBUSY, queues=ap_bus.stay_when_deconfigured),
    mdev=MdevPolicy(driver="vfio_ap_mdev", module="vfio_ap", vfio_devices=True),
    vfio_ap=replace(
        _AP_V6.vfio_ap,
        filters=dict.fromkeys(FilterName, _MERGED_FILTER),
        follows_machine=True,
        guest_decides=False,
        repeats_assign=False,
        resets_unassigned=True,
        bad_resets=frozenset({0x01, 0x02, 0x03, 0x04, 0x05}),
        in_use="block",
        no_instances_errno=EUSERS,
    ),
)
_AP_6_12 = ApKernel(
    name="6.12",
    features=_AP_6_1.features
    | {
        ApFeature.DEPTH_IS_SIZE,
        ApFeature.FEATURES,
        ApFeature.MESSAGE_POOL,
        ApFeature.QUEUE_FUNCTIONS,
        ApFeature.STRICT_POLL,
        NodeFeature.KEY_HANDLERS,
        NodeFeature.LONG_EP11_KEYS,
        VfioApFeature.AP_CONFIG,
    },
    bus=replace(
        _AP_6_1.bus,
        oldest_type=ap_bus.CEX4,
        initiates_queues=True,
        asks_for_interrupts=True,
        bindings=ap_bus.BindingsEvent.PER_SCAN,
        checkstop_is_offline=True,
        asks_state=True,
        rescans=True,
        poll_seconds=0.04,
    ),
    mdev=replace(_AP_6_1.mdev, vfio_leaves_first=True),
    vfio_ap=replace(
        _AP_6_1.vfio_ap,
        resets_filtered=True,
        bad_resets=frozenset({0x01, 0x02, 0x05}),
        requests_device=True,
        oldest_added=ap_bus.CEX4,
        isc_failure=0x06,
    ),
    debug=DebugPolicy(debug_messages=False, pkey_level=Level.WARN),
)
AP_KERNELS: dict[str, ApKernel] = {kernel.name: kernel for kernel in (_AP_V6, _AP_6_1, _AP_6_12)}

_DESCRIBED_STATS = frozenset(
    {
        KvmFeature.STRICT_NUMBERS,
        KvmFeature.RMAPS_STAT_FILE,
        KvmFeature.STATS_DESCRIBED,
        KvmFeature.STATS_NX_PAGES,
        KvmFeature.STATS_PAGE_FAULTS,
        KvmFeature.VCPU_GUEST_MODE_FILE,
        KvmFeature.VCPU_PID_FILE,
    }
)
_FAST_ZAP = frozenset({MmuFeature.TRACE_VALID_GEN, MmuFeature.TRACE_ZAP_FAST})
_MMU_5_4 = _FAST_ZAP | {KvmFeature.STATS_NX_PAGES, MmuFeature.TRACE_SPTES}
_MMU_6_1 = (
    _MMU_5_4
    | _DESCRIBED_STATS
    | {
        ParamFeature.MMIO_CACHING,
        MmuFeature.SHORT_GPTE,
        KvmFeature.TRACE_DIRTY_RING,
        KvmFeature.TRACE_FAULT_VCPU,
        MmuFeature.TRACE_TDP,
    }
)
_MMU_6_12 = _MMU_6_1 | {
    ParamFeature.ENABLE_VIRT_AT_LOAD,
    MmuFeature.TRACE_WIDE_CODE,
    KvmFeature.TRACE_NO_CHANGE_PTE,
}
_MMU_6_18 = _MMU_6_12 | {ParamFeature.UNSAFE_MAPPINGS, MmuFeature.TRACE_CODE_NAMES}


def _series(patch: int) -> FeatureSet:
    """Features of 5.3 with the first patches of the series that made zapping fast."""
    features: set[Feature] = set()
    if patch >= 4:
        features.add(MmuFeature.TRACE_VALID_GEN)
    if patch >= 5:
        features.add(MmuFeature.TRACE_ZAP_FAST)
    if 4 <= patch < 10:
        features.add(MmuFeature.TRACE_WIDE_GEN)
    return frozenset(features)


MMU_KERNELS: dict[str, MmuKernel] = {
    kernel.name: kernel
    for kernel in (
        MmuKernel("5.3", frozenset(), kvm_mmu.K5_3, params={"zap_flow": "zap_all"}),
        *(MmuKernel(p.name, _series(n), p) for n, p in enumerate(kvm_mmu.SERIES, start=1)),
        MmuKernel("5.4", _MMU_5_4, kvm_mmu.K5_4),
        MmuKernel(
            "5.4-stable",
            _MMU_5_4 | {KvmFeature.STRICT_NUMBERS, MmuFeature.TRACE_FAULT_GPA},
            kvm_mmu.K5_4_STABLE,
            params={"mmio_gen_bits": "18"},
        ),
        MmuKernel("6.1", _MMU_6_1, kvm_mmu.K6_1),
        MmuKernel("6.12", _MMU_6_12, kvm_mmu.K6_12),
        MmuKernel(
            "6.18",
            _MMU_6_18,
            kvm_mmu.K6_18,
            params={"as_num": "1"},
        ),
    )
}

_VCPU = frozenset({KvmFeature.TRACE_VCPU})
_STATE = _VCPU | {KvmFeature.TRACE_STATE}
_NAMES = _STATE | {KvmFeature.TRACE_NAMES}
_REQUESTS = _NAMES | {KvmFeature.TRACE_REQUESTS}

_APICV_6_1 = frozenset({ParamFeature.BOOLEAN_AVIC, ParamFeature.FORCE_AVIC})
_APICV_6_12 = _APICV_6_1 | {ParamFeature.SEV_SNP}
_APICV_6_18 = _APICV_6_12 | {ParamFeature.ENABLE_IPIV}
_LIMITS_5 = VcpuLimits(count=288, ids=1023)
_LIMITS_6 = VcpuLimits(count=1024, ids=4096)

APICV_KERNELS: dict[str, ApicvKernel] = {
    kernel.name: kernel
    for kernel in (
        ApicvKernel(
            "v3", frozenset({KvmFeature.TRACE_APICV_REQUEST_PAIR}), _LIMITS_5, apicv.ENUM_STATE
        ),
        ApicvKernel(
            "5.6", _VCPU | {KvmFeature.TRACE_APICV_REQUEST_BIT}, _LIMITS_5, apicv.FLIP_TRACE
        ),
        ApicvKernel("6.1", _STATE | _APICV_6_1, _LIMITS_6, apicv.CALL_TRACE),
        ApicvKernel("6.12", _NAMES | _APICV_6_12, _LIMITS_6, apicv.WATCHED_IDS),
        ApicvKernel("6.18", _REQUESTS | _APICV_6_18, _LIMITS_6, apicv.MAPPED_IDS),
        ApicvKernel("7.x", _REQUESTS | _APICV_6_18, _LIMITS_6, apicv.COUNTED_WINDOWS),
    )
}

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

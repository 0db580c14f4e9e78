"""The kernels of KVM's core and memory: 5.1, levels of the series of fast zaps, releases."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from fakesys.core.features import Feature, FeatureSet
from fakesys.machine.kernels.series import Kernels, Patches, Series
from fakesys.subsystems.kvm.features import KvmFeature
from fakesys.subsystems.kvm_mmu.events.features import MmuFeature
from fakesys.subsystems.kvm_mmu.shadow import policy as kvm_mmu
from fakesys.subsystems.kvm_mmu.shadow.policy import MmuPolicy
from fakesys.subsystems.kvm_module.features import ParamFeature


class MmuKernel(Struct, frozen=True):
    """KVM's core and memory as one kernel has them. `params`: knobs that it sets differently."""

    name: str
    features: FeatureSet
    policy: MmuPolicy
    params: Mapping[str, str] = field(default_factory=dict)


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


def _series_features(patches: Patches) -> FeatureSet:
    features: set[Feature] = set()
    if 4 in patches:
        features.add(MmuFeature.TRACE_VALID_GEN)
        if 10 not in patches:
            features.add(MmuFeature.TRACE_WIDE_GEN)
    if 5 in patches:
        features.add(MmuFeature.TRACE_ZAP_FAST)
    return frozenset(features)


# KVM as hosts with AMD's processors run it.
_HOST = {"paging": "modules"}


_BEFORE_SERIES = {"zap_flow": "zap_all"}


def _mmu_with_patches(name: str, patches: Patches) -> MmuKernel:
    """Return 5.3 with these patches of the series that made zapping fast."""
    params = {} if 1 in patches else _BEFORE_SERIES
    policy = kvm_mmu.with_patches(name, patches)
    return MmuKernel(name, _series_features(patches), policy, params=params)


_MMU_SERIES: Series[MmuKernel] = Series(
    base="5.3",
    prefix="series",
    count=kvm_mmu.PATCHES,
    needed_by={1: tuple(range(2, kvm_mmu.PATCHES + 1)), 2: (10,), 6: (7,), 7: (8, 9)},
    build=_mmu_with_patches,
)
_MMU_KERNELS: dict[str, MmuKernel] = {
    kernel.name: kernel
    for kernel in (
        MmuKernel("5.1", frozenset(), kvm_mmu.K5_1, params={"zap_flow": "slot"}),
        *(
            _mmu_with_patches(n, _MMU_SERIES.patches(n) or frozenset())
            for n in _MMU_SERIES.levels()
        ),
        MmuKernel("5.4", _MMU_5_4, kvm_mmu.K5_4),
        MmuKernel(
            "5.4-stable",
            _MMU_5_4 | {KvmFeature.STRICT_NUMBERS, MmuFeature.TRACE_FAULT_GPA},
            kvm_mmu.K5_4_STABLE,
            params={"mmio_gen_bits": "18"},
        ),
        MmuKernel("6.1", _MMU_6_1, kvm_mmu.K6_1, params=_HOST),
        MmuKernel("6.12", _MMU_6_12, kvm_mmu.K6_12, params=_HOST),
        MmuKernel("6.18", _MMU_6_18, kvm_mmu.K6_18, params=_HOST),
    )
}

MMU_KERNELS: Kernels[MmuKernel] = Kernels(_MMU_KERNELS, _MMU_SERIES)

"""The kernels of KVM's interrupts: the series that made AVIC dynamic, patch by patch, and releases.

The third version of the series was posted in September 2019, for 5.3.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field
from msgspec.structs import replace

from fakesys.core.features import FeatureSet
from fakesys.machine.kernels.series import Kernels, Patches, Series
from fakesys.subsystems.apicv.state import policy as apicv
from fakesys.subsystems.apicv.state.policy import ApicvPolicy, LazyEoi, NestedRule, SynicRule
from fakesys.subsystems.kvm.features import KvmFeature
from fakesys.subsystems.kvm.model import VcpuLimits
from fakesys.subsystems.kvm_module.features import ParamFeature


class ApicvKernel(Struct, frozen=True):
    """KVM's interrupts and vCPU entry as one kernel has them."""

    name: str
    features: FeatureSet
    limits: VcpuLimits
    policy: ApicvPolicy
    params: Mapping[str, str] = field(default_factory=dict)


_VCPU = frozenset({KvmFeature.TRACE_VCPU})
_STATE = _VCPU | {KvmFeature.TRACE_STATE}
_NAMES = _STATE | {KvmFeature.TRACE_NAMES}
_REQUESTS = _NAMES | {KvmFeature.TRACE_REQUESTS}

_APICV_6_1 = frozenset({ParamFeature.BOOLEAN_AVIC, ParamFeature.FORCE_AVIC})
_APICV_6_12 = _APICV_6_1 | {ParamFeature.SEV_SNP}
_APICV_6_18 = _APICV_6_12 | {ParamFeature.ENABLE_IPIV}
_LIMITS_5 = VcpuLimits(count=288, ids=1023)
_LIMITS_6 = VcpuLimits(count=1024, ids=4096)
# CONFIG_KVM_MAX_NR_VCPUS as distributions have it.
_LIMITS_6_12 = VcpuLimits(count=4096, ids=16384)

# svm/avic.c (v6.1, v6.12): `bool avic` is false unless the module is loaded with avic=1. Since 6.18
# (avic_want_avic_enabled) it is on by itself where the processor has x2AVIC. The kernels of the
# series have it on, which their source does not, as they are for those who test it.
_AVIC_OFF = {"avic": "0"}

# Patches of the series whose absence a file shows; the others prepare them.
STATE = 2
TRACEPOINTS = 5
POSTED_INTERRUPTS = 6
HOOKS = 8
SYNIC = 9
NESTED = 10
WINDOW = 11
LAZY_EOI = 15
KERNEL_IRQCHIP = 16


def _policy(patches: Patches) -> ApicvPolicy:
    whole = apicv.ENUM_STATE
    return replace(
        whole,
        has_state=STATE in patches,
        devices_follow=POSTED_INTERRUPTS in patches,
        follows_state=HOOKS in patches,
        synic=whole.synic if SYNIC in patches else SynicRule.ONE_VCPU,
        nested=whole.nested if NESTED in patches else NestedRule.IGNORED,
        suspends_for_window=WINDOW in patches,
        lazy_eoi=whole.lazy_eoi if LAZY_EOI in patches else LazyEoi.NEVER,
        kernel_irqchip=KERNEL_IRQCHIP in patches,
    )


def _with_patches(name: str, patches: Patches) -> ApicvKernel:
    """Return 5.3 with these patches of the series."""
    features = frozenset({KvmFeature.TRACE_APICV_REQUEST_PAIR})
    if TRACEPOINTS not in patches:
        features = frozenset()
    return ApicvKernel(name, features, _LIMITS_5, _policy(patches))


_SERIES: Series[ApicvKernel] = Series(
    base="5.3",
    prefix="v3",
    count=16,
    needed_by={
        1: (2,),
        2: (4, 7, 12),
        3: (4,),
        4: (5, 6, 8, 9, 10, 11),
        7: (8,),
        12: (15,),
        13: (15,),
        14: (15,),
    },
    build=_with_patches,
)

APICV_KERNELS: Kernels[ApicvKernel] = Kernels(
    {
        kernel.name: kernel
        for kernel in (
            _with_patches("v3", frozenset(range(1, _SERIES.count + 1))),
            ApicvKernel(
                "5.6", _VCPU | {KvmFeature.TRACE_APICV_REQUEST_BIT}, _LIMITS_5, apicv.FLIP_TRACE
            ),
            ApicvKernel("6.1", _STATE | _APICV_6_1, _LIMITS_6, apicv.CALL_TRACE, _AVIC_OFF),
            ApicvKernel("6.12", _NAMES | _APICV_6_12, _LIMITS_6_12, apicv.WATCHED_IDS, _AVIC_OFF),
            ApicvKernel("6.18", _REQUESTS | _APICV_6_18, _LIMITS_6, apicv.MAPPED_IDS),
            ApicvKernel("7.x", _REQUESTS | _APICV_6_18, _LIMITS_6, apicv.COUNTED_WINDOWS),
        )
    },
    _SERIES,
)

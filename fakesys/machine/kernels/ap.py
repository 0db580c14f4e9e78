"""The kernels of the AP part: the series that made vfio_ap dynamic, patch by patch, and releases.

The series was posted in September 2019 for 5.3; what it does not touch is as 6.1 has it.
"""

from __future__ import annotations

from errno import EADDRINUSE, EBUSY, EIO, ENODEV, EPERM, EUSERS

from msgspec import Struct
from msgspec.structs import replace

from fakesys.core.features import Feature, FeatureSet
from fakesys.machine.kernels.series import Kernels, Patches, Series
from fakesys.subsystems.ap_bus import policy as ap_bus
from fakesys.subsystems.ap_bus.policy import ApFeature
from fakesys.subsystems.device_nodes.features import NodeFeature
from fakesys.subsystems.mdev.policy import MdevFeature, MdevPolicy
from fakesys.subsystems.s390dbf.model import DebugPolicy, Level
from fakesys.subsystems.vfio_ap import policy as vfio_ap
from fakesys.subsystems.vfio_ap.policy import (
    Filtering,
    FilterName,
    Following,
    ResetPolicy,
    VfioApFeature,
)


class ApKernel(Struct, frozen=True):
    """The AP bus, mediated devices and vfio_ap as one kernel has them."""

    name: str
    features: FeatureSet
    bus: ap_bus.BusPolicy
    mdev: MdevPolicy
    vfio_ap: vfio_ap.VfioApPolicy
    debug: DebugPolicy = DebugPolicy()


# Patches of the series whose absence a file shows.
RETRIES = 1
OVER_PROVISIONING = 2
HOT_PLUG = 3
FILTER = 4
GUEST_MATRIX = 5
PROBE_AND_REMOVE = 6
VETO = 8
VERSION = 9

_SERIES_BUS = ap_bus.BusPolicy(
    veto_errno=EADDRINUSE,
    bound_errno=EBUSY,
    oldest_type=ap_bus.CEX2A,
    initiates_queues=False,
    asks_for_interrupts=False,
    bindings=ap_bus.BindingsEvent.EVERY_PROBE,
    queues=ap_bus.vanish_when_deconfigured,
    checkstop_is_offline=False,
    asks_state=False,
    rescans=False,
    poll_seconds=0,
)
_RESETS_BEFORE = ResetPolicy(
    attempts=2,
    unbound=True,
    warns=False,
    errnos={0x01: EIO, 0x02: EBUSY, 0x03: EIO, 0x04: EIO, 0x05: EBUSY},
)
_RESETS_OF_SERIES = replace(
    _RESETS_BEFORE, attempts=6, warns=True, errnos={**_RESETS_BEFORE.errnos, 0x03: ENODEV}
)
_SERIES_VFIO_AP = vfio_ap.VfioApPolicy(
    filters={
        FilterName.ADAPTER: Filtering(vfio_ap.filter_or_nothing, vfio_ap.plug_by_filter),
        FilterName.LITERAL: Filtering(vfio_ap.filter_as_posted, vfio_ap.plug_whole_rows),
    },
    unavailable=vfio_ap.host_owned,
    following=Following(matrix=True, queues=True),
    vetoes=True,
    logs_refusals=False,
    resets=_RESETS_OF_SERIES,
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
)


def _features(patches: Patches) -> FeatureSet:
    features: set[Feature] = set()
    if HOT_PLUG not in patches:
        features.add(VfioApFeature.BUSY_WITH_GUEST)
    if GUEST_MATRIX in patches:
        features.add(VfioApFeature.GUEST_MATRIX)
    if VETO not in patches:
        features.add(VfioApFeature.BIND)
    if VERSION in patches:
        features.add(VfioApFeature.VERSION)
    return frozenset(features)


def _with_patches(name: str, patches: Patches) -> ApKernel:
    """Return 5.3 with these patches of the series."""
    over_provisioning = OVER_PROVISIONING in patches
    return ApKernel(
        name=name,
        features=_features(patches),
        # With patch 08 only the host's drivers have `bind`, which the series did not touch.
        bus=replace(_SERIES_BUS, bound_errno=EBUSY if VETO in patches else ENODEV),
        mdev=MdevPolicy(driver="vfio_mdev", module=None, vfio_devices=False),
        vfio_ap=replace(
            _SERIES_VFIO_AP,
            unavailable=vfio_ap.host_owned if over_provisioning else vfio_ap.not_bound,
            following=Following(matrix=FILTER in patches, queues=PROBE_AND_REMOVE in patches),
            vetoes=VETO in patches,
            resets=_RESETS_OF_SERIES if RETRIES in patches else _RESETS_BEFORE,
        ),
    )


_SERIES: Series[ApKernel] = Series(
    base="5.3",
    prefix="v6",
    count=10,
    needed_by={1: (6,), 2: (8,), 4: (5, 6), 7: (8,)},
    build=_with_patches,
)
_AP_V6 = _with_patches("v6", frozenset(range(1, _SERIES.count + 1)))
_MERGED_FILTER = Filtering(vfio_ap.filter_adapters, vfio_ap.plug_by_filter)
_AP_6_1 = ApKernel(
    name="6.1",
    features=frozenset(
        {
            MdevFeature.BIND,
            NodeFeature.LONG_EP11_KEYS,
            VfioApFeature.BIND,
            VfioApFeature.GUEST_MATRIX_KEPT,
        }
    ),
    bus=replace(
        _AP_V6.bus,
        veto_errno=EBUSY,
        queues=ap_bus.stay_when_deconfigured,
    ),
    mdev=MdevPolicy(driver="vfio_ap_mdev", module="vfio_ap", vfio_devices=True),
    vfio_ap=replace(
        _AP_V6.vfio_ap,
        filters=dict.fromkeys(FilterName, _MERGED_FILTER),
        logs_refusals=True,
        resets=ResetPolicy(attempts=2, unbound=False, warns=False, errnos={}),
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
        resets=replace(_AP_6_1.vfio_ap.resets, attempts=1),
        resets_filtered=True,
        bad_resets=frozenset({0x01, 0x02, 0x05}),
        requests_device=True,
        oldest_added=ap_bus.CEX4,
        isc_failure=0x06,
    ),
    debug=DebugPolicy(debug_messages=False, pkey_level=Level.WARN),
)
AP_KERNELS: Kernels[ApKernel] = Kernels(
    {kernel.name: kernel for kernel in (_AP_V6, _AP_6_1, _AP_6_12)}, _SERIES
)

"""How vfio_ap of one kernel differs from another's: what reaches a guest, what is reset when."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from msgspec import Struct

from fakesys.core.features import Feature
from fakesys.core.text import ids
from fakesys.subsystems.ap_bus.apqn import Apqn


class VfioApFeature(Feature):
    """Differences between kernels in the files of vfio_ap."""

    AP_CONFIG = "vfio_ap.ap_config"
    BIND = "vfio_ap.bind"
    BUSY_WITH_GUEST = "vfio_ap.busy_with_guest"
    GUEST_MATRIX = "vfio_ap.guest_matrix"
    GUEST_MATRIX_KEPT = "vfio_ap.guest_matrix_kept"
    VERSION = "vfio_ap.version"


class Masks(NamedTuple):
    """Adapters, domains and control domains, as masks."""

    apm: int
    aqm: int
    adm: int

    def has(self, apid: int, apqi: int) -> bool:
        """Return whether a queue is in these masks."""
        return bool(self.row(apid) >> apqi & 1)

    def row(self, apid: int) -> int:
        """Return the domains in which an adapter has queues in these masks."""
        return self.aqm if self.apm >> apid & 1 else 0


NOTHING = Masks(0, 0, 0)

# (assigned, what the guest has now, the machine's, passable bound domains per adapter) -> what
# the guest gets
Filter = Callable[[Masks, Masks, Masks, Sequence[int]], Masks]


def _adapters_wholly_bound(apm: int, aqm: int, bound: Sequence[int]) -> int:
    return sum(1 << apid for apid in ids(apm) if bound[apid] & aqm == aqm)


def filter_or_nothing(matrix: Masks, _now: Masks, lpar: Masks, bound: Sequence[int]) -> Masks:
    """Leave out adapters with a queue that is not bound; without a queue, give neither half."""
    aqm = matrix.aqm & lpar.aqm
    apm = _adapters_wholly_bound(matrix.apm & lpar.apm, aqm, bound)
    return Masks(apm, aqm, matrix.adm) if apm and aqm else Masks(0, 0, matrix.adm)


def filter_adapters(matrix: Masks, _now: Masks, lpar: Masks, bound: Sequence[int]) -> Masks:
    """Leave out adapters with a queue that is not bound.

    Like vfio_ap_ops.c:vfio_ap_mdev_filter_matrix, vfio_ap_mdev_filter_cdoms (v6.1).
    """
    aqm = matrix.aqm & lpar.aqm
    apm = _adapters_wholly_bound(matrix.apm & lpar.apm, aqm, bound)
    return Masks(apm, aqm, matrix.adm & lpar.adm)


def filter_as_posted(matrix: Masks, now: Masks, _lpar: Masks, bound: Sequence[int]) -> Masks:
    """Give adapter and domain of each bound queue, and with them their other queues.

    This is what the code of the fourth patch of the series does literally; old domains stay.
    """
    apm, aqm = 0, now.aqm
    for apid in ids(matrix.apm):
        row = bound[apid] & matrix.aqm
        apm |= 1 << apid if row else 0
        aqm |= row
    return Masks(apm, aqm, matrix.adm)


# How newly bound queues reach the guest: (assigned, what the guest has now, apid, their domains,
# bound domains per adapter) -> what the guest gets, or None for a run of the filter.
Plug = Callable[[Masks, Masks, int, int, Sequence[int]], Masks | None]


def plug_by_filter(
    _matrix: Masks, _now: Masks, _apid: int, _mask: int, _bound: Sequence[int]
) -> Masks | None:
    """Return None: the filter decides."""
    return None


def plug_whole_rows(
    matrix: Masks, now: Masks, apid: int, mask: int, bound: Sequence[int]
) -> Masks | None:
    """Plug a queue only when its whole row or its whole column is bound."""
    row_is_bound = bound[apid] & matrix.aqm == matrix.aqm
    columns = mask & matrix.aqm
    if not row_is_bound:
        for other in ids(matrix.apm):
            columns &= bound[other]
    if not columns:
        return now
    return Masks(now.apm | 1 << apid, now.aqm | columns, now.adm)


class Filtering(NamedTuple):
    """One way to decide what the guest gets: as a whole, and when queues are bound."""

    run: Filter
    plug: Plug


# Whether queues may be assigned: (the queues, the host's domains of an adapter by the masks, bound
# domains per adapter) -> why not, empty if they may. Of a matrix of which one half is empty there
# is the other half only.
Unavailable = Callable[[Masks, Callable[[int], int], Sequence[int]], str]


def host_owned(queues: Masks, host: Callable[[int], int], _bound: Sequence[int]) -> str:
    """Tell the first queue that the masks give to the host.

    Like vfio_ap_ops.c:vfio_ap_mdev_validate_masks (v6.1).
    """
    for apid in ids(queues.apm):
        taken = host(apid) & queues.aqm
        if taken:
            return f"{Apqn(apid, ids(taken)[0])} is the host's by apmask and aqmask"
    return ""


def not_bound(queues: Masks, _host: Callable[[int], int], bound: Sequence[int]) -> str:
    """Tell the first queue that the driver vfio_ap does not have; of one half it needs any queue.

    Like vfio_ap_ops.c:vfio_ap_verify_queue_reserved (v5.3).
    """
    if not queues.aqm:
        missing = [apid for apid in ids(queues.apm) if not bound[apid]]
        return f"adapter {missing[0]:02x} has no queue bound to vfio_ap" if missing else ""
    if not queues.apm:
        reserved = _union(bound)
        missing = ids(queues.aqm & ~reserved)
        return f"domain {missing[0]:04x} has no queue bound to vfio_ap" if missing else ""
    for apid in ids(queues.apm):
        missing = ids(queues.aqm & ~bound[apid])
        if missing:
            return f"{Apqn(apid, missing[0])} is not bound to vfio_ap"
    return ""


def _union(rows: Sequence[int]) -> int:
    mask = 0
    for row in rows:
        mask |= row
    return mask


class Following(NamedTuple):
    """What the guest's share follows, while and when it is attached.

    `matrix`: each assignment and each attachment runs the filter, and what is unassigned leaves.
    Without, a guest has what was assigned when it was attached, bound or not, until it lets go.
    `queues`: queues that the driver gets are plugged, and one that it loses takes its adapter from
    the guest. Without, the driver's probe and remove leave the guest alone.
    """

    matrix: bool
    queues: bool


class ResetPolicy(Struct, frozen=True):
    """How queues are reset (vfio_ap_ops.c:vfio_ap_mdev_reset_queue).

    `attempts`: how often a queue is reset that answers 02 or 05. `unbound`: are all queues of a
    matrix reset, bound to the driver or not? `warns`: does the log tell of a queue that was reset
    and then answers neither 00 nor 02 nor 05? `errnos`: answer -> errno of VFIO_DEVICE_RESET; other
    answers do not fail it.
    """

    attempts: int
    unbound: bool
    warns: bool
    errnos: Mapping[int, int]


class FilterName(StrEnum):
    """The filters that a user may switch between."""

    ADAPTER = "adapter"
    LITERAL = "v6-literal"


class VfioApPolicy(Struct, frozen=True):
    """The choices of one kernel.

    `filters`: by the name that selects one.
    `unavailable`: which queues cannot be assigned.
    `following`: what the guest's share follows.
    `vetoes`: does the driver refuse that the host gets queues of a matrix?
    `logs_refusals`: does the log name the queues of such a refusal, and of one to assign?
    `resets`: how queues are reset.
    `follows_machine`: does a scan apply changes of the machine's masks (on_config_changed,
    on_scan_complete)?
    `guest_decides`: do the guest's masks change only while a guest is attached, and are they
    filtered when one attaches?
    `repeats_assign`: do checks and filter run again for what is assigned already?
    `resets_unassigned`, `resets_filtered`: are queues reset that leave the guest because they
    were unassigned, or because the filter dropped their adapter?
    `bad_resets`: answers to the last reset of a queue that keep it from a guest.
    `in_use`: the remove policy of the kernel, by its name: `ebusy` or `block`.
    `requests_device`: does the log tell when a device in use is asked for?
    `oldest_added`: adapters of an older type are not added to a guest by a scan.
    `no_instances_errno`: errno of `create` when no instance is left.
    `isc_failure`: answer when interrupts cannot be set up.
    """

    filters: Mapping[FilterName, Filtering]
    unavailable: Unavailable
    following: Following
    vetoes: bool
    logs_refusals: bool
    resets: ResetPolicy
    follows_machine: bool
    guest_decides: bool
    repeats_assign: bool
    resets_unassigned: bool
    resets_filtered: bool
    bad_resets: frozenset[int]
    in_use: str
    requests_device: bool
    oldest_added: int
    no_instances_errno: int
    isc_failure: int

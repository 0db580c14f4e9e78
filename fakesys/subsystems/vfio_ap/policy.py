"""How vfio_ap of one kernel differs from another's: what reaches a guest, what is reset when."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from msgspec import Struct

from fakesys.core.features import Feature
from fakesys.core.text import ids


class VfioApFeature(Feature):
    """Differences between kernels in the files of vfio_ap."""

    AP_CONFIG = "vfio_ap.ap_config"
    BIND = "vfio_ap.bind"
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


class FilterName(StrEnum):
    """The filters that a user may switch between."""

    ADAPTER = "adapter"
    LITERAL = "v6-literal"


class VfioApPolicy(Struct, frozen=True):
    """The choices of one kernel.

    `filters`: by the name that selects one.
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

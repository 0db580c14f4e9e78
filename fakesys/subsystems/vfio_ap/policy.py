"""What differs between kernels in vfio_ap: what reaches a guest, and what is reset when."""

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
        """Is this queue among them?"""
        return bool(self.apm >> apid & 1 and self.aqm >> apqi & 1)


NOTHING = Masks(0, 0, 0)

# (assigned, what the guest has now, the machine's, usable bound domains per adapter) -> guest's
Filter = Callable[[Masks, Masks, Masks, Sequence[int]], Masks]


def _adapters_wholly_bound(apm: int, aqm: int, bound: Sequence[int]) -> int:
    return sum(1 << apid for apid in ids(apm) if bound[apid] & aqm == aqm)


def filter_or_nothing(matrix: Masks, _now: Masks, host: Masks, bound: Sequence[int]) -> Masks:
    """An adapter with a queue that is not bound is left out; half a matrix is none."""
    aqm = matrix.aqm & host.aqm
    apm = _adapters_wholly_bound(matrix.apm & host.apm, aqm, bound)
    return Masks(apm, aqm, matrix.adm) if apm and aqm else Masks(0, 0, matrix.adm)


def filter_adapters(matrix: Masks, _now: Masks, host: Masks, bound: Sequence[int]) -> Masks:
    """An adapter with a queue that is not bound is left out.

    Like vfio_ap_ops.c:vfio_ap_mdev_filter_matrix, vfio_ap_mdev_filter_cdoms (v6.1).
    """
    aqm = matrix.aqm & host.aqm
    apm = _adapters_wholly_bound(matrix.apm & host.apm, aqm, bound)
    return Masks(apm, aqm, matrix.adm & host.adm)


def filter_as_posted(matrix: Masks, now: Masks, _host: Masks, bound: Sequence[int]) -> Masks:
    """Each bound queue brings its adapter and its domain, so that others come along with them.

    What the fourth patch of the series says to the letter; old domains stay.
    """
    apm, aqm = 0, now.aqm
    for apid in ids(matrix.apm):
        row = bound[apid] & matrix.aqm
        apm |= 1 << apid if row else 0
        aqm |= row
    return Masks(apm, aqm, matrix.adm)


# How a newly bound queue reaches the guest: (matrix, now, apid, domains, bound) -> guest's, or
# None for a run of the filter.
Plug = Callable[[Masks, Masks, int, int, Sequence[int]], Masks | None]


def plug_by_filter(
    _matrix: Masks, _now: Masks, _apid: int, _mask: int, _bound: Sequence[int]
) -> Masks | None:
    """The filter decides."""
    return None


def plug_whole_rows(
    matrix: Masks, now: Masks, apid: int, mask: int, bound: Sequence[int]
) -> Masks | None:
    """A queue is plugged only when its whole row or its whole column is bound."""
    row_is_bound = bound[apid] & matrix.aqm == matrix.aqm
    columns = mask & matrix.aqm
    if not row_is_bound:
        for other in ids(matrix.apm):
            columns &= bound[other]
    if not columns:
        return now
    return Masks(now.apm | 1 << apid, now.aqm | columns, now.adm)


class Filtering(NamedTuple):
    """One way to decide what the guest gets."""

    run: Filter
    plug: Plug


class FilterName(StrEnum):
    """The names of the filters that a user may switch between."""

    ADAPTER = "adapter"
    LITERAL = "v6-literal"


class VfioApPolicy(Struct, frozen=True):
    """The choices of one kernel.

    `filters`: by the name of the switch. `follows_machine`: are the machine's masks followed in
    a scan (on_config_changed, on_scan_complete)? `guest_decides`: is the guest's matrix only
    worked on while a guest is attached, and filtered when one attaches? `repeats_assign`: are
    checks and filter run again for what is assigned already? `resets_unassigned`,
    `resets_filtered`: are queues reset that leave the guest so? `bad_resets`: answers to the
    last reset of a queue that keep it from a guest. `no_instances_errno`: `create` without an
    instance left. `isc_failure`: answer when interrupts cannot be set up.
    """

    filters: Mapping[FilterName, Filtering]
    follows_machine: bool
    guest_decides: bool
    repeats_assign: bool
    resets_unassigned: bool
    resets_filtered: bool
    bad_resets: frozenset[int]
    no_instances_errno: int
    isc_failure: int

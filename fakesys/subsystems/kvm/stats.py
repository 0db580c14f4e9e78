"""The one table of KVM's counters: what each VM and each vCPU counts, and its file's name.

A field declares its counter; kind, names and kernels stand beside it. Models count by plain
attribute: `vcpu.stats.exits += 1`, `vm.stats.mmu_cache_miss += 1`. The files of a VM, the totals
and the sums over vCPUs follow from `STATS`.
Source: arch/x86/kvm/x86.c:kvm_vm_stats_desc, kvm_vcpu_stats_desc (v6.1), debugfs_entries (v5.4).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from msgspec import Struct

from fakesys.core.features import Features
from fakesys.subsystems.kvm.features import KvmFeature

HIST_BUCKETS = 32


class Kind(Enum):
    """What a number means, and what may be done to it."""

    COUNTER = "counter"
    PEAK = "peak"
    # Computed from what is there now: cannot be cleared.
    GAUGE = "gauge"
    # 32 buckets of powers of two; the file shows the first only.
    HIST = "hist"


class Scope(Enum):
    """Who counts: each VM, or each of its vCPUs (a VM's file then shows the sum)."""

    VM = "vm"
    VCPU = "vcpu"


class Name(Struct, frozen=True):
    """A file of a counter, for the kernels with these features."""

    name: str
    kind: Kind
    needs: Features = ()
    unless: Features = ()


class Stat(Struct, frozen=True):
    """One file of one counter: the field that it shows, and for which kernels."""

    key: str
    scope: Scope
    file: Name

    def read(self, stats: VmStats | VcpuStats) -> int:
        """The number, of a histogram that of the first bucket."""
        value: int | list[int] = getattr(stats, self.key)
        return value[0] if isinstance(value, list) else value

    def clear(self, stats: VmStats | VcpuStats) -> None:
        """Set it to 0, of a histogram the first bucket."""
        value: int | list[int] = getattr(stats, self.key)
        if isinstance(value, list):
            value[0] = 0
        else:
            setattr(stats, self.key, 0)


def _both(kind: Kind = Kind.COUNTER, needs: Features = ()) -> Any:
    """A counter under its own name."""
    return field(default=0, metadata={"kind": kind, "needs": needs})


def _renamed(old: str, kind: Kind = Kind.COUNTER, old_kind: Kind = Kind.COUNTER) -> Any:
    """A counter that was called `old` before counters had descriptors."""
    return field(default=0, metadata={"kind": kind, "old": old, "old_kind": old_kind})


def _only_old(kind: Kind = Kind.COUNTER) -> Any:
    """A counter of the kernels before descriptors."""
    return field(default=0, metadata={"kind": kind, "unless": KvmFeature.STATS_DESCRIBED})


def _no_events() -> list[int]:
    return [0] * HIST_BUCKETS


_HIST = {"kind": Kind.HIST, "needs": KvmFeature.STATS_DESCRIBED}


@dataclass(slots=True, eq=False)
class VmStats:
    """What a VM counts. Units: events, sptes or shadow pages."""

    mmu_shadow_zapped: int = _both()
    mmu_pte_write: int = _both()
    mmu_pte_updated: int = _only_old()
    mmu_pde_zapped: int = _both()
    mmu_flooded: int = _both()
    mmu_recycled: int = _both()
    mmu_cache_miss: int = _both()
    mmu_unsync: int = _renamed("mmu_unsync", Kind.GAUGE)
    remote_tlb_flush: int = _both()
    remote_tlb_flush_requests: int = _both(needs=KvmFeature.STATS_DESCRIBED)
    # Large pages of any size; later kernels count each size.
    largepages: int = _only_old(Kind.GAUGE)
    pages_4k: int = _both(Kind.GAUGE, needs=KvmFeature.STATS_DESCRIBED)
    pages_2m: int = _both(Kind.GAUGE, needs=KvmFeature.STATS_DESCRIBED)
    pages_1g: int = _both(Kind.GAUGE, needs=KvmFeature.STATS_DESCRIBED)
    nx_lpage_splits: int = _renamed("nx_largepages_splitted", Kind.GAUGE, Kind.GAUGE)
    max_mmu_rmap_size: int = _both(Kind.PEAK, needs=KvmFeature.STATS_DESCRIBED)
    max_mmu_page_hash_collisions: int = _both(Kind.PEAK)


@dataclass(slots=True, eq=False)
class VcpuStats:
    """What a vCPU counts. Units: events; `*_ns` nanoseconds."""

    pf_taken: int = _both(needs=KvmFeature.STATS_PAGE_FAULTS)
    pf_fixed: int = _both()
    pf_emulate: int = _both(needs=KvmFeature.STATS_PAGE_FAULTS)
    pf_spurious: int = _both(needs=KvmFeature.STATS_PAGE_FAULTS)
    pf_fast: int = _both(needs=KvmFeature.STATS_PAGE_FAULTS)
    pf_mmio_spte_created: int = _both(needs=KvmFeature.STATS_PAGE_FAULTS)
    pf_guest: int = _both()
    tlb_flush: int = _both()
    invlpg: int = _both()
    exits: int = _both()
    io_exits: int = _both()
    mmio_exits: int = _both()
    signal_exits: int = _both()
    irq_window_exits: int = _renamed("irq_window")
    nmi_window_exits: int = _renamed("nmi_window")
    halt_exits: int = _both()
    halt_successful_poll: int = _both()
    halt_attempted_poll: int = _both()
    halt_poll_invalid: int = _both()
    halt_wakeup: int = _both()
    halt_poll_success_ns: int = _both(needs=KvmFeature.STATS_DESCRIBED)
    halt_poll_fail_ns: int = _both(needs=KvmFeature.STATS_DESCRIBED)
    halt_wait_ns: int = _both(needs=KvmFeature.STATS_DESCRIBED)
    halt_poll_success_hist: list[int] = field(default_factory=_no_events, metadata=_HIST)
    halt_poll_fail_hist: list[int] = field(default_factory=_no_events, metadata=_HIST)
    halt_wait_hist: list[int] = field(default_factory=_no_events, metadata=_HIST)
    blocking: int = _both(Kind.GAUGE, needs=KvmFeature.STATS_DESCRIBED)
    guest_mode: int = _both(Kind.GAUGE, needs=KvmFeature.STATS_DESCRIBED)
    hypercalls: int = _both()
    request_irq_exits: int = _renamed("request_irq")
    irq_exits: int = _both()
    host_state_reload: int = _both()
    fpu_reload: int = _both()
    insn_emulation: int = _both()
    insn_emulation_fail: int = _both()
    irq_injections: int = _both()
    nmi_injections: int = _both()
    req_event: int = _both()
    l1d_flush: int = _both()
    nested_run: int = _both(needs=KvmFeature.STATS_DESCRIBED)
    directed_yield_attempted: int = _both(needs=KvmFeature.STATS_DESCRIBED)
    directed_yield_successful: int = _both(needs=KvmFeature.STATS_DESCRIBED)
    preemption_reported: int = _both(needs=KvmFeature.STATS_DESCRIBED)
    preemption_other: int = _both(needs=KvmFeature.STATS_DESCRIBED)
    notify_window_exits: int = _both(needs=KvmFeature.STATS_DESCRIBED)


def bucket_of(nanoseconds: int) -> int:
    """The bucket of a histogram. Like kvm_host.h:kvm_stats_log_hist_update (v6.1)."""
    return min(nanoseconds.bit_length(), HIST_BUCKETS - 1)


def _files(key: str, row: Any) -> Iterator[Name]:
    if "old" in row:
        old_needs = KvmFeature.STATS_NX_PAGES if key == "nx_lpage_splits" else ()
        yield Name(row["old"], row["old_kind"], needs=old_needs, unless=KvmFeature.STATS_DESCRIBED)
        yield Name(key, row["kind"], needs=KvmFeature.STATS_DESCRIBED)
        return
    yield Name(key, row["kind"], row.get("needs", ()), row.get("unless", ()))


def _table(cls: type[VmStats] | type[VcpuStats], scope: Scope) -> Iterator[Stat]:
    for column in fields(cls):
        for name in _files(column.name, column.metadata):
            yield Stat(column.name, scope, name)


STATS: tuple[Stat, ...] = (*_table(VmStats, Scope.VM), *_table(VcpuStats, Scope.VCPU))

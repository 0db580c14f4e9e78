"""The table of KVM's counters: what each VM and each vCPU counts, and the name of its file.

A field declares its counter with its kind, names and kernels. Models count by plain attributes:
`vcpu.stats.exits += 1`, `vm.stats.mmu_cache_miss += 1`. The files of a VM, the totals and the
sums over vCPUs follow from `STATS`.
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
    """The meaning of a number, which also decides whether it can be cleared."""

    COUNTER = "counter"
    PEAK = "peak"
    # Computed from the present state: cannot be cleared.
    GAUGE = "gauge"
    # 32 buckets of powers of two; the file shows the first only.
    HIST = "hist"


class Scope(Enum):
    """What has the counter: each VM, or each of its vCPUs (a VM's file then shows their sum)."""

    VM = "vm"
    VCPU = "vcpu"


class StatFile(Struct, frozen=True):
    """The file of a counter in the kernels with these features."""

    name: str
    kind: Kind
    needs: Features = ()
    unless: Features = ()


class Stat(Struct, frozen=True):
    """One file of one counter. `key`: the field of VmStats or VcpuStats that it shows."""

    key: str
    scope: Scope
    file: StatFile

    def read(self, stats: VmStats | VcpuStats) -> int:
        """Return the number, of a histogram that of the first bucket."""
        value: int | list[int] = getattr(stats, self.key)
        return value[0] if isinstance(value, list) else value

    def clear(self, stats: VmStats | VcpuStats) -> None:
        """Set the number to 0, of a histogram the first bucket."""
        value: int | list[int] = getattr(stats, self.key)
        if isinstance(value, list):
            value[0] = 0
        else:
            setattr(stats, self.key, 0)


def _counter(kind: Kind = Kind.COUNTER, needs: Features = ()) -> Any:
    """Declare a counter whose file has the name of the field."""
    return field(default=0, metadata={"kind": kind, "needs": needs})


def _renamed(old: str, kind: Kind = Kind.COUNTER, old_kind: Kind = Kind.COUNTER) -> Any:
    """Declare a counter whose file was `old` before counters had descriptors."""
    return field(default=0, metadata={"kind": kind, "old": old, "old_kind": old_kind})


def _only_old(kind: Kind = Kind.COUNTER) -> Any:
    """Declare a counter of the kernels before descriptors."""
    return field(default=0, metadata={"kind": kind, "unless": KvmFeature.STATS_DESCRIBED})


def _no_events() -> list[int]:
    return [0] * HIST_BUCKETS


_HIST = {"kind": Kind.HIST, "needs": KvmFeature.STATS_DESCRIBED}


@dataclass(slots=True, eq=False)
class VmStats:
    """The counters of a VM, in events, sptes or shadow pages."""

    mmu_shadow_zapped: int = _counter()
    mmu_pte_write: int = _counter()
    mmu_pte_updated: int = _only_old()
    mmu_pde_zapped: int = _counter()
    mmu_flooded: int = _counter()
    mmu_recycled: int = _counter()
    mmu_cache_miss: int = _counter()
    mmu_unsync: int = _renamed("mmu_unsync", Kind.GAUGE)
    remote_tlb_flush: int = _counter()
    remote_tlb_flush_requests: int = _counter(needs=KvmFeature.STATS_DESCRIBED)
    # Large pages of any size; later kernels count each size.
    largepages: int = _only_old(Kind.GAUGE)
    pages_4k: int = _counter(Kind.GAUGE, needs=KvmFeature.STATS_DESCRIBED)
    pages_2m: int = _counter(Kind.GAUGE, needs=KvmFeature.STATS_DESCRIBED)
    pages_1g: int = _counter(Kind.GAUGE, needs=KvmFeature.STATS_DESCRIBED)
    nx_lpage_splits: int = _renamed("nx_largepages_splitted", Kind.GAUGE, Kind.GAUGE)
    max_mmu_rmap_size: int = _counter(Kind.PEAK, needs=KvmFeature.STATS_DESCRIBED)
    max_mmu_page_hash_collisions: int = _counter(Kind.PEAK)


@dataclass(slots=True, eq=False)
class VcpuStats:
    """The counters of a vCPU, in events; `*_ns` in nanoseconds."""

    pf_taken: int = _counter(needs=KvmFeature.STATS_PAGE_FAULTS)
    pf_fixed: int = _counter()
    pf_emulate: int = _counter(needs=KvmFeature.STATS_PAGE_FAULTS)
    pf_spurious: int = _counter(needs=KvmFeature.STATS_PAGE_FAULTS)
    pf_fast: int = _counter(needs=KvmFeature.STATS_PAGE_FAULTS)
    pf_mmio_spte_created: int = _counter(needs=KvmFeature.STATS_PAGE_FAULTS)
    pf_guest: int = _counter()
    tlb_flush: int = _counter()
    invlpg: int = _counter()
    exits: int = _counter()
    io_exits: int = _counter()
    mmio_exits: int = _counter()
    signal_exits: int = _counter()
    irq_window_exits: int = _renamed("irq_window")
    nmi_window_exits: int = _renamed("nmi_window")
    halt_exits: int = _counter()
    halt_successful_poll: int = _counter()
    halt_attempted_poll: int = _counter()
    halt_poll_invalid: int = _counter()
    halt_wakeup: int = _counter()
    halt_poll_success_ns: int = _counter(needs=KvmFeature.STATS_DESCRIBED)
    halt_poll_fail_ns: int = _counter(needs=KvmFeature.STATS_DESCRIBED)
    halt_wait_ns: int = _counter(needs=KvmFeature.STATS_DESCRIBED)
    halt_poll_success_hist: list[int] = field(default_factory=_no_events, metadata=_HIST)
    halt_poll_fail_hist: list[int] = field(default_factory=_no_events, metadata=_HIST)
    halt_wait_hist: list[int] = field(default_factory=_no_events, metadata=_HIST)
    blocking: int = _counter(Kind.GAUGE, needs=KvmFeature.STATS_DESCRIBED)
    guest_mode: int = _counter(Kind.GAUGE, needs=KvmFeature.STATS_DESCRIBED)
    hypercalls: int = _counter()
    request_irq_exits: int = _renamed("request_irq")
    irq_exits: int = _counter()
    host_state_reload: int = _counter()
    fpu_reload: int = _counter()
    insn_emulation: int = _counter()
    insn_emulation_fail: int = _counter()
    irq_injections: int = _counter()
    nmi_injections: int = _counter()
    req_event: int = _counter()
    l1d_flush: int = _counter()
    nested_run: int = _counter(needs=KvmFeature.STATS_DESCRIBED)
    directed_yield_attempted: int = _counter(needs=KvmFeature.STATS_DESCRIBED)
    directed_yield_successful: int = _counter(needs=KvmFeature.STATS_DESCRIBED)
    preemption_reported: int = _counter(needs=KvmFeature.STATS_DESCRIBED)
    preemption_other: int = _counter(needs=KvmFeature.STATS_DESCRIBED)
    notify_window_exits: int = _counter(needs=KvmFeature.STATS_DESCRIBED)


def bucket_of(nanoseconds: int) -> int:
    """Return the bucket of a histogram. Like kvm_host.h:kvm_stats_log_hist_update (v6.1)."""
    return min(nanoseconds.bit_length(), HIST_BUCKETS - 1)


def _files(key: str, row: Any) -> Iterator[StatFile]:
    if "old" in row:
        described = KvmFeature.STATS_DESCRIBED
        old_needs = KvmFeature.STATS_NX_PAGES if key == "nx_lpage_splits" else ()
        yield StatFile(row["old"], row["old_kind"], needs=old_needs, unless=described)
        yield StatFile(key, row["kind"], needs=described)
        return
    yield StatFile(key, row["kind"], row.get("needs", ()), row.get("unless", ()))


def _table(cls: type[VmStats] | type[VcpuStats], scope: Scope) -> Iterator[Stat]:
    for column in fields(cls):
        for name in _files(column.name, column.metadata):
            yield Stat(column.name, scope, name)


STATS: tuple[Stat, ...] = (*_table(VmStats, Scope.VM), *_table(VcpuStats, Scope.VCPU))

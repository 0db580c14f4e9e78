"""Many accesses in one command, 2 MiB at a time where single ones are not observable.

The result is that of the accesses one by one: the same sptes, counters and faults.
"""

from __future__ import annotations

from errno import EINVAL
from typing import NamedTuple, Protocol

from fakesys.core.errors import KernelError
from fakesys.core.scheduling.resched import might_resched
from fakesys.subsystems.kvm.events.guest import KvmPageFault
from fakesys.subsystems.kvm.events.run import KvmEntry, KvmExit
from fakesys.subsystems.kvm_mmu.events.sptes import (
    FastPageFault,
    FastPageFaultRetry,
    KvmMmuSetSpte,
    KvmMmuSpteRequested,
)
from fakesys.subsystems.kvm_mmu.guest.bulk_tdp import TdpBlocks, count_exits
from fakesys.subsystems.kvm_mmu.guest.exits import Exit, VcpuExit
from fakesys.subsystems.kvm_mmu.guest.programs import MAX_STEPS, single_access
from fakesys.subsystems.kvm_mmu.guest.traced_faults import TracedFaults
from fakesys.subsystems.kvm_mmu.guest.vcpu_run import Guest
from fakesys.subsystems.kvm_mmu.mmu.prefetch import GROUP, may_prefetch
from fakesys.subsystems.kvm_mmu.mmu.roots import MIN_FREE_PAGES
from fakesys.subsystems.kvm_mmu.shadow.pages import NONE
from fakesys.subsystems.kvm_mmu.shadow.sptes import ALL, EMPTY, ENTRIES, FULL_RW
from fakesys.subsystems.kvm_mmu.shadow.vcpu import VcpuMmu
from fakesys.subsystems.kvm_mmu.slots.host import PAGE
from fakesys.subsystems.kvm_mmu.slots.memslots import Memslot
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory

# Each access that faults tells one of these.
_EVENTS = (
    KvmEntry,
    KvmExit,
    KvmPageFault,
    FastPageFault,
    FastPageFaultRetry,
    KvmMmuSetSpte,
    KvmMmuSpteRequested,
)
# Fewer tables than this are not worth the trouble of making them together.
MIN_TABLES = 8
# More accesses are made in slices.
FEW = 64
_GROUP = (1 << GROUP) - 1
_FIRSTS = ALL // _GROUP


class BulkResult(NamedTuple):
    """Number of faults, and the exits to user space in order."""

    faults: int
    exits: list[VcpuExit]


def bulk_access(
    memory: VmMemory,
    vcpu: VcpuMmu,
    guest: Guest,
    kind: str,
    address: int,
    *,
    times: int = 1,
    stride: int = PAGE,
    value: int | None = None,
) -> BulkResult:
    """Make `times` accesses, `stride` bytes apart, until an exit that is not MMIO.

    `kind`: `r`, `w` or `x`. `value`: what a write stores, else `STORED`. Raises EINVAL for more
    than `MAX_STEPS` accesses that must be made one by one, EINTR after a signal.
    """
    before = vcpu.stats.pf_taken
    exits: list[VcpuExit] = []
    rip = guest.registers.rip
    write = kind == "w"
    in_runs = kind != "x" and stride == PAGE and guest.is_flat
    blocks = _blocks(memory, vcpu) if in_runs else None
    faults = TracedFaults(memory, vcpu, guest, memory.tdp) if in_runs and memory.tdp else None
    single = times if blocks is None else blocks.count_exits(address >> 12, times, write=write)
    if single > MAX_STEPS:
        raise KernelError(EINVAL, f"{single} accesses one by one; at most {MAX_STEPS} a command")
    if times > FEW:
        might_resched()
    done = 0
    if not guest.go_on(exits):
        return BulkResult(vcpu.stats.pf_taken - before, exits)
    while done < times:
        guest.let_others_in()
        where = address + done * stride
        number = _access_many(blocks, faults, where >> 12, times - done, write=write)
        done += number or 1
        if number:
            continue
        vcpu_exit = guest.access(single_access(kind, where, rip, value))
        if vcpu_exit is None:
            continue
        exits.append(vcpu_exit)
        if vcpu_exit.reason is not Exit.MMIO:
            break
        if done < times and not guest.go_on(exits, vcpu_exit):
            break
    return BulkResult(vcpu.stats.pf_taken - before, exits)


def _access_many(
    blocks: Blocks | None, faults: TracedFaults | None, gfn: int, npages: int, *, write: bool
) -> int:
    """Access pages together; return how many, 0 if the next one must go singly."""
    # Others may have enabled an event since.
    if blocks is not None and blocks.is_allowed():
        return blocks.access(gfn, npages, write=write)
    return 0 if faults is None else faults.access(gfn, npages, write=write)


def _blocks(memory: VmMemory, vcpu: VcpuMmu) -> Blocks | None:
    """Return what accesses many pages at once, None where that can be told from single accesses."""
    blocks: Blocks
    blocks = BlockAccess(memory, vcpu) if memory.tdp is None else TdpBlocks(memory, vcpu)
    return blocks if blocks.is_allowed() else None


class Blocks(Protocol):
    """Accesses many pages at once."""

    def is_allowed(self) -> bool:
        """Return whether the result cannot be told from that of single accesses."""

    def count_exits(self, gfn: int, npages: int, *, write: bool) -> int:
        """Return how many of these pages no slot allows: each is an exit to user space."""

    def access(self, gfn: int, npages: int, *, write: bool) -> int:
        """Access up to `npages` pages from `gfn`; return how many, 0 if they must go singly."""


class BlockAccess:
    """Accesses all pages of a 2 MiB block at once, with TDP."""

    def __init__(self, memory: VmMemory, vcpu: VcpuMmu) -> None:
        self._memory = memory
        self._vcpu = vcpu
        self._pages = memory.arch.pages
        self._sptes = memory.arch.sptes

    def is_allowed(self) -> bool:
        """Return whether the result cannot be told from that of single accesses."""
        wanted, is_logged = self._memory.arch.bus.wanted, self._vcpu.ring is not None
        if is_logged or not self._memory.arch.knobs.tdp:
            return False
        return not any(event in wanted for event in _EVENTS)

    def count_exits(self, gfn: int, npages: int, *, write: bool) -> int:
        """Return how many of these pages no slot allows: each is an exit to user space."""
        return count_exits(self._memory.slots, gfn, npages, write=write)

    def access(self, gfn: int, npages: int, *, write: bool) -> int:
        """Access up to `npages` pages from `gfn`; return how many, 0 if they must go singly."""
        if self._vcpu.requests or not self._vcpu.roots:
            return 0
        wanted, npages = npages, min(npages, ENTRIES - (gfn & 511))
        row, index, level = self._memory.shadow_walker.last(self._vcpu, gfn << 12)
        if level == 1:
            return self._access_table(row, gfn, npages, write)
        if level == 2 and self._sptes.present(row) >> index & 1:
            return npages if self._hits_large(row, index, write) else 0
        slot = self._memory.slots.find(gfn)
        if slot is None or not self._is_resident(slot, gfn, npages):
            return 0
        if level == 2 and not gfn & 511:
            filled = self._fill_tables(slot, row, index, gfn, wanted // ENTRIES)
            if filled:
                return filled
        return self._access_new_table(slot, gfn, npages, write)

    def _access_new_table(self, slot: Memslot, gfn: int, npages: int, write: bool) -> int:
        direct_map = self._memory.direct_map
        if direct_map.max_mapping_level(slot, gfn, 3) > 1 or direct_map.has_table(gfn):
            return 0
        row = direct_map.make_table(self._vcpu, gfn)
        return 0 if row == NONE else self._access_table(row, gfn, npages, write)

    def _access_table(self, row: int, gfn: int, npages: int, write: bool) -> int:
        state = self._pages.leaf_state[row]
        if state == FULL_RW:
            return npages
        mask = ((1 << npages) - 1) << (gfn & 511)
        slot = self._memory.slots.find(gfn)
        if slot is None or not self._is_resident(slot, gfn, npages):
            return 0
        if state == EMPTY and mask == ALL and may_prefetch(slot):
            self._fill(row)
            return npages
        leaf = self._sptes.leaf(row)
        denied = leaf.present & ~leaf.writable & mask if write else 0
        if leaf.mmio or leaf.is_readonly(denied):
            return 0
        missing = mask & ~leaf.present
        mapped = missing
        faults = missing
        if not slot.logs_dirty:
            faults = _starts(missing)
            mapped = faults * _GROUP & ~leaf.present
        leaf.present |= mapped
        leaf.writable |= mapped | denied
        leaf.dirty |= mapped | denied
        leaf.accessed |= mask
        slot.mark_all_dirty(gfn & -ENTRIES, mapped | denied)
        self._account(row, mapped.bit_count(), faults.bit_count(), denied.bit_count())
        self._sptes.pack(row)
        return npages

    def _fill_tables(self, slot: Memslot, row: int, index: int, gfn: int, tables: int) -> int:
        """Fill many absent tables at once; return how many pages, 0 if that is not possible."""
        count = min(tables, ENTRIES - index, (slot.end_gfn - gfn) >> 9)
        count = min(count, self._memory.roots.available - MIN_FREE_PAGES)
        memory = slot.memory
        if count < MIN_TABLES or memory is None or memory.has_large or not memory.is_untouched:
            return 0
        if not may_prefetch(slot) or not slot.backed(gfn + (count << 9) - 1):
            return 0
        rows = self._memory.finder.make_tables(row, index, gfn, count)
        if rows is None:
            return 0
        leaf, present = self._pages.leaf_state, self._pages.present
        for table in rows:
            leaf[table] = FULL_RW
            present[table] = ENTRIES
        self._sptes.count(1, count * ENTRIES)
        self._count_faults(count * ENTRIES // GROUP, 0)
        return count * ENTRIES

    def _fill(self, row: int) -> None:
        """Fill an empty table: one fault per group of eight."""
        self._pages.leaf_state[row] = FULL_RW
        self._account(row, ENTRIES, ENTRIES // GROUP, 0)

    def _account(self, row: int, mapped: int, faults: int, fast: int) -> None:
        self._pages.present[row] += mapped
        self._sptes.count(1, mapped)
        self._count_faults(faults, fast)

    def _count_faults(self, faults: int, fast: int) -> None:
        stats = self._vcpu.stats
        by_outcome = self._memory.arch.policy.counts_by_outcome
        stats.exits += faults + fast
        stats.pf_taken += faults + fast
        stats.pf_fixed += faults + fast if by_outcome else faults
        stats.pf_fast += fast

    def _hits_large(self, row: int, index: int, write: bool) -> bool:
        leaf, bit = self._sptes.leaf(row), 1 << index
        if write and not leaf.writable & bit:
            return False
        leaf.accessed |= bit
        self._sptes.pack(row)
        return True

    def _is_resident(self, slot: Memslot, gfn: int, npages: int) -> bool:
        """Return whether the host has these pages, and those prefetched with them, for writing."""
        low, high = gfn & -GROUP, (gfn + npages + GROUP - 1) & -GROUP
        memory = slot.memory
        if memory is None or slot.read_only or slot.invalid:
            return False
        if low < slot.base_gfn or high > slot.end_gfn or not slot.backed(high - 1):
            return False
        if self._memory.roots.available < MIN_FREE_PAGES:
            return False
        return memory.is_writable(slot.page(low), high - low)


def _starts(mask: int) -> int:
    """Return the first bit of every group of eight in which a bit is set."""
    mask |= mask >> 1
    mask |= mask >> 2
    mask |= mask >> 4
    return mask & _FIRSTS

"""Many accesses in one command, 2 MiB at a time where nobody sees the single ones.

The result is what access after access would give: the same sptes, counters and faults.
"""

from __future__ import annotations

from errno import EINVAL
from typing import NamedTuple

from fakesys.core.errors import KernelError
from fakesys.subsystems.kvm.events.guest import KvmPageFault
from fakesys.subsystems.kvm_mmu.events import catalog as trace
from fakesys.subsystems.kvm_mmu.guest.programs import MOST_STEPS, Exit, Guest, Left, plain_access
from fakesys.subsystems.kvm_mmu.ops.prefetch import GROUP, may_prefetch
from fakesys.subsystems.kvm_mmu.ops.roots import MIN_FREE_PAGES, VcpuMmu
from fakesys.subsystems.kvm_mmu.shadow.pages import NONE
from fakesys.subsystems.kvm_mmu.shadow.sptes import ALL, EMPTY, ENTRIES, FULL_RW
from fakesys.subsystems.kvm_mmu.slots.memslots import Memslot
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory

# Each access that faults tells one of these.
_EVENTS = (
    KvmPageFault,
    trace.FastPageFault,
    trace.FastPageFaultRetry,
    trace.KvmMmuSetSpte,
    trace.KvmMmuSpteRequested,
)
# Fewer tables than this are not worth the trouble of making them together.
MANY = 8
_GROUP = (1 << GROUP) - 1
_FIRSTS = ALL // _GROUP


class Touched(NamedTuple):
    """Faults, and exits to user space in order."""

    faults: int
    exits: list[Left]


def touch(
    memory: VmMemory,
    vcpu: VcpuMmu,
    guest: Guest,
    kind: str,
    address: int,
    *,
    times: int = 1,
    stride: int = 4096,
    value: int | None = None,
) -> Touched:
    """`times` accesses (`r`, `w`, `x`), `stride` bytes apart, until an exit that is not MMIO.

    Raises EINVAL for more than `MOST_STEPS` of them that must go one by one.
    """
    before = vcpu.stats.pf_taken
    exits: list[Left] = []
    rip = guest.registers.rip
    by_block = Blocks(memory, vcpu) if kind != "x" and stride == 4096 else None
    if by_block is not None and not by_block.allowed():
        by_block = None
    single = times if by_block is None else by_block.exits(address >> 12, times, write=kind == "w")
    if single > MOST_STEPS:
        raise KernelError(EINVAL, f"{single} accesses one by one; at most {MOST_STEPS} a command")
    guest.enter()
    done = 0
    while done < times:
        where = address + done * stride
        if by_block is not None:
            number = by_block.touch(where >> 12, times - done, write=kind == "w")
            if number:
                done += number
                continue
        left = guest.access(plain_access(kind, where, rip, value))
        done += 1
        if left is None:
            continue
        exits.append(left)
        if left.reason is not Exit.MMIO:
            break
        if done < times:
            guest.resume(left)
    return Touched(vcpu.stats.pf_taken - before, exits)


class Blocks:
    """Accesses to all pages of a 2 MiB block at once, with TDP."""

    def __init__(self, memory: VmMemory, vcpu: VcpuMmu) -> None:
        self._memory = memory
        self._vcpu = vcpu
        self._pages = memory.kit.pages
        self._sptes = memory.kit.sptes

    def allowed(self) -> bool:
        """Would nobody see the difference?"""
        wanted = self._memory.kit.bus.wanted
        return self._memory.kit.knobs.tdp and not any(event in wanted for event in _EVENTS)

    def exits(self, gfn: int, npages: int, *, write: bool) -> int:
        """How many of these pages end as an exit to user space each."""
        inside = 0
        for slot in self._memory.spaces.mappable:
            if not (write and slot.read_only):
                common = min(gfn + npages, slot.end_gfn) - max(gfn, slot.base_gfn)
                inside += max(0, common)
        return npages - inside

    def touch(self, gfn: int, npages: int, *, write: bool) -> int:
        """Access up to `npages` pages from `gfn`; how many, 0 if they must go one by one."""
        if self._vcpu.requests or not self._vcpu.roots:
            return 0
        wanted, npages = npages, min(npages, ENTRIES - (gfn & 511))
        row, index, level = self._memory.faults.lookup(self._vcpu, gfn << 12)
        if level == 1:
            return self._touch_table(row, gfn, npages, write)
        if level == 2 and self._sptes.present(row) >> index & 1:
            return npages if self._hits_large(row, index, write) else 0
        slot = self._memory.slots.find(gfn)
        if slot is None or not self._is_plain(slot, gfn, npages):
            return 0
        if level == 2 and wanted >= MANY * ENTRIES and not gfn & 511:
            filled = self._fill_tables(slot, row, index, gfn, wanted // ENTRIES)
            if filled:
                return filled
        faults = self._memory.faults
        if not faults.maps_small(slot, gfn) or faults.has_table(gfn):
            return 0
        row = faults.make_table(self._vcpu, gfn)
        return 0 if row == NONE else self._touch_table(row, gfn, npages, write)

    def _touch_table(self, row: int, gfn: int, npages: int, write: bool) -> int:
        state = self._pages.leaf[row]
        if state == FULL_RW:
            return npages
        mask = ((1 << npages) - 1) << (gfn & 511)
        slot = self._memory.slots.find(gfn)
        if slot is None or not self._is_plain(slot, gfn, npages):
            return 0
        if state == EMPTY and mask == ALL and may_prefetch(slot):
            self._fill(row)
            return npages
        leaf = self._sptes.leaf(row)
        denied = leaf.present & ~leaf.writable & mask if write else 0
        if leaf.mmio or denied & (leaf.sealed | leaf.host_ro):
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
        self._book(row, mapped.bit_count(), faults.bit_count(), denied.bit_count())
        self._sptes.settle(row)
        return npages

    def _fill_tables(self, slot: Memslot, row: int, index: int, gfn: int, tables: int) -> int:
        """Many absent tables become full at once; how many pages, 0 if that cannot be."""
        count = min(tables, ENTRIES - index, (slot.end_gfn - gfn) >> 9)
        count = min(count, self._memory.roots.available - MIN_FREE_PAGES)
        memory = slot.memory
        if count < MANY or memory is None or memory.thp or memory.gone or memory.read_only:
            return 0
        if not may_prefetch(slot) or not slot.backed(gfn + (count << 9) - 1):
            return 0
        rows = self._memory.tree.make_tables(row, index, gfn, count)
        if rows is None:
            return 0
        leaf, present = self._pages.leaf, self._pages.present
        for table in rows:
            leaf[table] = FULL_RW
            present[table] = ENTRIES
        self._sptes.count(1, count * ENTRIES)
        self._count_faults(count * ENTRIES // GROUP, 0)
        return count * ENTRIES

    def _fill(self, row: int) -> None:
        """An empty table becomes full: a fault per group of eight."""
        self._pages.leaf[row] = FULL_RW
        self._book(row, ENTRIES, ENTRIES // GROUP, 0)

    def _book(self, row: int, mapped: int, faults: int, fast: int) -> None:
        self._pages.present[row] += mapped
        self._sptes.count(1, mapped)
        self._count_faults(faults, fast)

    def _count_faults(self, faults: int, fast: int) -> None:
        stats = self._vcpu.stats
        by_outcome = self._memory.kit.policy.counts_by_outcome
        stats.exits += faults + fast
        stats.pf_taken += faults + fast
        stats.pf_fixed += faults + fast if by_outcome else faults
        stats.pf_fast += fast

    def _hits_large(self, row: int, index: int, write: bool) -> bool:
        leaf, bit = self._sptes.leaf(row), 1 << index
        if write and not leaf.writable & bit:
            return False
        leaf.accessed |= bit
        self._sptes.settle(row)
        return True

    def _is_plain(self, slot: Memslot, gfn: int, npages: int) -> bool:
        """Are these pages, and those that a fault would prefetch, there for reading and writing?"""
        low, high = gfn & -GROUP, (gfn + npages + GROUP - 1) & -GROUP
        memory = slot.memory
        if memory is None or slot.read_only or slot.invalid:
            return False
        if low < slot.base_gfn or high > slot.end_gfn or not slot.backed(high - 1):
            return False
        if self._memory.roots.available < MIN_FREE_PAGES:
            return False
        if not memory.gone and not memory.read_only:
            return True
        ends = {slot.page(low) >> 9, slot.page(high - 1) >> 9}
        return not any(block in memory.gone or block in memory.read_only for block in ends)


def _starts(mask: int) -> int:
    """The first bit of every group of eight in which a bit is set."""
    mask |= mask >> 1
    mask |= mask >> 2
    mask |= mask >> 4
    return mask & _FIRSTS

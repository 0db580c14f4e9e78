"""Many accesses in one command with the TDP MMU: whole tables, and masks of single ones."""

from __future__ import annotations

from fakesys.subsystems.kvm.events.guest import KvmPageFault
from fakesys.subsystems.kvm.events.run import KvmEntry, KvmExit
from fakesys.subsystems.kvm_mmu.events.pages import KvmMmuGetPage
from fakesys.subsystems.kvm_mmu.events.sptes import (
    FastPageFault,
    KvmMmuSetSpte,
    KvmMmuSpteRequested,
    KvmTdpMmuSpteChanged,
)
from fakesys.subsystems.kvm_mmu.shadow.sptes import ENTRIES
from fakesys.subsystems.kvm_mmu.shadow.vcpu import VcpuMmu
from fakesys.subsystems.kvm_mmu.slots.memslots import Memslot, Memslots
from fakesys.subsystems.kvm_mmu.tdp.tables import ABSENT, FULL_RW, HUGE, Directory, Huge
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory

# Each access that faults tells some of these.
_EVENTS = (
    KvmEntry,
    KvmExit,
    KvmPageFault,
    FastPageFault,
    KvmMmuGetPage,
    KvmMmuSetSpte,
    KvmMmuSpteRequested,
    KvmTdpMmuSpteChanged,
)


class TdpBlocks:
    """Accesses up to 1 GiB of pages at once, as single accesses would."""

    def __init__(self, memory: VmMemory, vcpu: VcpuMmu) -> None:
        assert memory.tdp is not None
        self._memory = memory
        self._vcpu = vcpu
        self._walker = memory.tdp.walker
        self._count = memory.arch.sptes.count

    def is_allowed(self) -> bool:
        """Return whether the result cannot be told from that of single accesses."""
        wanted = self._memory.arch.bus.wanted
        return not any(event in wanted for event in _EVENTS)

    def count_exits(self, gfn: int, npages: int, *, write: bool) -> int:
        """Return how many of these pages no slot allows: each is an exit to user space."""
        return count_exits(self._memory.slots, gfn, npages, write=write)

    def access(self, gfn: int, npages: int, *, write: bool) -> int:
        """Access up to `npages` pages from `gfn`; return how many, 0 if they must go singly."""
        if self._vcpu.requests or not self._vcpu.roots or self._vcpu.as_id:
            return 0
        level, directory, index, _ = self._walker.last(self._vcpu, gfn << 12)
        if level > 2 or not isinstance(directory, Directory):
            return 0
        wanted, npages = npages, min(npages, ENTRIES - (gfn & 511))
        state = directory.state[index]
        if state == FULL_RW:
            return npages
        if state & HUGE:
            return npages if state & Huge.WRITABLE or not write else 0
        slot = self._memory.slots.find(gfn)
        if slot is None or self._memory.arch.ring is not None:
            return 0
        if state == ABSENT:
            return self._fill(slot, directory, index, gfn, wanted)
        if not self.is_resident(slot, gfn, npages):
            return 0
        return self._access_table(slot, directory, index, gfn, npages, write)

    def _fill(self, slot: Memslot, directory: Directory, index: int, gfn: int, npages: int) -> int:
        """Make whole tables at once; 0 if the next one is accessed in part only."""
        count = min(npages >> 9, ENTRIES - index, slot.end_gfn - gfn >> 9)
        if gfn & 511 or count < 1 or slot.logs_dirty:
            return 0
        if slot.memory is None or slot.memory.has_large:
            return 0
        if not self.is_resident(slot, gfn, count << 9):
            return 0
        run = bytes(directory.state[index : index + count])
        count -= len(run.lstrip(bytes([ABSENT])))
        directory.state[index : index + count] = bytes([FULL_RW]) * count
        self._count(1, count * ENTRIES)
        self._count_faults(count * ENTRIES, 0)
        return count * ENTRIES

    def _access_table(
        self, slot: Memslot, directory: Directory, index: int, gfn: int, npages: int, write: bool
    ) -> int:
        mask = (1 << npages) - 1 << (gfn & 511)
        leaf = directory.leaf(index)
        missing = mask & ~leaf.present
        denied = mask & leaf.present & ~leaf.writable if write else 0
        if leaf.mmio or leaf.readonly & denied:
            directory.pack(index)
            return 0
        leaf.present |= missing
        leaf.writable |= missing | denied
        slot.mark_all_dirty(gfn & -ENTRIES, missing | denied)
        self._count(1, missing.bit_count())
        self._count_faults(missing.bit_count(), denied.bit_count())
        directory.pack(index)
        return npages

    def is_resident(self, slot: Memslot, gfn: int, npages: int) -> bool:
        """Return whether the host has these pages, for writing and not as large ones."""
        memory = slot.memory
        if memory is None or slot.read_only or slot.invalid or gfn + npages > slot.end_gfn:
            return False
        if not slot.backed(gfn) or not slot.backed(gfn + npages - 1) or memory.unmapped:
            return False
        if slot.max_level(gfn) > 1:
            return False
        return memory.is_writable(slot.page(gfn), npages)

    def _count_faults(self, faults: int, fast: int) -> None:
        stats = self._vcpu.stats
        stats.exits += faults + fast
        stats.pf_taken += faults + fast
        stats.pf_fixed += faults + fast
        stats.pf_fast += fast


def count_exits(slots: Memslots, gfn: int, npages: int, *, write: bool) -> int:
    """Return how many of these pages no slot allows: each is an exit to user space."""
    inside = 0
    for slot in slots.in_order:
        if not (write and slot.read_only):
            common = min(gfn + npages, slot.end_gfn) - max(gfn, slot.base_gfn)
            inside += max(0, common)
    return npages - inside

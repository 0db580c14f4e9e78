"""After a fault, KVM maps up to seven neighbours as well, if that costs nothing.

Like arch/x86/kvm/mmu/mmu.c:__direct_pte_prefetch and paging_tmpl.h:pte_prefetch (v6.1).
"""

from __future__ import annotations

from fakesys.subsystems.kvm_mmu.events import catalog as trace
from fakesys.subsystems.kvm_mmu.ops.set_spte import SpteSetter
from fakesys.subsystems.kvm_mmu.ops.walker import (
    ACCESSED,
    ADDRESS,
    DIRTY,
    PRESENT,
    GuestMemory,
    entry_access,
)
from fakesys.subsystems.kvm_mmu.shadow.arch import Kit
from fakesys.subsystems.kvm_mmu.shadow.role import DIRECT, WRITE, access_of
from fakesys.subsystems.kvm_mmu.slots.memslots import Memslot, Memslots

# PTE_PREFETCH_NUM
GROUP = 8
_MASK = (1 << GROUP) - 1


class Prefetch:
    """Maps the neighbours of an spte in its group of eight."""

    def __init__(self, kit: Kit, slots: Memslots, memory: GuestMemory, setter: SpteSetter) -> None:
        self._kit = kit
        self._slots = slots
        self._memory = memory
        self._setter = setter

    def around(self, row: int, index: int) -> None:
        """The neighbours of entry `index` of a table of level 1."""
        first = index & -GROUP
        if not self._kit.pages.role[row] & DIRECT:
            self._indirect(row, first, index)
        else:
            self._direct(row, first, index)

    def whole_group(self, slot: Memslot, row: int, index: int) -> bool:
        """Map an absent entry and its group by masks, where nobody can tell the difference."""
        kit = self._kit
        if not kit.knobs.tdp or trace.KvmMmuSetSpte in kit.bus.wanted:
            return False
        first = index & -GROUP
        gfn = kit.pages.gfn[row] + first
        if gfn < slot.base_gfn or gfn + GROUP > slot.end_gfn:
            return False
        present = kit.sptes.present(row)
        if present >> index & 1 or not may_prefetch(slot) or not is_plain(slot, gfn):
            return False
        missing = _MASK << first & ~present
        leaf = kit.sptes.leaf(row)
        leaf.present |= missing
        leaf.writable |= missing
        leaf.dirty |= missing
        leaf.accessed |= 1 << index
        if leaf.mmio:
            for index in range(first, first + GROUP):
                leaf.mmio.pop(index, None)
        number = missing.bit_count()
        kit.pages.present[row] += number
        kit.sptes.count(1, number)
        kit.sptes.settle(row)
        return True

    def _direct(self, row: int, first: int, index: int) -> None:
        run: list[int] = []
        for place in range(first, first + GROUP):
            if place != index and not self._kit.sptes.present(row) >> place & 1:
                run.append(place)
                continue
            if run and not self._map_run(row, run):
                return
            run = []
        if run:
            self._map_run(row, run)

    def _map_run(self, row: int, run: list[int]) -> bool:
        """Map entries in a row as far as the host has their pages; was it one at least?"""
        access = access_of(self._kit.pages.role[row])
        base = self._kit.pages.gfn[row]
        slot = self._slots.find(base + run[0])
        if slot is None or (access & WRITE and slot.logs_dirty):
            return False
        done = 0
        for place in run:
            gfn = base + place
            if gfn >= slot.end_gfn or not is_at_hand(slot, gfn):
                break
            self._setter.set(slot, row, place, gfn, access, prefetch=True)
            done += 1
        return done > 0

    def _indirect(self, row: int, first: int, index: int) -> None:
        table = self._kit.pages.gfn[row] << 12
        for place in range(first, first + GROUP):
            if place == index or self._kit.sptes.present(row) >> place & 1:
                continue
            entry = self._memory.entry(table + place * 8)
            if entry is None or not self._map_entry(row, place, entry):
                return

    def _map_entry(self, row: int, place: int, entry: int) -> bool:
        """Map what an entry of the guest's table says; False ends the prefetch."""
        if entry & (PRESENT | ACCESSED) != PRESENT | ACCESSED:
            return False
        access = access_of(self._kit.pages.role[row]) & entry_access(entry)
        if not entry & DIRTY:
            access &= ~WRITE
        gfn = (entry & ADDRESS) >> 12
        slot = self._slots.find(gfn)
        if slot is None or (access & WRITE and slot.logs_dirty) or not is_at_hand(slot, gfn):
            return False
        self._setter.set(slot, row, place, gfn, access, prefetch=True)
        return True


def may_prefetch(slot: Memslot) -> bool:
    """Does prefetching for writes work in this slot at all?"""
    return not (slot.logs_dirty or slot.read_only or slot.invalid)


def is_plain(slot: Memslot, gfn: int) -> bool:
    """Is everything around a group there and writable in the host?"""
    memory = slot.memory
    if memory is None or not slot.backed(gfn + GROUP - 1):
        return False
    if not memory.gone and not memory.read_only:
        return True
    ends = {slot.page(gfn) >> 9, slot.page(gfn + GROUP - 1) >> 9}
    return not any(block in memory.gone or block in memory.read_only for block in ends)


def is_at_hand(slot: Memslot, gfn: int) -> bool:
    """Could the host page be taken for writing without waiting?"""
    memory = slot.memory
    if memory is None or slot.read_only or slot.invalid or not slot.backed(gfn):
        return False
    page = slot.page(gfn)
    return not memory.is_gone(page) and not memory.is_read_only(page)

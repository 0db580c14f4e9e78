"""Prefetch: after a fault, KVM maps up to seven neighbours as well, where that needs no waiting.

Like arch/x86/kvm/mmu/mmu.c:__direct_pte_prefetch and paging_tmpl.h:pte_prefetch (v6.1).
"""

from __future__ import annotations

from fakesys.subsystems.kvm_mmu.events.sptes import KvmMmuSetSpte
from fakesys.subsystems.kvm_mmu.mmu.guest_walker import (
    ACCESSED,
    ADDRESS,
    DIRTY,
    PRESENT,
    entry_access,
)
from fakesys.subsystems.kvm_mmu.mmu.set_spte import SpteSetter
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.role import DIRECT, WRITE, access_of, as_id_of
from fakesys.subsystems.kvm_mmu.slots.guest_memory import GuestMemory
from fakesys.subsystems.kvm_mmu.slots.memslots import AddressSpaces, Memslot, Memslots

# PTE_PREFETCH_NUM
GROUP = 8
_MASK = (1 << GROUP) - 1


class Prefetch:
    """Maps the neighbours of an spte in its group of eight."""

    def __init__(
        self, arch: MmuArch, spaces: AddressSpaces, memory: GuestMemory, setter: SpteSetter
    ) -> None:
        self._arch = arch
        self._spaces = spaces
        self._memory = memory
        self._setter = setter

    def prefetch_neighbours(self, row: int, index: int) -> None:
        """Map the neighbours of entry `index` of a table of level 1."""
        first = index & -GROUP
        if not self._arch.pages.role[row] & DIRECT:
            self._pte_prefetch(row, first, index)
        else:
            self._direct_pte_prefetch(row, first, index)

    def prefetch_group(self, slot: Memslot, row: int, index: int) -> bool:
        """Map an absent entry and its group by masks; return False where that would be observable.

        The result equals that of `SpteSetter.set_spte` and `prefetch_neighbours`, which are slower.
        """
        arch = self._arch
        if not arch.knobs.tdp or KvmMmuSetSpte in arch.bus.wanted:
            return False
        first = index & -GROUP
        gfn = arch.pages.gfn[row] + first
        if gfn < slot.base_gfn or gfn + GROUP > slot.end_gfn:
            return False
        present = arch.sptes.present(row)
        if present >> index & 1 or not may_prefetch(slot) or not group_is_resident(slot, gfn):
            return False
        missing = _MASK << first & ~present
        leaf = arch.sptes.leaf(row)
        leaf.present |= missing
        leaf.writable |= missing
        leaf.dirty |= missing
        leaf.accessed |= 1 << index
        if leaf.mmio:
            for index in range(first, first + GROUP):
                leaf.mmio.pop(index, None)
        number = missing.bit_count()
        arch.pages.present[row] += number
        arch.sptes.count(1, number)
        arch.sptes.pack(row)
        return True

    def _direct_pte_prefetch(self, row: int, first: int, index: int) -> None:
        run: list[int] = []
        for place in range(first, first + GROUP):
            if place != index and not self._arch.sptes.present(row) >> place & 1:
                run.append(place)
                continue
            if run and not self._map_run(row, run):
                return
            run = []
        if run:
            self._map_run(row, run)

    def _slots_of(self, row: int) -> Memslots:
        return self._spaces.memslots[as_id_of(self._arch.pages.role[row])]

    def _map_run(self, row: int, run: list[int]) -> bool:
        """Map consecutive entries as far as the host has their pages; return whether any was."""
        access = access_of(self._arch.pages.role[row])
        base = self._arch.pages.gfn[row]
        slot = self._slots_of(row).find(base + run[0])
        if slot is None or (access & WRITE and slot.logs_dirty):
            return False
        done = 0
        for place in run:
            gfn = base + place
            if gfn >= slot.end_gfn or not page_is_resident(slot, gfn):
                break
            self._setter.set_spte(slot, row, place, gfn, access, prefetch=True)
            done += 1
        return done > 0

    def _pte_prefetch(self, row: int, first: int, index: int) -> None:
        table = self._arch.pages.gfn[row] << 12
        for place in range(first, first + GROUP):
            if place == index or self._arch.sptes.present(row) >> place & 1:
                continue
            entry = self._memory.entry(table + place * 8)
            if entry is None or not self._map_entry(row, place, entry):
                return

    def _map_entry(self, row: int, place: int, entry: int) -> bool:
        """Map what an entry of the guest's table says; return False to end the prefetch."""
        if entry & (PRESENT | ACCESSED) != PRESENT | ACCESSED:
            return False
        access = access_of(self._arch.pages.role[row]) & entry_access(entry)
        if not entry & DIRTY:
            access &= ~WRITE
        gfn = (entry & ADDRESS) >> 12
        slot = self._slots_of(row).find(gfn)
        if slot is None or (access & WRITE and slot.logs_dirty) or not page_is_resident(slot, gfn):
            return False
        self._setter.set_spte(slot, row, place, gfn, access, prefetch=True)
        return True


def may_prefetch(slot: Memslot) -> bool:
    """Return whether sptes of this slot may be prefetched for writing."""
    return not (slot.logs_dirty or slot.read_only or slot.invalid)


def group_is_resident(slot: Memslot, gfn: int) -> bool:
    """Return whether the host has all pages of a group of eight, and may write to them."""
    memory = slot.memory
    if memory is None or not slot.backed(gfn + GROUP - 1):
        return False
    return memory.is_writable(slot.page(gfn), GROUP)


def page_is_resident(slot: Memslot, gfn: int) -> bool:
    """Return whether the host page can be taken for writing without waiting."""
    memory = slot.memory
    if memory is None or slot.read_only or slot.invalid or not slot.backed(gfn):
        return False
    return memory.is_writable(slot.page(gfn))

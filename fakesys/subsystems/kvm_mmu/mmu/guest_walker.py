"""Walks through the guest's own page tables: four levels of 8-byte entries.

Follows paging_tmpl.h:walk_addr_generic, update_accessed_dirty_bits (v6.1).
"""

from __future__ import annotations

from msgspec import Struct

from fakesys.core.events import Bus
from fakesys.subsystems.kvm_mmu.events.walk import (
    KvmMmuPagetableWalk,
    KvmMmuPagingElement,
    KvmMmuSetAccessedBit,
    KvmMmuSetDirtyBit,
    KvmMmuWalkerError,
)
from fakesys.subsystems.kvm_mmu.shadow.role import ALL_ACCESS, EXEC, USER, WRITE
from fakesys.subsystems.kvm_mmu.shadow.walk import PF_FETCH, PF_PRESENT, PF_USER, PF_WRITE
from fakesys.subsystems.kvm_mmu.slots.guest_memory import GuestMemory

PRESENT, RW, US, ACCESSED, DIRTY, PSE = 1, 2, 4, 0x20, 0x40, 0x80
NX = 1 << 63
ADDRESS = (1 << 52) - 1 & ~0xFFF

TOP = 4


class GuestWalk(Struct):
    """A walk that reached a page. `gfn`: of the address itself, also within a large page.

    `level`: of the entry that maps it. `tables[L]`: gfn of the table read at level L.
    `table_access[L]`: what the entries above level L allow. `access`: what the guest may do with
    the page, without WRITE while a reader found the entry clean.
    """

    gfn: int
    level: int
    access: int
    tables: dict[int, int]
    table_access: dict[int, int]


class GuestWalker:
    """Walks a guest's tables as the processor would."""

    def __init__(self, bus: Bus, memory: GuestMemory) -> None:
        self._bus = bus
        self._memory = memory

    def walk(self, cr3: int, address: int, error: int) -> GuestWalk | None:
        """Translate an address; set A and D bits in the guest's tables.

        Return None if the tables do not allow the access: the guest gets a page fault.
        """
        wanted = self._bus.wanted
        if KvmMmuPagetableWalk in wanted:
            self._bus.emit(KvmMmuPagetableWalk(addr=address, pferr=error))
        write, fetch = bool(error & PF_WRITE), bool(error & PF_FETCH)
        tables: dict[int, int] = {}
        table_access: dict[int, int] = {}
        entries: list[tuple[int, int, int]] = []
        access, table, level = ALL_ACCESS, cr3 & ADDRESS, TOP
        while True:
            gpa = table + (address >> 12 + 9 * (level - 1) & 511) * 8
            tables[level], table_access[level] = table >> 12, access
            entry = self._memory.entry(gpa)
            if entry is None:
                self._trace_walker_error(error & ~PF_PRESENT)
                return None
            if KvmMmuPagingElement in wanted:
                self._bus.emit(KvmMmuPagingElement(pte=entry, level=level))
            if not entry & PRESENT:
                self._trace_walker_error(error & ~PF_PRESENT)
                return None
            entries.append((level, gpa, entry))
            access &= entry_access(entry)
            if level == 1 or (entry & PSE and level < TOP):
                break
            table = entry & ADDRESS
            level -= 1
        need = (WRITE if write else 0) | (EXEC if fetch else 0) | (USER if error & PF_USER else 0)
        if need & ~access:
            self._trace_walker_error(error | PF_PRESENT)
            return None
        entry = self._update_accessed_dirty_bits(entries, write)
        if not write and not entry & DIRTY:
            # The first write must fault, so that the guest's D bit gets set then.
            access &= ~WRITE
        size = 1 << 9 * (level - 1)
        gfn = (entry & ADDRESS) >> 12 & -size | address >> 12 & size - 1
        return GuestWalk(gfn, level, access, tables, table_access)

    def _update_accessed_dirty_bits(self, entries: list[tuple[int, int, int]], write: bool) -> int:
        """Set A in every entry and D in the last; return the last entry."""
        entry = 0
        for level, gpa, entry in entries:
            new = entry | ACCESSED
            if not entry & ACCESSED and KvmMmuSetAccessedBit in self._bus.wanted:
                self._bus.emit(KvmMmuSetAccessedBit(gpa=gpa))
            if level == entries[-1][0] and write and not entry & DIRTY:
                new |= DIRTY
                if KvmMmuSetDirtyBit in self._bus.wanted:
                    self._bus.emit(KvmMmuSetDirtyBit(gpa=gpa))
            if new != entry:
                self._memory.write(gpa, new.to_bytes(8, "little"))
                entry = new
        return entry

    def _trace_walker_error(self, error: int) -> None:
        """Report that the guest will get a page fault."""
        if KvmMmuWalkerError in self._bus.wanted:
            self._bus.emit(KvmMmuWalkerError(pferr=error))


def entry_access(entry: int) -> int:
    """Return what an entry of a guest table allows, as EXEC | WRITE | USER."""
    access = 0 if entry & NX else EXEC
    if entry & RW:
        access |= WRITE
    if entry & US:
        access |= USER
    return access

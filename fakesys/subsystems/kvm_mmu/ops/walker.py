"""The guest's own page tables: walked as the processor would, four levels of 8-byte entries."""

from __future__ import annotations

from msgspec import Struct

from fakesys.core.events import Bus
from fakesys.subsystems.kvm_mmu.events import catalog as trace
from fakesys.subsystems.kvm_mmu.shadow.role import ALL_ACCESS, EXEC, USER, WRITE
from fakesys.subsystems.kvm_mmu.slots.memslots import Memslots

PRESENT, RW, US, ACCESSED, DIRTY, PSE = 1, 2, 4, 0x20, 0x40, 0x80
NX = 1 << 63
ADDRESS = (1 << 52) - 1 & ~0xFFF

# Page fault error code.
PF_PRESENT, PF_WRITE, PF_USER, PF_RSVD, PF_FETCH = 1, 2, 4, 8, 16
TOP = 4


class Walk(Struct):
    """A walk that reached a page. `gfn`: of the address itself, also within a large page.

    `level`: of the entry that maps it. `tables[L]`: gfn of the table read at level L.
    `table_access[L]`: what the entries above level L allow. `access`: of the page, without WRITE
    while a reader found the entry clean.
    """

    gfn: int
    level: int
    access: int
    tables: dict[int, int]
    table_access: dict[int, int]


class GuestMemory:
    """Guest physical memory as KVM reads and writes it on the guest's behalf."""

    def __init__(self, slots: Memslots) -> None:
        self._slots = slots

    def read(self, gpa: int, size: int) -> bytes | None:
        """Bytes within one page; None where there is no memory."""
        gfn = gpa >> 12
        slot = self._slots.find(gfn)
        if slot is None or slot.memory is None or slot.invalid or not slot.backed(gfn):
            return None
        return slot.memory.read(slot.page(gfn) << 12 | gpa & 0xFFF, size)

    def write(self, gpa: int, data: bytes) -> bool:
        """Write bytes within one page and mark it dirty; False where that cannot be done."""
        gfn = gpa >> 12
        slot = self._slots.find(gfn)
        if slot is None or slot.memory is None or slot.invalid or slot.read_only:
            return False
        if not slot.backed(gfn) or slot.memory.is_read_only(slot.page(gfn)):
            return False
        slot.memory.touch(slot.page(gfn))
        slot.memory.write(slot.page(gfn) << 12 | gpa & 0xFFF, data)
        slot.mark_dirty(gfn)
        return True

    def entry(self, gpa: int) -> int | None:
        """An 8-byte table entry."""
        raw = self.read(gpa, 8)
        return None if raw is None else int.from_bytes(raw, "little")


class Walker:
    """Walks a guest's tables. Like paging_tmpl.h:walk_addr_generic (v6.1)."""

    def __init__(self, bus: Bus, memory: GuestMemory) -> None:
        self._bus = bus
        self._memory = memory

    def walk(self, cr3: int, address: int, error: int) -> Walk | None:
        """Translate; sets A and D bits in the guest's tables. None: the guest gets a page fault."""
        wanted = self._bus.wanted
        if trace.KvmMmuPagetableWalk in wanted:
            self._bus.emit(trace.KvmMmuPagetableWalk(addr=address, pferr=error))
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
                self._fail(error & ~PF_PRESENT)
                return None
            if trace.KvmMmuPagingElement in wanted:
                self._bus.emit(trace.KvmMmuPagingElement(pte=entry, level=level))
            if not entry & PRESENT:
                self._fail(error & ~PF_PRESENT)
                return None
            entries.append((level, gpa, entry))
            access &= entry_access(entry)
            if level == 1 or (entry & PSE and level < TOP):
                break
            table = entry & ADDRESS
            level -= 1
        need = (WRITE if write else 0) | (EXEC if fetch else 0) | (USER if error & PF_USER else 0)
        if need & ~access:
            self._fail(error | PF_PRESENT)
            return None
        entry = self._mark(entries, write)
        if not write and not entry & DIRTY:
            # The first write must fault, so that the guest's D bit gets set then.
            access &= ~WRITE
        size = 1 << 9 * (level - 1)
        gfn = (entry & ADDRESS) >> 12 & -size | address >> 12 & size - 1
        return Walk(gfn, level, access, tables, table_access)

    def _mark(self, entries: list[tuple[int, int, int]], write: bool) -> int:
        """Set A in every entry and D in the last. Like paging_tmpl.h:update_accessed_dirty_bits."""
        entry = 0
        for level, gpa, entry in entries:
            new = entry | ACCESSED
            if not entry & ACCESSED and trace.KvmMmuSetAccessedBit in self._bus.wanted:
                self._bus.emit(trace.KvmMmuSetAccessedBit(gpa=gpa))
            if level == entries[-1][0] and write and not entry & DIRTY:
                new |= DIRTY
                if trace.KvmMmuSetDirtyBit in self._bus.wanted:
                    self._bus.emit(trace.KvmMmuSetDirtyBit(gpa=gpa))
            if new != entry:
                self._memory.write(gpa, new.to_bytes(8, "little"))
                entry = new
        return entry

    def _fail(self, error: int) -> None:
        """The guest will get a page fault."""
        if trace.KvmMmuWalkerError in self._bus.wanted:
            self._bus.emit(trace.KvmMmuWalkerError(pferr=error))


def entry_access(entry: int) -> int:
    """What an entry of a guest table allows."""
    access = 0 if entry & NX else EXEC
    if entry & RW:
        access |= WRITE
    if entry & US:
        access |= USER
    return access

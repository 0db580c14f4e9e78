"""Walks through the tables of the TDP MMU, as the processor does them."""

from __future__ import annotations

from typing import NamedTuple

from fakesys.subsystems.kvm_mmu.shadow.vcpu import VcpuMmu
from fakesys.subsystems.kvm_mmu.shadow.walk import (
    PF_FETCH,
    PF_PRESENT,
    PF_RSVD,
    PF_WRITE,
)
from fakesys.subsystems.kvm_mmu.tdp.tables import (
    ABSENT,
    FULL_RW,
    HUGE,
    MIXED,
    Directory,
    Huge,
    TdpRoot,
    TdpTables,
    Upper,
)


class TdpEntry(NamedTuple):
    """The last entry of a walk. At level 1 `index` is that of the table, `place` of the spte."""

    level: int
    table: Upper | Directory
    entry_index: int
    place: int


class TdpWalker:
    """Walks from the root of a vCPU to the last entry for a guest physical address."""

    def __init__(self, tables: TdpTables) -> None:
        self._tables = tables

    def root(self, vcpu: VcpuMmu) -> TdpRoot:
        """Return the root that a vCPU has loaded. Precondition: it has one."""
        number = vcpu.roots[0]
        for root in self._tables.roots:
            if root.number == number:
                return root
        raise KeyError(number)

    def last(self, vcpu: VcpuMmu, gpa: int) -> TdpEntry:
        """Return the last entry for an address. Precondition: the vCPU has a root loaded."""
        top = self.root(vcpu).top
        index = gpa >> 39 & 511
        below = top.entries.get(index)
        if not isinstance(below, Upper):
            return TdpEntry(4, top, index, 0)
        index = gpa >> 30 & 511
        directory = below.entries.get(index)
        if not isinstance(directory, Directory):
            return TdpEntry(3, below, index, 0)
        index = gpa >> 21 & 511
        if not 0 < directory.state[index] < HUGE:
            return TdpEntry(2, directory, index, 0)
        return TdpEntry(1, directory, index, gpa >> 12 & 511)

    def bits(self, entry: TdpEntry) -> int:
        """Return a leaf as `Huge` bits, 0 if the entry is not a present leaf."""
        level, table, index, place = entry
        if isinstance(table, Upper):
            found = table.entries.get(index)
            return found if isinstance(found, int) else 0
        state = table.state[index]
        if level == 2:
            return state
        if state != MIXED:
            return HUGE | (Huge.WRITABLE if state == FULL_RW else 0)
        leaf, bit = table.leaves.get(index), 1 << place
        if leaf is None or not leaf.present & bit:
            return ABSENT
        bits = HUGE | (Huge.WRITABLE if leaf.writable & bit else 0)
        bits |= Huge.CLEAN if leaf.clean & bit else 0
        return bits | (Huge.READ_ONLY if leaf.readonly & bit else 0)

    def mmio(self, entry: TdpEntry) -> int:
        """Return the MMIO spte at an entry, 0 if it is none."""
        level, table, index, place = entry
        if level > 1 or not isinstance(table, Directory) or table.state[index] != MIXED:
            return 0
        leaf = table.leaves.get(index)
        return 0 if leaf is None else leaf.mmio.get(place, 0)

    def allows(self, vcpu: VcpuMmu, gpa: int, error: int) -> bool:
        """Return whether the tables allow an access; `error`: PF_WRITE, PF_FETCH, or 0."""
        entry = self.last(vcpu, gpa)
        if entry.level == 1:
            state = (
                entry.table.state[entry.entry_index] if isinstance(entry.table, Directory) else 0
            )
            if state == FULL_RW:
                return True
        bits = self.bits(entry)
        if not bits:
            return False
        if error & PF_WRITE and not bits & Huge.WRITABLE:
            return False
        return not (error & PF_FETCH and bits & Huge.NO_EXEC)

    def error_code(self, vcpu: VcpuMmu, gpa: int, error: int) -> int:
        """Return the error code of a fault: `error` with P and RSVD added."""
        entry = self.last(vcpu, gpa)
        if self.bits(entry):
            return error | PF_PRESENT
        return error | PF_PRESENT | PF_RSVD if self.mmio(entry) else error

"""Sptes of the TDP MMU as numbers. Like arch/x86/kvm/mmu/spte.c:make_spte (v6.1)."""

from __future__ import annotations

from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.policy import TdpRules
from fakesys.subsystems.kvm_mmu.slots.memslots import AddressSpaces
from fakesys.subsystems.kvm_mmu.tdp.tables import (
    ABSENT,
    FULL_RW,
    HUGE,
    MIXED,
    Directory,
    Huge,
    Upper,
    table_pfn,
)

P, W, U, A, D, LARGE = 1, 2, 4, 0x20, 0x40, 0x80
NX = 1 << 63
_TABLE = P | W | U | A


class SpteValues:
    """The value of each entry of a table, from its state and the memslots."""

    def __init__(self, arch: MmuArch, spaces: AddressSpaces, rules: TdpRules) -> None:
        self._spaces = spaces
        self._kinds = arch.policy.spte
        self.empty = rules.empty
        self.removed = rules.empty | 0x5A0

    def pfn(self, as_id: int, gfn: int) -> int:
        """Return the host page behind a gfn; 0 where there is none."""
        slot = self._spaces.memslots[as_id].find(gfn)
        if slot is None or slot.memory is None:
            return 0
        return slot.memory.pfn_of(slot.page(gfn))

    def table(self, page: int) -> int:
        """Return the entry that points to a table page."""
        return table_pfn(page) << 12 | _TABLE | self._kinds.mmu_present

    def leaf(self, as_id: int, directory: Directory, index: int, place: int, gfn: int) -> int:
        """Return spte `place` of the table below entry `index`; `gfn`: what it maps."""
        state = directory.state[index]
        bit = 1 << place
        if state == MIXED:
            leaf = directory.leaves.get(index)
            if leaf is None:
                return self.empty
            if place in leaf.mmio:
                return leaf.mmio[place]
            if not leaf.present & bit:
                return self.empty
            bits = Huge.WRITABLE if leaf.writable & bit else 0
            bits |= Huge.READ_ONLY if leaf.readonly & bit else 0
            bits |= Huge.CLEAN if leaf.clean & bit else 0
        else:
            bits = Huge.WRITABLE if state == FULL_RW else 0
        return self.page(bits, self.pfn(as_id, gfn))

    def huge(self, as_id: int, bits: int, gfn: int) -> int:
        """Return a large leaf."""
        return self.page(bits, self.pfn(as_id, gfn)) | LARGE

    def entry(self, as_id: int, table: Upper | Directory, index: int, gfn: int) -> int:
        """Return an entry of a table of level 2 or above."""
        if isinstance(table, Directory):
            state = table.state[index]
            if state == ABSENT:
                return self.empty
            if state & HUGE:
                return self.huge(as_id, state, gfn)
            return self.table(table.page + 1 + index)
        below = table.entries.get(index)
        if below is None:
            return self.empty
        if isinstance(below, int):
            return self.huge(as_id, below, gfn)
        return self.table(below.page)

    def page(self, bits: int, pfn: int) -> int:
        """Return a leaf of 4 KiB. `bits`: of `Huge`."""
        word = P | U | A | self._kinds.mmu_present | pfn << 12
        if bits & Huge.WRITABLE:
            word |= W
        if bits & Huge.NO_EXEC:
            word |= NX
        if bits & Huge.READ_ONLY:
            return word
        word |= 0 if bits & Huge.CLEAN else D
        word |= 0 if bits & Huge.PROTECTED else self._kinds.mmu_writable
        return word | self._kinds.host_writable

"""Zapping: whole roots, or the leaves of a range. Like tdp_mmu.c (v6.1, v6.12).

Follows tdp_mmu_zap_root, tdp_mmu_zap_leafs, kvm_tdp_mmu_zap_invalidated_roots.
"""

from __future__ import annotations

from fakesys.core.scheduling.resched import cond_resched
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.sptes import ALL, ENTRIES, set_bits
from fakesys.subsystems.kvm_mmu.tdp.changes import Changes, free_slowly
from fakesys.subsystems.kvm_mmu.tdp.tables import (
    ABSENT,
    FULL_PROTECTED,
    FULL_RW,
    HUGE,
    MIXED,
    Directory,
    TdpRoot,
    TdpTables,
    Upper,
)

LAST_GFN = (1 << 36) - 1
# What remains of each state when all leaves below a directory go: tables stay.
_WITHOUT_LEAVES = bytes(ABSENT if not state or state & HUGE else MIXED for state in range(256))


class TdpZapper:
    """Takes leaves and tables of the TDP MMU out of use."""

    def __init__(self, arch: MmuArch, tables: TdpTables, changes: Changes) -> None:
        self._arch = arch
        self._tables = tables
        self._changes = changes
        self._values = changes.values
        rules = arch.policy.tdp
        assert rules is not None
        self._passes = rules.zap_passes

    def invalidate_roots(self) -> None:
        """Let no vCPU load any of the roots of now. Like kvm_tdp_mmu_invalidate_all_roots."""
        for root in self._tables.roots:
            root.invalid = True

    def zap_invalid_roots(self) -> int:
        """Zap all invalid roots; return how many tables that were."""
        gone = [root for root in self._tables.roots if root.invalid]
        zapped = sum(self.zap_root(root, shared=True) for root in gone)
        self._tables.roots = [root for root in self._tables.roots if root not in gone]
        return zapped

    def zap_all(self) -> int:
        """Zap all roots, as nothing uses them any more. Like kvm_tdp_mmu_zap_all."""
        roots = sorted(self._tables.roots, key=lambda root: root.as_id)
        return sum(self.zap_root(root, shared=False) for root in roots)

    def zap_root(self, root: TdpRoot, *, shared: bool) -> int:
        """Zap all that a root maps; return how many tables went."""
        tables = _count_tables(root)
        if not self._changes.is_traced:
            entries, root.top.entries = root.top.entries, {}
            for index, below in list(entries.items()):
                assert isinstance(below, Upper)
                self._changes.count_gone(root.as_id, below, index << 27)
                _free(below)
            return tables
        for level in self._passes:
            self._zap_pass(root, level, shared)
        return tables

    def _zap_pass(self, root: TdpRoot, level: int, shared: bool) -> None:
        """Zap the present entries of one level."""
        if level == 1:
            self._zap_leaves(root, 0, LAST_GFN, 1)
        elif level == 4:
            for index, below in list(root.top.tables()):
                self._zap_table(root, root.top, index, below, 4, index << 27, shared)
        else:
            for gfn, upper, index in list(root.directories(0, LAST_GFN)):
                entry = upper.entries[index]
                if level == 2 and isinstance(entry, Directory):
                    self._zap_directory(root, entry, gfn, shared)
                elif level == 3 and isinstance(entry, int):
                    self._zap_huge(root, upper, index, gfn)
                elif level == 3 and not isinstance(entry, int):
                    self._zap_table(root, upper, index, entry, 3, gfn, shared)

    def zap_table_of(self, as_id: int, gfn: int) -> None:
        """Zap the lowest table that maps a gfn. Like kvm_tdp_mmu_zap_sp."""
        for root in self._tables.valid(as_id):
            upper = root.top.entries.get(gfn >> 27)
            index = gfn >> 18 & 511
            entry = upper.entries.get(index) if isinstance(upper, Upper) else None
            if not isinstance(entry, Directory) or not isinstance(upper, Upper):
                continue
            place = gfn >> 9 & 511
            if entry.is_table(place):
                self._zap_level_1(root, entry, place, gfn, shared=False)
            else:
                self._zap_table(root, upper, index, entry, 3, gfn, shared=False)

    def _zap_table(
        self,
        root: TdpRoot,
        upper: Upper,
        index: int,
        below: Upper | Directory,
        level: int,
        gfn: int,
        shared: bool,
    ) -> None:
        cond_resched()
        old = self._values.table(below.page)
        self._changes.trace(root.as_id, gfn, level, old, self._values.empty)
        self._changes.take_down(root.as_id, below, gfn, level - 1, shared=shared)
        del upper.entries[index]
        _free(below)

    def _zap_directory(self, root: TdpRoot, directory: Directory, base: int, shared: bool) -> None:
        for index in range(ENTRIES):
            if directory.state[index] == ABSENT:
                continue
            cond_resched()
            gfn = base + (index << 9)
            self._zap_level_1(root, directory, index, gfn, shared=shared)

    def _zap_level_1(
        self, root: TdpRoot, directory: Directory, index: int, gfn: int, *, shared: bool
    ) -> None:
        """Zap an entry of level 2: a table or a leaf."""
        old = self._values.entry(root.as_id, directory, index, gfn)
        self._changes.trace(root.as_id, gfn, 2, old, self._values.empty)
        if directory.is_table(index):
            self._changes.take_down_leaf(root.as_id, directory, index, gfn, shared=shared)
        else:
            self._changes.count(2, -1)
        directory.state[index] = ABSENT
        directory.leaves.pop(index, None)

    def unmap(self, as_id: int, gfn: int, npages: int) -> bool:
        """Zap all leaves in a range; tables stay. Return whether there were any.

        Like tdp_mmu_zap_leafs.
        """
        found = False
        for root in self._tables.valid(as_id):
            found |= self._zap_leaves(root, gfn, gfn + npages - 1)
        return found

    def _zap_leaves(self, root: TdpRoot, first: int, last: int, up_to: int = 3) -> bool:
        """Zap the leaves of a range up to a level."""
        found = False
        for gfn, upper, index in list(root.directories(first, last)):
            cond_resched()
            entry = upper.entries[index]
            if isinstance(entry, Directory):
                found |= self._zap_leaves_below(root, entry, gfn, first, last, up_to)
            elif up_to >= 3:
                self._zap_huge(root, upper, index, gfn)
                found = True
        return found

    def _zap_huge(self, root: TdpRoot, upper: Upper, index: int, gfn: int) -> None:
        old = self._values.entry(root.as_id, upper, index, gfn)
        self._changes.trace(root.as_id, gfn, 3, old, self._values.empty)
        self._changes.count(3, -1)
        del upper.entries[index]

    def _zap_leaves_below(
        self, root: TdpRoot, directory: Directory, base: int, first: int, last: int, up_to: int
    ) -> bool:
        whole = first <= base and base + ENTRIES * ENTRIES - 1 <= last
        if whole and up_to >= 2 and not self._changes.is_traced:
            return self._forget_leaves(directory)
        found = False
        low = max(first - base, 0) >> 9
        high = min(last - base >> 9, ENTRIES - 1)
        for index in range(low, high + 1):
            state = directory.state[index]
            if state == ABSENT:
                continue
            gfn = base + (index << 9)
            if directory.is_table(index):
                found |= self._zap_mask(root, directory, index, gfn, mask_of(gfn, first, last))
            elif up_to >= 2:
                old = self._values.huge(root.as_id, state, gfn)
                self._changes.trace(root.as_id, gfn, 2, old, self._values.empty)
                self._changes.count(2, -1)
                directory.state[index] = ABSENT
                found = True
            cond_resched()
        return found

    def _zap_mask(
        self, root: TdpRoot, directory: Directory, index: int, gfn: int, mask: int
    ) -> bool:
        gone = directory.present(index) & mask
        if not gone:
            return False
        if self._changes.is_traced:
            for place in set_bits(gone):
                old = self._values.leaf(root.as_id, directory, index, place, gfn + place)
                self._changes.trace(root.as_id, gfn + place, 1, old, self._values.empty)
        self._changes.count(1, -gone.bit_count())
        directory.leaf(index).forget(gone)
        return True

    def _forget_leaves(self, directory: Directory) -> bool:
        """Zap all leaves below a directory at once."""
        full, huge = directory.totals()
        mixed = 0
        for leaf in directory.leaves.values():
            mixed += leaf.present.bit_count()
            leaf.forget(ALL)
        directory.state = bytearray(directory.state.translate(_WITHOUT_LEAVES))
        self._changes.count(1, -(full * ENTRIES + mixed))
        self._changes.count(2, -huge)
        return bool(full or huge or mixed)


def mask_of(gfn: int, first: int, last: int) -> int:
    """Return the mask of those of 512 pages from `gfn` that lie in a range."""
    low = max(first - gfn, 0)
    high = min(last - gfn, ENTRIES - 1)
    return (1 << high + 1) - (1 << low) if high >= low else 0


def _count_tables(root: TdpRoot) -> int:
    """Return the number of tables below a root."""
    number = 0
    for _, below in root.top.tables():
        number += 1
        assert isinstance(below, Upper)
        for _, table in below.tables():
            assert isinstance(table, Directory)
            number += 1 + sum(
                table.state.count(state) for state in (MIXED, FULL_RW, FULL_PROTECTED)
            )
    return number


def _free(table: Upper | Directory) -> None:
    """Free what lies below a table, letting others in."""
    if isinstance(table, Directory):
        free_slowly(table.leaves)
        return
    for below in table.entries.values():
        if not isinstance(below, int):
            _free(below)

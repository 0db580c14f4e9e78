"""Leaf sptes: 512 bits of each kind per table, and which tables map a gfn (the rmap).

A table whose 512 sptes are all alike is a state in one byte; only others have a `Leaf`.
The kernel keeps a list of sptes per gfn. Here direct tables follow from the hash by gfn, and
tables that shadow a guest's are found through an index by 2 MiB block.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import NamedTuple

from fakesys.subsystems.kvm.stats import VmStats
from fakesys.subsystems.kvm_mmu.shadow.pages import NONE, ShadowPages
from fakesys.subsystems.kvm_mmu.shadow.role import DIRECT, LEVEL_MASK

ENTRIES = 512
ALL = (1 << ENTRIES) - 1
LEVELS = (1, 2, 3)

# Values of ShadowPages.leaf.
EMPTY, FULL_RW, FULL_PROTECTED, MIXED = range(4)


class Leaf:
    """The leaf sptes of one table; bit N of each number is spte N.

    `sealed`: present but not to be made writable without the slow path (no MMU-writable bit).
    `host_ro`: the host maps the page read-only. `mmio`: index -> generation << 3 | access.
    `gfns`: what each maps, for tables that shadow a guest's.
    """

    __slots__ = (
        "accessed",
        "dirty",
        "gfns",
        "host_ro",
        "mmio",
        "no_exec",
        "no_user",
        "present",
        "sealed",
        "writable",
    )

    def __init__(self, present: int = 0, writable: int = 0) -> None:
        self.present = self.accessed = self.dirty = present
        self.writable = writable
        self.sealed = self.host_ro = self.no_exec = self.no_user = 0
        self.mmio: dict[int, int] | None = None
        self.gfns: array[int] | None = None

    def forget(self, mask: int) -> None:
        """These sptes are no longer present."""
        keep = ~mask
        self.present &= keep
        self.writable &= keep
        self.sealed &= keep
        self.host_ro &= keep
        self.accessed &= keep
        self.dirty &= keep
        self.no_exec &= keep
        self.no_user &= keep

    def is_even(self) -> bool:
        """Could one byte say the same?"""
        if self.present != ALL or self.accessed != ALL or self.dirty != ALL:
            return False
        if self.sealed or self.host_ro or self.no_exec or self.no_user or self.mmio:
            return False
        return self.gfns is None and self.writable in (0, ALL)


class Mapping(NamedTuple):
    """One leaf spte: its table and its index."""

    row: int
    place: int


def level_size(level: int) -> int:
    """gfns under one spte at `level`."""
    return 1 << 9 * (level - 1)


class Sptes:
    """All leaf sptes of a VM, with the gauges that count them."""

    def __init__(self, pages: ShadowPages, stats: VmStats) -> None:
        self._pages = pages
        self._stats = stats
        self.leaves: dict[int, Leaf] = {}
        # block (gfn >> 9) -> table that shadows a guest's -> its sptes that map into the block.
        self._users: dict[int, dict[int, int]] = {}

    def leaf(self, row: int) -> Leaf:
        """The sptes of a table, to read and to change."""
        leaf = self.leaves.get(row)
        if leaf is not None:
            return leaf
        state = self._pages.leaf[row]
        leaf = Leaf(ALL if state else 0, ALL if state == FULL_RW else 0)
        if not self._pages.role[row] & DIRECT:
            leaf.gfns = array("Q", bytes(8 * ENTRIES))
        self.leaves[row] = leaf
        self._pages.leaf[row] = MIXED
        return leaf

    def settle(self, row: int) -> None:
        """Keep the table as one byte if that says it all."""
        leaf = self.leaves.get(row)
        if leaf is not None and leaf.is_even():
            del self.leaves[row]
            self._pages.leaf[row] = FULL_RW if leaf.writable else FULL_PROTECTED

    def present(self, row: int) -> int:
        """The mask of present leaf sptes, without making a Leaf."""
        state = self._pages.leaf[row]
        if state == MIXED:
            return self.leaves[row].present
        return ALL if state else 0

    def count(self, level: int, change: int) -> None:
        """Gauges: `change` sptes more at `level`."""
        stats = self._stats
        if level == 1:
            stats.pages_4k += change
            return
        stats.largepages += change
        if level == 2:
            stats.pages_2m += change
        else:
            stats.pages_1g += change

    def add(self, row: int, index: int, gfn: int) -> None:
        """Make an spte present; its other bits are the caller's. Like mmu.c:rmap_add (v6.1)."""
        leaf = self.leaf(row)
        leaf.present |= 1 << index
        self._pages.present[row] += 1
        self.count(self._pages.role[row] & LEVEL_MASK, 1)
        if leaf.gfns is not None:
            leaf.gfns[index] = gfn
            users = self._users.setdefault(gfn >> 9, {})
            users[row] = users.get(row, 0) + 1

    def drop(self, row: int, mask: int) -> int:
        """Clear these sptes; how many were present. Like mmu.c:drop_spte (v6.1)."""
        gone = self.present(row) & mask
        if not gone:
            return 0
        if gone == ALL and self._pages.role[row] & DIRECT:
            self.leaves.pop(row, None)
            self._pages.leaf[row] = EMPTY
            number = ENTRIES
        else:
            number = gone.bit_count()
            self._drop_some(row, gone)
        self._pages.present[row] -= number
        self.count(self._pages.role[row] & LEVEL_MASK, -number)
        return number

    def clear_mmio(self, row: int) -> None:
        """Forget the MMIO sptes of a table."""
        leaf = self.leaves.get(row)
        if leaf is not None:
            leaf.mmio = None

    def forget_row(self, row: int) -> None:
        """The page is freed; its sptes are dropped already."""
        self.leaves.pop(row, None)
        self._pages.leaf[row] = EMPTY

    def forget_all(self) -> None:
        """Every page is zapped; gauges fall to nothing."""
        self.leaves.clear()
        self._users.clear()
        stats = self._stats
        stats.pages_4k = stats.pages_2m = stats.pages_1g = stats.largepages = 0

    def mappings(self, gfn: int, level: int) -> list[Mapping]:
        """The present sptes at `level` that map a gfn (aligned to the level)."""
        found = []
        shift = 9 * (level - 1)
        for row in self._pages.all_at(gfn >> shift + 9 << shift + 9):
            index = gfn >> shift & 511
            if self.is_direct(row, level) and self.present(row) >> index & 1:
                found.append(Mapping(row, index))
        for row in self._users.get(gfn >> 9, ()):
            if self._pages.role[row] & LEVEL_MASK == level:
                found.extend(self._indexes(row, gfn))
        return found

    def tables(self, gfn: int, npages: int) -> Iterator[tuple[int, int]]:
        """Tables and masks of the sptes that map into a range, present or not."""
        last = gfn + npages - 1
        for level in LEVELS:
            yield from self._direct_tables(gfn, last, level)
        for block in self._blocks(gfn >> 9, last >> 9):
            for row in list(self._users[block]):
                mask = self._mask_within(row, gfn, last)
                if mask:
                    yield row, mask

    def drop_range(self, gfn: int, npages: int) -> int:
        """Clear every spte that maps into a range; how many were present."""
        return sum(self.drop(row, mask) for row, mask in list(self.tables(gfn, npages)))

    def protect(self, row: int, mask: int, *, seal: bool) -> bool:
        """Take W away; `seal`: also what lets the fast path give it back. Did anything change?

        Like mmu.c:spte_write_protect (v6.1).
        """
        state = self._pages.leaf[row]
        if state == EMPTY or (state == FULL_PROTECTED and not seal):
            return False
        if state == FULL_RW and mask == ALL and not seal:
            self._pages.leaf[row] = FULL_PROTECTED
            return True
        leaf = self.leaf(row)
        changed = leaf.writable & mask or (seal and leaf.present & mask & ~leaf.sealed)
        if not changed:
            return False
        leaf.writable &= ~mask
        if seal:
            leaf.sealed |= leaf.present & mask
        return True

    def protect_gfn(self, gfn: int, *, seal: bool) -> bool:
        """Write-protect a gfn at every level; did that change anything?

        Like mmu.c:rmap_write_protect.
        """
        changed = False
        for level in LEVELS:
            base = gfn & -level_size(level)
            for row, index in self.mappings(base, level):
                changed |= self.protect(row, 1 << index, seal=seal)
        return changed

    def protect_pages(self, gfn: int, mask: int) -> bool:
        """Take W from the pages `gfn` + N for each bit N of a mask. Did anything change?"""
        changed = False
        last = gfn + mask.bit_length() - 1
        for block in range(gfn >> 9, (last >> 9) + 1):
            changed |= self._protect_block(block, _shifted(mask, gfn - (block << 9)))
        return changed

    def _protect_block(self, block: int, mask: int) -> bool:
        mask &= ALL
        changed = False
        for row in self._pages.all_at(block << 9):
            if self.is_direct(row, 1):
                changed |= self.protect(row, mask, seal=False)
        if block in self._users or self._stats.largepages:
            for index in bits(mask):
                changed |= self.protect_gfn(block << 9 | index, seal=False)
        return changed

    def _drop_some(self, row: int, gone: int) -> None:
        leaf = self.leaf(row)
        leaf.forget(gone)
        if leaf.gfns is None:
            return
        for index in bits(gone):
            block = leaf.gfns[index] >> 9
            users = self._users[block]
            users[row] -= 1
            if not users[row]:
                del users[row]
            if not users:
                del self._users[block]

    def is_direct(self, row: int, level: int) -> bool:
        """Is it a table of this level that maps a range, and shadows nothing?"""
        return self._pages.role[row] & (LEVEL_MASK | DIRECT) == level | DIRECT

    def _indexes(self, row: int, gfn: int) -> Iterator[Mapping]:
        leaf = self.leaves[row]
        assert leaf.gfns is not None
        for index in bits(leaf.present):
            if leaf.gfns[index] == gfn:
                yield Mapping(row, index)

    def _direct_tables(self, gfn: int, last: int, level: int) -> Iterator[tuple[int, int]]:
        shift = 9 * level
        span = (last >> shift) - (gfn >> shift) + 1
        if span > len(self._pages):
            rows: Iterator[int] = iter(list(self._pages.oldest_first()))
        else:
            first = gfn >> shift
            rows = (row for n in range(span) for row in self._pages.all_at(first + n << shift))
        for row in rows:
            if not self.is_direct(row, level):
                continue
            base = self._pages.gfn[row]
            low = max(gfn - base, 0) >> shift - 9
            high = min(last - base, (1 << shift) - 1) >> shift - 9
            if high >= low >= 0 and last >= base:
                yield row, (1 << high + 1) - (1 << low)

    def _blocks(self, first: int, last: int) -> list[int]:
        if last - first > len(self._users):
            return [block for block in self._users if first <= block <= last]
        return [block for block in range(first, last + 1) if block in self._users]

    def _mask_within(self, row: int, gfn: int, last: int) -> int:
        leaf = self.leaves[row]
        assert leaf.gfns is not None
        size = level_size(self._pages.role[row] & LEVEL_MASK)
        mask = 0
        for index in bits(leaf.present):
            if leaf.gfns[index] <= last and leaf.gfns[index] + size > gfn:
                mask |= 1 << index
        return mask


def _shifted(mask: int, by: int) -> int:
    return mask << by if by >= 0 else mask >> -by


def bits(mask: int) -> Iterator[int]:
    """The numbers of the bits that are set, ascending."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


__all__ = ["ALL", "EMPTY", "ENTRIES", "FULL_PROTECTED", "FULL_RW", "MIXED", "NONE", "Leaf", "Sptes"]

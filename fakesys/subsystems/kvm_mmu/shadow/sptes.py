"""Leaf sptes: 512 bits of each kind per table, and which tables map a gfn (the rmap).

A table whose 512 sptes are all alike is a state in one byte; only other tables have a `Leaf`.
The kernel keeps a list of sptes per gfn. Here the direct tables that map a gfn are found by the
hash of pages, and tables that shadow a guest's through an index by 2 MiB block.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from fakesys.core.scheduling.resched import cond_resched
from fakesys.subsystems.kvm.stats import VmStats
from fakesys.subsystems.kvm_mmu.shadow.pages import ShadowPages
from fakesys.subsystems.kvm_mmu.shadow.role import DIRECT, LEVEL_MASK, SMM, SMM_SHIFT

ENTRIES = 512
ALL = (1 << ENTRIES) - 1
LEVELS = (1, 2, 3)
SPT_BASE = 0x8000_0000

# Values of ShadowPages.leaf.
EMPTY, FULL_RW, FULL_PROTECTED, MIXED = range(4)


class Leaf:
    """The leaf sptes of one table; bit N of each number belongs to spte N.

    `mmu_readonly`: present without the MMU-writable bit, so that only the slow path may make it
    writable. `host_readonly`: the host maps the page read-only. `mmio`: index -> generation << 3 |
    access. `gfns`: the gfn that each spte maps, for tables that shadow a guest's.
    """

    __slots__ = (
        "accessed",
        "dirty",
        "gfns",
        "host_readonly",
        "mmio",
        "mmu_readonly",
        "no_exec",
        "no_user",
        "present",
        "writable",
    )

    def __init__(self, present: int = 0, writable: int = 0) -> None:
        self.present = self.accessed = self.dirty = present
        self.writable = writable
        self.mmu_readonly = self.host_readonly = self.no_exec = self.no_user = 0
        self.mmio: dict[int, int] | None = None
        self.gfns: array[int] | None = None

    def forget(self, mask: int) -> None:
        """Make these sptes not present."""
        keep = ~mask
        self.present &= keep
        self.writable &= keep
        self.mmu_readonly &= keep
        self.host_readonly &= keep
        self.accessed &= keep
        self.dirty &= keep
        self.no_exec &= keep
        self.no_user &= keep

    def is_readonly(self, mask: int) -> bool:
        """Return whether one of these sptes may not be made writable without the lock."""
        return (self.mmu_readonly | self.host_readonly) & mask != 0

    def is_uniform(self) -> bool:
        """Return whether one byte of `ShadowPages.leaf_state` can express the whole table."""
        if self.present != ALL or self.accessed != ALL or self.dirty != ALL:
            return False
        if self.mmu_readonly or self.host_readonly or self.no_exec or self.no_user or self.mmio:
            return False
        return self.gfns is None and self.writable in (0, ALL)


class Mapping(NamedTuple):
    """One leaf spte: its table and its index in there."""

    row: int
    spte_index: int


def level_size(level: int) -> int:
    """Return the number of gfns that one spte at `level` maps."""
    return 1 << 9 * (level - 1)


class Sptes:
    """All leaf sptes of a VM, with the gauges that count them."""

    def __init__(self, pages: ShadowPages, stats: VmStats) -> None:
        self._pages = pages
        self._stats = stats
        self.leaves: dict[int, Leaf] = {}
        # Block (gfn >> 9) -> table that shadows a guest's -> its sptes that map into the block.
        self._indirect_tables: dict[int, dict[int, int]] = {}

    def leaf(self, row: int) -> Leaf:
        """Return the sptes of a table, to read and to change.

        Call `pack` when the change is done.
        """
        leaf = self.leaves.get(row)
        if leaf is not None:
            return leaf
        state = self._pages.leaf_state[row]
        leaf = Leaf(ALL if state else 0, ALL if state == FULL_RW else 0)
        if not self._pages.role[row] & DIRECT:
            leaf.gfns = array("Q", bytes(8 * ENTRIES))
        self.leaves[row] = leaf
        self._pages.leaf_state[row] = MIXED
        return leaf

    def pack(self, row: int) -> None:
        """Reduce the table to one byte if that can express it."""
        leaf = self.leaves.get(row)
        if leaf is not None and leaf.is_uniform():
            del self.leaves[row]
            self._pages.leaf_state[row] = FULL_RW if leaf.writable else FULL_PROTECTED

    def present(self, row: int) -> int:
        """Return the mask of present leaf sptes, without making a Leaf."""
        state = self._pages.leaf_state[row]
        if state == MIXED:
            return self.leaves[row].present
        return ALL if state else 0

    def count(self, level: int, change: int) -> None:
        """Add `change` sptes at `level` to the gauges."""
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
        """Make an spte present; the caller sets its other bits. Like mmu.c:rmap_add (v6.1)."""
        leaf = self.leaf(row)
        leaf.present |= 1 << index
        self._pages.present[row] += 1
        self.count(self._pages.role[row] & LEVEL_MASK, 1)
        if leaf.gfns is not None:
            leaf.gfns[index] = gfn
            self._index(row, gfn)

    def restore(self, row: int, leaf: Leaf) -> None:
        """Set the sptes of a table from a snapshot; gauges are not counted.

        Precondition: `ShadowPages.leaf_state` of the table is MIXED.
        """
        self.leaves[row] = leaf
        if leaf.gfns is not None:
            for index in set_bits(leaf.present):
                self._index(row, leaf.gfns[index])

    def drop(self, row: int, mask: int) -> int:
        """Clear these sptes; return how many were present. Like mmu.c:drop_spte (v6.1)."""
        gone = self.present(row) & mask
        if not gone:
            return 0
        if gone == ALL and self._pages.role[row] & DIRECT:
            self.leaves.pop(row, None)
            self._pages.leaf_state[row] = EMPTY
            number = ENTRIES
        else:
            number = gone.bit_count()
            self._drop_some(row, gone)
        self._pages.present[row] -= number
        self.count(self._pages.role[row] & LEVEL_MASK, -number)
        return number

    def is_mmio_spte(self, row: int, index: int) -> bool:
        """Return whether the entry is an MMIO spte, of any generation."""
        leaf = self.leaves.get(row)
        return leaf is not None and leaf.mmio is not None and index in leaf.mmio

    def is_mmio_cached(self, row: int) -> bool:
        """Return whether an MMIO spte was ever set in the table: `mmio_cached` (v5.3)."""
        leaf = self.leaves.get(row)
        return leaf is not None and leaf.mmio is not None

    def clear_mmio(self, row: int) -> None:
        """Clear the MMIO sptes of a table."""
        leaf = self.leaves.get(row)
        if leaf is not None:
            leaf.mmio = None

    def forget_row(self, row: int) -> None:
        """Forget a page that is freed. Precondition: its sptes were dropped."""
        self.leaves.pop(row, None)
        self._pages.leaf_state[row] = EMPTY

    def forget_all(self) -> dict[int, Leaf]:
        """Forget all sptes: every page was zapped. The gauges become 0.

        Return what was there, which takes long to free.
        """
        leaves, self.leaves = self.leaves, {}
        self._indirect_tables.clear()
        stats = self._stats
        stats.pages_4k = stats.pages_2m = stats.pages_1g = stats.largepages = 0
        return leaves

    def mappings(self, gfn: int, level: int, as_id: int = 0) -> list[Mapping]:
        """Return the present sptes at `level` that map a gfn.

        Precondition: the gfn is aligned to the level.
        """
        found = []
        shift = 9 * (level - 1)
        for row in self._pages.all_at(gfn >> shift + 9 << shift + 9):
            index = gfn >> shift & 511
            if self.is_direct(row, level, as_id) and self.present(row) >> index & 1:
                found.append(Mapping(row, index))
        # Guests have no paging in SMM: nothing is shadowed there.
        for row in () if as_id else self._indirect_tables.get(gfn >> 9, ()):
            if self._pages.role[row] & LEVEL_MASK == level:
                found.extend(self._indexes(row, gfn))
        return found

    def tables(self, gfn: int, npages: int, as_id: int = 0) -> Iterator[tuple[int, int]]:
        """Yield tables and masks of the sptes that map into a range, present or not.

        Precondition where a call may rest here: it holds the VM's `mmu_lock`.
        """
        last = gfn + npages - 1
        for level in LEVELS:
            yield from self._direct_tables(gfn, last, level, as_id)
        for block in () if as_id else self._blocks(gfn >> 9, last >> 9):
            for row in list(self._indirect_tables[block]):
                mask = self._mask_within(row, gfn, last)
                if mask:
                    yield row, mask

    def drop_range(self, gfn: int, npages: int, as_id: int = 0) -> int:
        """Clear every spte that maps into a range; return how many were present."""
        dropped = 0
        # Freed one by one, since that takes long for many.
        tables = deque(self.tables(gfn, npages, as_id))
        while tables:
            cond_resched()
            dropped += self.drop(*tables.popleft())
        return dropped

    def protect(self, row: int, mask: int, *, pt_protect: bool) -> bool:
        """Take W away from sptes; return whether that changed anything.

        `pt_protect`: also clear the MMU-writable bit, so that the fast path cannot give W back.
        Like mmu.c:spte_write_protect (v6.1).
        """
        state = self._pages.leaf_state[row]
        if state == EMPTY or (state == FULL_PROTECTED and not pt_protect):
            return False
        if state == FULL_RW and mask == ALL and not pt_protect:
            self._pages.leaf_state[row] = FULL_PROTECTED
            return True
        leaf = self.leaf(row)
        changed = leaf.writable & mask or (pt_protect and leaf.present & mask & ~leaf.mmu_readonly)
        if not changed:
            return False
        leaf.writable &= ~mask
        if pt_protect:
            leaf.mmu_readonly |= leaf.present & mask
        return True

    def protect_gfn(self, gfn: int, as_id: int = 0, *, pt_protect: bool) -> bool:
        """Write-protect a gfn at every level; return whether that changed anything.

        Like mmu.c:rmap_write_protect.
        """
        changed = False
        for level in LEVELS:
            base = gfn & -level_size(level)
            for row, index in self.mappings(base, level, as_id):
                changed |= self.protect(row, 1 << index, pt_protect=pt_protect)
        return changed

    def protect_pages(self, gfn: int, mask: int, as_id: int = 0) -> bool:
        """Take W from page `gfn` + N for each bit N of a mask; return whether anything changed."""
        changed = False
        last = gfn + mask.bit_length() - 1
        for block in range(gfn >> 9, (last >> 9) + 1):
            changed |= self._protect_block(block, _shifted(mask, gfn - (block << 9)), as_id)
        return changed

    def _protect_block(self, block: int, mask: int, as_id: int) -> bool:
        mask &= ALL
        changed = False
        for row in self._pages.all_at(block << 9):
            if self.is_direct(row, 1, as_id):
                changed |= self.protect(row, mask, pt_protect=False)
        if block in self._indirect_tables or self._stats.largepages:
            for index in set_bits(mask):
                changed |= self.protect_gfn(block << 9 | index, as_id, pt_protect=False)
        return changed

    def _index(self, row: int, gfn: int) -> None:
        users = self._indirect_tables.setdefault(gfn >> 9, {})
        users[row] = users.get(row, 0) + 1

    def _drop_some(self, row: int, gone: int) -> None:
        leaf = self.leaf(row)
        leaf.forget(gone)
        if leaf.gfns is None:
            return
        for index in set_bits(gone):
            block = leaf.gfns[index] >> 9
            users = self._indirect_tables[block]
            users[row] -= 1
            if not users[row]:
                del users[row]
            if not users:
                del self._indirect_tables[block]

    def gfn_of(self, row: int, index: int) -> int:
        """Return the first gfn that an spte maps."""
        leaf = self.leaves.get(row)
        if leaf is not None and leaf.gfns is not None:
            return leaf.gfns[index]
        return self._pages.gfn[row] + index * level_size(self._pages.role[row] & LEVEL_MASK)

    def is_direct(self, row: int, level: int, as_id: int = 0) -> bool:
        """Return whether a table of this level maps a range and shadows no guest table."""
        role = self._pages.role[row] & (LEVEL_MASK | DIRECT | SMM)
        return role == level | DIRECT | as_id << SMM_SHIFT

    def _indexes(self, row: int, gfn: int) -> Iterator[Mapping]:
        leaf = self.leaves[row]
        assert leaf.gfns is not None
        for index in set_bits(leaf.present):
            if leaf.gfns[index] == gfn:
                yield Mapping(row, index)

    def _direct_tables(
        self, gfn: int, last: int, level: int, as_id: int
    ) -> Iterator[tuple[int, int]]:
        shift = 9 * level
        span = (last >> shift) - (gfn >> shift) + 1
        if span > len(self._pages):
            rows = self._pages.oldest_first()
        else:
            first = gfn >> shift
            rows = (row for n in range(span) for row in self._pages.all_at(first + n << shift))
        for row in rows:
            cond_resched()
            if not self.is_direct(row, level, as_id):
                continue
            base = self._pages.gfn[row]
            low = max(gfn - base, 0) >> shift - 9
            high = min(last - base, (1 << shift) - 1) >> shift - 9
            if high >= low >= 0 and last >= base:
                yield row, (1 << high + 1) - (1 << low)

    def _blocks(self, first: int, last: int) -> list[int]:
        if last - first > len(self._indirect_tables):
            return [block for block in self._indirect_tables if first <= block <= last]
        return [block for block in range(first, last + 1) if block in self._indirect_tables]

    def _mask_within(self, row: int, gfn: int, last: int) -> int:
        leaf = self.leaves[row]
        assert leaf.gfns is not None
        size = level_size(self._pages.role[row] & LEVEL_MASK)
        mask = 0
        for index in set_bits(leaf.present):
            if leaf.gfns[index] <= last and leaf.gfns[index] + size > gfn:
                mask |= 1 << index
        return mask


def spte_address(row: int, index: int) -> int:
    """Return the address of an entry in host memory, where tables lie one after the other."""
    return SPT_BASE + row * 4096 + index * 8


def _shifted(mask: int, by: int) -> int:
    return mask << by if by >= 0 else mask >> -by


def set_bits(mask: int) -> Iterator[int]:
    """Yield the numbers of the bits that are set, ascending."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low

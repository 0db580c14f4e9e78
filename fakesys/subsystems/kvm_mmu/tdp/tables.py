"""The tables of the TDP MMU: a tree per root, without list, hash or budget.

A table of level 1 whose 512 sptes are alike is one byte in the table above; only others have a
`Leaf`. So a guest of 1 TiB takes 1024 objects.
"""

from __future__ import annotations

from collections.abc import Iterator

from fakesys.subsystems.kvm_mmu.shadow.sptes import ALL, ENTRIES, SPT_BASE

# Table pages lie below the memory of guests.
TABLE_PAGES = 1 << 19

# What an entry of a `Directory` is. ABSENT; a table of level 1 whose sptes are MIXED (or none),
# all writable, all write-protected; or a leaf of 2 MiB, see `Huge`.
ABSENT, MIXED, FULL_RW, FULL_PROTECTED = range(4)
HUGE = 8


class Huge:
    """Bits of a large leaf, of 2 MiB or 1 GiB; `HUGE` is always set.

    `WRITABLE`; `READ_ONLY`: the host maps the page read-only; `NO_EXEC`; `CLEAN`: without D;
    `PROTECTED`: without the MMU-writable bit, so that the fast path cannot give W back.
    """

    WRITABLE = 1
    READ_ONLY = 2
    NO_EXEC = 4
    CLEAN = 16
    PROTECTED = 32


class Leaf:
    """The sptes of a table of level 1; bit N of each number belongs to spte N.

    `readonly`: the host maps the page read-only. `clean`: without D. `mmio`: whole MMIO sptes.
    """

    __slots__ = ("clean", "mmio", "present", "readonly", "writable")

    def __init__(self, present: int = 0, writable: int = 0) -> None:
        self.present = present
        self.writable = writable
        self.readonly = 0
        self.clean = 0
        self.mmio: dict[int, int] = {}

    def forget(self, mask: int) -> None:
        """Make these sptes not present."""
        keep = ~mask
        self.present &= keep
        self.writable &= keep
        self.readonly &= keep
        self.clean &= keep

    @property
    def uniform(self) -> int:
        """The state that expresses the whole table, MIXED if none does."""
        if self.present != ALL or self.readonly or self.clean or self.mmio:
            return MIXED
        return {ALL: FULL_RW, 0: FULL_PROTECTED}.get(self.writable, MIXED)


class Directory:
    """A table of level 2. `page`: its number among table pages; those of its tables follow."""

    __slots__ = ("leaves", "page", "state")

    def __init__(self, page: int) -> None:
        self.page = page
        self.state = bytearray(ENTRIES)
        self.leaves: dict[int, Leaf] = {}

    def leaf(self, index: int) -> Leaf:
        """Return the sptes of a table below, to read and to change; call `pack` afterwards."""
        leaf = self.leaves.get(index)
        if leaf is None:
            state = self.state[index]
            full = state in (FULL_RW, FULL_PROTECTED)
            leaf = Leaf(ALL if full else 0, ALL if state == FULL_RW else 0)
            self.leaves[index] = leaf
            self.state[index] = MIXED
        return leaf

    def pack(self, index: int) -> None:
        """Reduce a table below to one byte if that can express it."""
        leaf = self.leaves.get(index)
        if leaf is not None and leaf.uniform != MIXED:
            self.state[index] = leaf.uniform
            del self.leaves[index]

    def present(self, index: int) -> int:
        """Return the mask of present leaf sptes in a table below."""
        state = self.state[index]
        if state == MIXED:
            leaf = self.leaves.get(index)
            return 0 if leaf is None else leaf.present
        return ALL if state in (FULL_RW, FULL_PROTECTED) else 0

    def totals(self) -> tuple[int, int]:
        """Return the number of tables whose 512 sptes are all present, and of large leaves."""
        counts = [self.state.count(state) for state in (ABSENT, MIXED, FULL_RW, FULL_PROTECTED)]
        return counts[FULL_RW] + counts[FULL_PROTECTED], ENTRIES - sum(counts)

    def is_table(self, index: int) -> bool:
        """Return whether an entry points to a table."""
        return 0 < self.state[index] < HUGE


class Upper:
    """A table of level 3 or 4. An entry is a table or, at level 3, the bits of a 1 GiB leaf."""

    __slots__ = ("entries", "page")

    def __init__(self, page: int) -> None:
        self.page = page
        self.entries: dict[int, Upper | Directory | int] = {}

    def tables(self) -> Iterator[tuple[int, Upper | Directory]]:
        """Yield index and table of each entry that is one, ascending."""
        for index in sorted(self.entries):
            entry = self.entries[index]
            if not isinstance(entry, int):
                yield index, entry


Table = Upper | Directory


class TdpRoot:
    """One root. `as_id`: its address space. `invalid`: no vCPU may load it any more."""

    __slots__ = ("as_id", "invalid", "number", "top")

    def __init__(self, number: int, as_id: int, page: int) -> None:
        self.number = number
        self.as_id = as_id
        self.invalid = False
        self.top = Upper(page)

    def directories(self, first: int, last: int) -> Iterator[tuple[int, Upper, int]]:
        """Yield gfn, table of level 3 and index of each used entry of 1 GiB in a range of gfns."""
        for high in sorted(self.top.entries):
            below = self.top.entries[high]
            assert isinstance(below, Upper)
            for low in sorted(below.entries):
                gfn = (high << 9 | low) << 18
                if gfn <= last and gfn + (1 << 18) > first:
                    yield gfn, below, low


class TdpTables:
    """All roots of a VM, the newest first, those that are invalid included until they are gone."""

    def __init__(self) -> None:
        self.roots: list[TdpRoot] = []
        self.pages_made = 0
        self.roots_made = 0

    def take_pages(self, number: int) -> int:
        """Return the first of some table pages."""
        first = self.pages_made
        self.pages_made = (first + number) % TABLE_PAGES
        return first

    def make_root(self, as_id: int) -> TdpRoot:
        """Make a root without entries."""
        self.roots_made += 1
        root = TdpRoot(self.roots_made, as_id, self.take_pages(1))
        self.roots.insert(0, root)
        return root

    def find(self, as_id: int) -> TdpRoot | None:
        """Return the root of an address space that a vCPU may load, or None."""
        for root in self.roots:
            if root.as_id == as_id and not root.invalid:
                return root
        return None

    def valid(self, as_id: int) -> list[TdpRoot]:
        """Return the valid roots of an address space."""
        return [root for root in self.roots if root.as_id == as_id and not root.invalid]


def table_pfn(page: int) -> int:
    """Return the host page of a table."""
    return SPT_BASE // 4096 + page % TABLE_PAGES


def entry_address(page: int, index: int) -> int:
    """Return the address of an entry."""
    return (table_pfn(page) << 12) + index * 8

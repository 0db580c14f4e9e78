"""The shadow pages of a VM as columns of packed numbers: there is no object per page.

A page is a row number. Rows of freed pages are reused, so a row identifies a page until `free`
only. Three structures hold the rows: the list in order of age (oldest at the tail), a hash by
gfn, and the count per bucket of the kernel's own hash, of which only the collisions are visible.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from fakesys.core.scheduling.resched import SlicedLock, cond_resched
from fakesys.subsystems.kvm_mmu.shadow.role import INVALID

NONE = -1
UNSYNC = 1
ON_LIST = 2
ACCOUNTED = 4

# arch/x86/kvm/mmu.c:kvm_page_table_hashfn over hash_64, KVM_MMU_HASH_SHIFT (v5.4).
HASH_BUCKETS = 4096
_GOLDEN = 0x61C8864680B583EB
_U64 = (1 << 64) - 1
_FIRST_HEADS = 1024


def kernel_bucket(gfn: int) -> int:
    """Return the bucket of mmu_page_hash that the kernel puts a gfn into."""
    return (gfn * _GOLDEN & _U64) >> 52


class ShadowPages:
    """Rows of shadow pages. The columns are public: operations read and write them.

    `present`: sptes in use, links to child tables included. `parent`, `parent_index`: the first
    spte that points here (NONE: none). `root_count`: vCPUs that have the page as a root.
    `leaf_state`: see sptes.py. `used`: pages not yet zapped (n_used_mmu_pages). `valid_gen`: the
    generation of pages that are not obsolete.
    """

    def __init__(self) -> None:
        self.gfn = array("Q")
        self.role = array("I")
        self.gen = array("I")
        self.root_count = array("H")
        self.flags = array("B")
        self.write_flooding_count = array("B")
        self.leaf_state = array("B")
        self.present = array("H")
        self.parent = array("i")
        self.parent_index = array("H")
        # Held where rows are kept from one slice of a call to the next.
        self.mmu_lock = SlicedLock()
        self.valid_gen = 0
        self.used = 0
        self._position = array("I")
        self._chain = array("i")
        self._free = array("i")
        self._heads = array("i", [NONE]) * _FIRST_HEADS
        self._order = array("i")
        self._tail = 0
        self._dead = 0
        self._buckets = array("I", [0]) * HASH_BUCKETS

    def __len__(self) -> int:
        """Return the number of pages in memory: used ones, and those zapped but not freed."""
        return len(self.gfn) - len(self._free)

    @property
    def bytes_per_row(self) -> float:
        """Memory of the columns, the list and the hash, in bytes per row."""
        columns = (
            *(
                self.gfn,
                self.role,
                self.gen,
                self.root_count,
                self.flags,
                self.write_flooding_count,
                self.leaf_state,
            ),
            *(self.present, self.parent, self.parent_index, self._position, self._chain),
            *(self._order, self._heads, self._free),
        )
        total = sum(column.itemsize * len(column) for column in columns)
        return total / max(1, len(self.gfn))

    def alloc(self, gfn: int, role: int) -> int:
        """Make a page of the present generation at the head of the list; return its row."""
        if self._free:
            row = self._free.pop()
            self._fill(row, gfn, role)
        else:
            row = len(self.gfn)
            self._extend(gfn, role)
        # No walk is under way: walks start again after pages were made.
        if self._tail + self._dead > 4096 and (self._tail + self._dead) * 2 > len(self._order):
            self._compact()
        self.append(row)
        self.used += 1
        self._buckets[kernel_bucket(gfn)] += 1
        if len(self.gfn) > 2 * len(self._heads):
            self._grow_hash()
        else:
            head = self._hash(gfn)
            self._chain[row] = self._heads[head]
            self._heads[head] = row
        return row

    def alloc_tables(
        self, gfn: int, count: int, role: int, parent: int, index: int
    ) -> tuple[list[int], int]:
        """Make `count` pages of level 1 with neighbouring gfns, linked below neighbouring entries.

        The result is that of `alloc` for each. Return the rows, and the most collisions that one of
        them met. Precondition: no such page exists.
        """
        worst = 0
        rows = self._take_rows(count)
        heads, chain, buckets = self._heads, self._chain, self._buckets
        mask, at = len(heads) - 1, len(self._order)
        gen = self.valid_gen
        for place, row in enumerate(rows):
            number = gfn + (place << 9)
            self.gfn[row], self.role[row], self.gen[row] = number, role, gen
            self.parent[row], self.parent_index[row] = parent, index + place
            self.flags[row], self._position[row] = ON_LIST, at + place
            head = (number ^ number >> 9) & mask
            chain[row] = heads[head]
            heads[head] = row
            bucket = (number * _GOLDEN & _U64) >> 52
            worst = max(worst, buckets[bucket])
            buckets[bucket] += 1
        self._order.extend(rows)
        self.used += count
        if len(self.gfn) > 2 * len(heads):
            self._grow_hash()
        return rows, worst

    def _take_rows(self, count: int) -> list[int]:
        """Return rows whose columns are all zero."""
        rows = self._free[-count:].tolist()
        del self._free[len(self._free) - len(rows) :]
        for row in rows:
            self.root_count[row] = self.write_flooding_count[row] = self.leaf_state[
                row
            ] = self.present[row] = 0
        first, fresh = len(self.gfn), count - len(rows)
        for column in (
            self.gfn,
            self.role,
            self.gen,
            self.root_count,
            self.flags,
            self.write_flooding_count,
        ):
            column.frombytes(bytes(column.itemsize * fresh))
        for column in (self.leaf_state, self.present, self.parent, self.parent_index):
            column.frombytes(bytes(column.itemsize * fresh))
        for column in (self._position, self._chain):
            column.frombytes(bytes(column.itemsize * fresh))
        rows.extend(range(first, first + fresh))
        return rows

    def find(self, gfn: int, role: int) -> int:
        """Return the page of this gfn and role that is neither invalid nor obsolete, or NONE."""
        row = self._heads[self._hash(gfn)]
        gfns, roles, gens, chain = self.gfn, self.role, self.gen, self._chain
        while row != NONE:
            if gfns[row] == gfn and roles[row] == role and gens[row] == self.valid_gen:
                return row
            row = chain[row]
        return NONE

    def at(self, gfn: int) -> list[int]:
        """Return all pages of this gfn that are neither invalid nor obsolete, the newest first."""
        found = []
        row = self._heads[self._hash(gfn)]
        while row != NONE:
            if self.gfn[row] == gfn and not self.is_stale(row):
                found.append(row)
            row = self._chain[row]
        return found

    def all_at(self, gfn: int) -> list[int]:
        """Return all pages of this gfn that are not invalid, obsolete ones included."""
        found = []
        row = self._heads[self._hash(gfn)]
        while row != NONE:
            if self.gfn[row] == gfn:
                found.append(row)
            row = self._chain[row]
        return found

    def collisions(self, gfn: int) -> int:
        """Return how many valid pages of other gfns a failed look-up passes in the bucket."""
        count = self._buckets[kernel_bucket(gfn)]
        return count - len(self.at(gfn)) if count else 0

    def is_stale(self, row: int) -> bool:
        """Return whether a look-up ignores the page: it is invalid or of an older generation."""
        return bool(self.role[row] & INVALID) or self.gen[row] != self.valid_gen

    def invalidate(self, row: int) -> None:
        """Set role.invalid, so that no look-up finds the page."""
        if self.role[row] & INVALID:
            return
        if self.gen[row] == self.valid_gen:
            self._buckets[kernel_bucket(self.gfn[row])] -= 1
        self.role[row] |= INVALID
        # The kernel leaves it in its hash until it is freed, and passes over it.
        self._unhash(row)

    def new_generation(self, valid_gen: int) -> None:
        """Make all pages obsolete at once; the cost does not depend on their number."""
        self.valid_gen = valid_gen
        self._buckets = array("I", [0]) * HASH_BUCKETS

    def append(self, row: int) -> None:
        """Put a page at the head of the list."""
        self.flags[row] |= ON_LIST
        self._position[row] = len(self._order)
        self._order.append(row)

    def unlist(self, row: int) -> None:
        """Take a page off the list."""
        self.flags[row] &= ~ON_LIST
        self._order[self._position[row]] = NONE
        self._dead += 1

    def free(self, row: int) -> None:
        """Free a page. Precondition: it is invalid and off the list."""
        self._free.append(row)

    def oldest(self) -> int:
        """Return the page at the tail of the list, or NONE."""
        return self.next_newer(self.before_tail)[1]

    def age(self, row: int) -> int:
        """Return the position of a page on the list; older pages have smaller ones."""
        return self._position[row]

    def next_newer(self, position: int) -> tuple[int, int]:
        """Return position and row of the next page towards the head; row NONE at the end."""
        order = self._order
        position += 1
        end = len(order)
        while position < end and order[position] == NONE:
            position += 1
        return position, (order[position] if position < end else NONE)

    def next_older(self, position: int) -> tuple[int, int]:
        """Return position and row of the next page towards the tail; row NONE at the end."""
        order = self._order
        position -= 1
        while position >= self._tail and order[position] == NONE:
            position -= 1
        return position, (order[position] if position >= self._tail else NONE)

    @property
    def before_tail(self) -> int:
        """The position from which a walk from the tail begins."""
        order, end = self._order, len(self._order)
        while self._tail < end and order[self._tail] == NONE:
            self._tail += 1
            self._dead -= 1
        return self._tail - 1

    @property
    def after_head(self) -> int:
        """The position from which a walk from the head begins."""
        order = self._order
        while len(order) > self._tail and order[-1] == NONE:
            order.pop()
            self._dead -= 1
        return len(order)

    def oldest_first(self) -> Iterator[int]:
        """Yield the rows that are on the list now, the oldest first."""
        return (row for row in self._order[self._tail :] if row != NONE)

    def newest_first(self) -> Iterator[tuple[int, int, int, int, int]]:
        """Yield gfn, role, generation, roots and flags of the pages on the list at this moment."""
        gfn, role, gen = self.gfn[:], self.role[:], self.gen[:]
        roots, flags = self.root_count[:], self.flags[:]
        rows = (row for row in reversed(self._order[self._tail :]) if row != NONE)
        return ((gfn[row], role[row], gen[row], roots[row], flags[row]) for row in rows)

    def clear(self, keep: list[int], others: array[int]) -> None:
        """Forget all pages but these invalid ones; `others`: all rows but theirs."""
        listed = [row for row in keep if self.flags[row] & ON_LIST]
        self._free = others
        self._heads = array("i", [NONE]) * max(_FIRST_HEADS, len(self._heads))
        self._order = array("i")
        self._tail = self._dead = 0
        self._buckets = array("I", [0]) * HASH_BUCKETS
        for row in listed:
            self.append(row)

    @property
    def order(self) -> array[int]:
        """The rows on the list, the oldest first."""
        return array("i", self.oldest_first())

    @property
    def free_rows(self) -> array[int]:
        """The rows of freed pages; the last one is used next."""
        return self._free[:]

    def hashed_rows(self) -> array[int]:
        """Return the rows that a look-up can find, in an order that `restore` hashes alike."""
        found = array("i")
        for head in self._heads if len(self) else ():
            chain = []
            while head != NONE:
                chain.append(head)
                head = self._chain[head]
            found.extend(reversed(chain))
        return found

    def restore(self, free: array[int], order: array[int], hashed: array[int]) -> None:
        """Make list, hash and counts for columns that were set from a snapshot.

        `order`: the rows on the list, the oldest first. Precondition: all columns but `_position`
        and `_chain` are equally long, and these rows are among them.
        """
        rows = len(self.gfn)
        self.used = rows - len(free)
        self._free = free
        self._position = array("I", [0]) * rows
        self._chain = array("i", [NONE]) * rows
        for row in order:
            self.append(row)
        heads = _FIRST_HEADS
        while rows > 2 * heads:
            heads *= 2
        self._heads = array("i", [NONE]) * heads
        for row in hashed:
            self._rehash(row)
            self._buckets[kernel_bucket(self.gfn[row])] += self.gen[row] == self.valid_gen

    def _fill(self, row: int, gfn: int, role: int) -> None:
        self.gfn[row] = gfn
        self.role[row] = role
        self.gen[row] = self.valid_gen
        self.root_count[row] = self.flags[row] = self.write_flooding_count[row] = self.leaf_state[
            row
        ] = 0
        self.present[row] = self.parent_index[row] = 0
        self.parent[row] = NONE

    def _extend(self, gfn: int, role: int) -> None:
        self.gfn.append(gfn)
        self.role.append(role)
        self.gen.append(self.valid_gen)
        self.root_count.append(0)
        self.flags.append(0)
        self.write_flooding_count.append(0)
        self.leaf_state.append(0)
        self.present.append(0)
        self.parent.append(NONE)
        self.parent_index.append(0)
        self._position.append(0)
        self._chain.append(NONE)

    def _hash(self, gfn: int) -> int:
        # Tables of guests have neighbouring gfns, direct pages gfns that are 512 apart.
        return (gfn ^ gfn >> 9) & (len(self._heads) - 1)

    def _rehash(self, row: int) -> None:
        head = self._hash(self.gfn[row])
        self._chain[row] = self._heads[head]
        self._heads[head] = row

    def _unhash(self, row: int) -> None:
        head = self._hash(self.gfn[row])
        at = self._heads[head]
        if at == row:
            self._heads[head] = self._chain[row]
            return
        while self._chain[at] != row:
            at = self._chain[at]
        self._chain[at] = self._chain[row]

    def _grow_hash(self) -> None:
        free = set(self._free)
        with self.mmu_lock:
            self._heads = array("i", [NONE]) * (len(self._heads) * 2)
            for row in range(len(self.gfn)):
                cond_resched()
                if row not in free and not self.role[row] & INVALID:
                    self._rehash(row)

    def _compact(self) -> None:
        self._order = array("i", [row for row in self._order[self._tail :] if row != NONE])
        for position, row in enumerate(self._order):
            self._position[row] = position
        self._tail = self._dead = 0

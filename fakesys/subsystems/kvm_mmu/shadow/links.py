"""How shadow pages hang together: look-up and creation, links, write tracking, unsync marks."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator

from fakesys.subsystems.kvm_mmu.events import catalog as trace
from fakesys.subsystems.kvm_mmu.shadow.arch import Kit
from fakesys.subsystems.kvm_mmu.shadow.pages import ACCOUNTED, NONE, UNSYNC
from fakesys.subsystems.kvm_mmu.shadow.role import DIRECT, LEVEL_MASK, level_of
from fakesys.subsystems.kvm_mmu.shadow.sptes import ENTRIES, bits

_NO_KIDS = array("i", [NONE]) * ENTRIES


class Tracked:
    """Guest tables in use as shadow pages: who writes to them must be noticed.

    Like mmu.c:account_shadowed and page_track.c (v6.1).
    """

    def __init__(self) -> None:
        self.indirect = 0
        # gfns of tables above level 1: never writable.
        self._write: dict[int, int] = {}
        # level -> block -> tables in it: no large page may map the block.
        self._small: dict[int, dict[int, int]] = {2: {}, 3: {}}

    def change(self, gfn: int, level: int, by: int) -> None:
        """`by` is 1 or -1 tables at this gfn."""
        self.indirect += by
        if level > 1:
            _add(self._write, gfn, by)
        for large, blocks in self._small.items():
            _add(blocks, gfn >> 9 * (large - 1), by)

    def is_tracked(self, gfn: int) -> bool:
        """Must writes to it be emulated?"""
        return gfn in self._write

    def forbids(self, gfn: int, level: int) -> bool:
        """May a large page at `level` not map this gfn?"""
        return gfn >> 9 * (level - 1) in self._small[level]

    def clear(self) -> None:
        """No table is shadowed any more."""
        self.indirect = 0
        self._write.clear()
        for blocks in self._small.values():
            blocks.clear()


class Tree:
    """Look-up, creation and links of shadow pages.

    `sync`: brings an unsync page up to date with the guest's table; did that take translations
    away? The walker sets it. `zap`: zaps one page at once; the zapper sets it.
    """

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._pages = kit.pages
        self.tracked = Tracked()
        self.sync: Callable[[int], bool]
        self.zap: Callable[[int], None]
        self.kids: dict[int, array[int]] = {}
        # Parents beyond the first, which is in the columns.
        self._more_parents: dict[int, list[tuple[int, int]]] = {}
        # Table -> mask of its entries below which a page is unsync.
        self.unsync_below: dict[int, int] = {}

    @property
    def bytes_per_table(self) -> float:
        """Memory of the links, per page of the VM."""
        tables = sum(kids.itemsize * len(kids) for kids in self.kids.values())
        return tables / max(1, len(self._pages))

    def get_page(self, gfn: int, role: int) -> int:
        """The page that shadows or maps `gfn` in this role, made if need be.

        Like mmu.c:kvm_mmu_get_page (v5.4), kvm_mmu_get_shadow_page (v6.1).
        """
        row = self._pages.find(gfn, role)
        if row == NONE:
            return self._make(gfn, role)
        if not role & DIRECT:
            if self._pages.flags[row] & UNSYNC and self.sync(row):
                self._kit.flush_remote_tlbs()
            self._pages.flood[row] = 0
        self._tell_got(row, created=False)
        return row

    def make_tables(self, row: int, index: int, gfn: int, count: int) -> list[int] | None:
        """`count` direct tables of level 1 below neighbouring entries of a table, at once.

        None if one is there, linked or not, or if somebody listens to each.
        """
        if trace.KvmMmuGetPage in self._kit.bus.wanted:
            return None
        kids = self.kids.get(row)
        if kids is None:
            kids = self.kids[row] = _NO_KIDS[:]
        role = self._pages.role[row] - 1
        span = range(gfn, gfn + count * ENTRIES, ENTRIES)
        if any(kid != NONE for kid in kids[index : index + count]):
            return None
        if any(self._pages.find(base, role) != NONE for base in span):
            return None
        rows, collisions = self._pages.alloc_tables(gfn, count, role, row, index)
        kids[index : index + count] = array("i", rows)
        self._pages.present[row] += count
        stats = self._kit.stats
        stats.mmu_cache_miss += count
        stats.max_mmu_page_hash_collisions = max(stats.max_mmu_page_hash_collisions, collisions)
        return rows

    def child(self, row: int, index: int) -> int:
        """The table that an entry points to, or NONE."""
        kids = self.kids.get(row)
        return NONE if kids is None else kids[index]

    def link(self, row: int, index: int, child: int) -> None:
        """Point an entry to a table. Like mmu.c:link_shadow_page (v6.1)."""
        if self._kit.sptes.drop(row, 1 << index):
            self._kit.flush_remote_tlbs()
        kids = self.kids.get(row)
        if kids is None:
            kids = self.kids[row] = _NO_KIDS[:]
        kids[index] = child
        pages = self._pages
        pages.present[row] += 1
        if pages.parent[child] == NONE:
            pages.parent[child] = row
            pages.parent_index[child] = index
        else:
            self._more_parents.setdefault(child, []).append((row, index))
        if pages.flags[child] & UNSYNC or child in self.unsync_below:
            self._mark_unsync(row, index)

    def unlink(self, row: int, index: int) -> None:
        """Clear an entry that points to a table. Like mmu.c:drop_parent_pte."""
        kids = self.kids[row]
        child = kids[index]
        kids[index] = NONE
        self._pages.present[row] -= 1
        self._forget_parent(child, row, index)

    def unlink_children(self, row: int) -> None:
        """Clear every entry of a table. Like mmu.c:kvm_mmu_page_unlink_children."""
        kids = self.kids.pop(row, None)
        self.unsync_below.pop(row, None)
        if kids is None:
            return
        for index, child in enumerate(kids):
            if child != NONE:
                self._pages.present[row] -= 1
                self._forget_parent(child, row, index)

    def unlink_parents(self, row: int) -> None:
        """Clear every entry that points to a table. Like mmu.c:kvm_mmu_unlink_parents."""
        for parent, index in list(self.parents(row)):
            self.unlink(parent, index)

    def parents(self, row: int) -> Iterator[tuple[int, int]]:
        """Tables and indexes of the entries that point to a page."""
        if self._pages.parent[row] != NONE:
            yield self._pages.parent[row], self._pages.parent_index[row]
            yield from self._more_parents.get(row, ())

    def unaccount(self, row: int) -> None:
        """The guest's table is no longer shadowed by this page."""
        if self._pages.flags[row] & ACCOUNTED:
            self._pages.flags[row] &= ~ACCOUNTED
            self.tracked.change(self._pages.gfn[row], level_of(self._pages.role[row]), -1)

    def unsync(self, row: int) -> None:
        """Let the guest write to its table, to be read again. Like mmu.c:kvm_unsync_page."""
        self._kit.stats.mmu_unsync += 1
        self._kit.unsync_pages += 1
        if trace.KvmMmuUnsyncPage in self._kit.bus.wanted:
            self._kit.bus.emit(trace.KvmMmuUnsyncPage(**self.fields(row)))
        self._pages.flags[row] |= UNSYNC
        for parent, index in list(self.parents(row)):
            self._mark_unsync(parent, index)

    def unlink_unsync(self, row: int) -> None:
        """The page is in sync again. Like mmu.c:kvm_unlink_unsync_page."""
        if trace.KvmMmuSyncPage in self._kit.bus.wanted:
            self._kit.bus.emit(trace.KvmMmuSyncPage(**self.fields(row)))
        self._pages.flags[row] &= ~UNSYNC
        self._kit.stats.mmu_unsync -= 1
        self._kit.unsync_pages -= 1

    def unsync_under(self, row: int) -> list[int]:
        """The unsync pages below a table, by index; forgets marks that no longer hold."""
        found = []
        for index in bits(self.unsync_below.get(row, 0)):
            child = self.child(row, index)
            below = [] if child == NONE else self.unsync_under(child)
            if child != NONE and self._pages.flags[child] & UNSYNC:
                below.append(child)
            if not below:
                self._clear_unsync(row, index)
            found.extend(below)
        return found

    def forget_row(self, row: int) -> None:
        """The page is freed."""
        self.kids.pop(row, None)
        self.unsync_below.pop(row, None)
        self._more_parents.pop(row, None)

    def forget_all(self) -> None:
        """Every page is zapped."""
        self.kids.clear()
        self.unsync_below.clear()
        self._more_parents.clear()
        self.tracked.clear()

    def fields(self, row: int) -> trace.ShadowPageFields:
        """What every event about a shadow page says of it."""
        pages = self._pages
        return {
            "mmu_valid_gen": pages.gen[row],
            "gfn": pages.gfn[row],
            "role": pages.role[row],
            "root_count": pages.roots[row],
            "unsync": bool(pages.flags[row] & UNSYNC),
        }

    def _make(self, gfn: int, role: int) -> int:
        kit, pages = self._kit, self._pages
        stats = kit.stats
        collisions = pages.collisions(gfn)
        if collisions > stats.max_mmu_page_hash_collisions:
            stats.max_mmu_page_hash_collisions = collisions
        stats.mmu_cache_miss += 1
        if not role & DIRECT and level_of(role) > 1:
            self._zap_unsync_twins(gfn)
        row = pages.alloc(gfn, role)
        if not role & DIRECT:
            pages.flags[row] |= ACCOUNTED
            self.tracked.change(gfn, role & LEVEL_MASK, 1)
            if kit.sptes.protect_gfn(gfn, seal=True):
                kit.flush_remote_tlbs()
        self._tell_got(row, created=True)
        return row

    def _zap_unsync_twins(self, gfn: int) -> None:
        """The guest makes an upper table of what was a lower one."""
        for twin in self._pages.at(gfn):
            if self._pages.flags[twin] & UNSYNC:
                self.zap(twin)

    def _tell_got(self, row: int, *, created: bool) -> None:
        if trace.KvmMmuGetPage in self._kit.bus.wanted:
            self._kit.bus.emit(trace.KvmMmuGetPage(**self.fields(row), created=created))

    def _forget_parent(self, child: int, row: int, index: int) -> None:
        pages = self._pages
        more = self._more_parents.get(child)
        if pages.parent[child] != row or pages.parent_index[child] != index:
            assert more is not None
            more.remove((row, index))
        elif more:
            pages.parent[child], pages.parent_index[child] = more.pop()
        else:
            pages.parent[child] = NONE
        if not more:
            self._more_parents.pop(child, None)

    def _mark_unsync(self, row: int, index: int) -> None:
        """Like mmu.c:mark_unsync: note it in every table above, as far as it is news."""
        known = self.unsync_below.get(row, 0)
        if known >> index & 1:
            return
        self.unsync_below[row] = known | 1 << index
        if known:
            return
        for parent, at in list(self.parents(row)):
            self._mark_unsync(parent, at)

    def _clear_unsync(self, row: int, index: int) -> None:
        left = self.unsync_below[row] & ~(1 << index)
        if left:
            self.unsync_below[row] = left
        else:
            del self.unsync_below[row]


def _add(counts: dict[int, int], key: int, by: int) -> None:
    number = counts.get(key, 0) + by
    if number:
        counts[key] = number
    else:
        del counts[key]

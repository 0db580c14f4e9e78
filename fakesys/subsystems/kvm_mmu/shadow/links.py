"""The links between shadow pages: child tables, parent sptes, unsync marks.

Follows the fields `parent_ptes`, `unsync_children` and `unsync_child_bitmap` of
`struct kvm_mmu_page` (arch/x86/kvm/mmu/mmu_internal.h, v6.1).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any

from fakesys.subsystems.kvm_mmu.events.pages import (
    KvmMmuSyncPage,
    KvmMmuUnsyncPage,
    ShadowPageFields,
)
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.pages import ACCOUNTED, NONE, UNSYNC
from fakesys.subsystems.kvm_mmu.shadow.role import level_of
from fakesys.subsystems.kvm_mmu.shadow.sptes import ENTRIES, set_bits
from fakesys.subsystems.kvm_mmu.shadow.write_tracking import WriteTracking

NO_CHILDREN = array("i", [NONE]) * ENTRIES


class ShadowLinks:
    """Which entry of which shadow page points to which other one, in both directions.

    It also owns the write tracking of the guest tables that are shadowed.
    """

    def __init__(self, arch: MmuArch) -> None:
        self._arch = arch
        self._pages = arch.pages
        self.write_tracking = WriteTracking()
        self.children: dict[int, array[int]] = {}
        # Parents beyond the first, which is in the columns.
        self._more_parents: dict[int, list[tuple[int, int]]] = {}
        # Table -> mask of its entries below which a page is unsync.
        self.unsync_below: dict[int, int] = {}

    @property
    def bytes_per_table(self) -> float:
        """Memory that the links take, in bytes per page of the VM."""
        tables = sum(children.itemsize * len(children) for children in self.children.values())
        return tables / max(1, len(self._pages))

    def child(self, row: int, index: int) -> int:
        """Return the table that an entry points to, or NONE."""
        children = self.children.get(row)
        return NONE if children is None else children[index]

    def link(self, row: int, index: int, child: int) -> None:
        """Point an entry to a table. Like mmu.c:link_shadow_page (v6.1)."""
        if self._arch.sptes.drop(row, 1 << index):
            self._arch.flush_remote_tlbs()
        children = self.children.get(row)
        if children is None:
            children = self.children[row] = NO_CHILDREN[:]
        children[index] = child
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
        children = self.children[row]
        child = children[index]
        children[index] = NONE
        self._pages.present[row] -= 1
        self._forget_parent(child, row, index)

    def unlink_children(self, row: int) -> None:
        """Clear every entry of a table. Like mmu.c:kvm_mmu_page_unlink_children."""
        children = self.children.pop(row, None)
        self.unsync_below.pop(row, None)
        if children is None:
            return
        for index, child in enumerate(children):
            if child != NONE:
                self._pages.present[row] -= 1
                self._forget_parent(child, row, index)

    def unlink_parents(self, row: int) -> None:
        """Clear every entry that points to a table. Like mmu.c:kvm_mmu_unlink_parents."""
        for parent, index in list(self.parents(row)):
            self.unlink(parent, index)

    def parents(self, row: int) -> Iterator[tuple[int, int]]:
        """Yield table and index of each entry that points to a page."""
        if self._pages.parent[row] != NONE:
            yield self._pages.parent[row], self._pages.parent_index[row]
            yield from self._more_parents.get(row, ())

    def unaccount(self, row: int) -> None:
        """End the write tracking of the guest's table that this page shadows."""
        if self._pages.flags[row] & ACCOUNTED:
            self._pages.flags[row] &= ~ACCOUNTED
            self.write_tracking.account(self._pages.gfn[row], level_of(self._pages.role[row]), -1)

    def unsync(self, row: int) -> None:
        """Let the guest write to its table, which is read again later.

        Like mmu.c:kvm_unsync_page.
        """
        self._arch.stats.mmu_unsync += 1
        self._arch.unsync_pages += 1
        if KvmMmuUnsyncPage in self._arch.bus.wanted:
            self._arch.bus.emit(KvmMmuUnsyncPage(**self.fields(row)))
        self._pages.flags[row] |= UNSYNC
        for parent, index in list(self.parents(row)):
            self._mark_unsync(parent, index)

    def unlink_unsync(self, row: int) -> None:
        """Mark the page as in sync again. Like mmu.c:kvm_unlink_unsync_page."""
        if KvmMmuSyncPage in self._arch.bus.wanted:
            self._arch.bus.emit(KvmMmuSyncPage(**self.fields(row)))
        self._pages.flags[row] &= ~UNSYNC
        self._arch.stats.mmu_unsync -= 1
        self._arch.unsync_pages -= 1

    def unsync_under(self, row: int) -> list[int]:
        """Return the unsync pages below a table, by index; clear marks that no longer hold."""
        found = []
        for index in set_bits(self.unsync_below.get(row, 0)):
            child = self.child(row, index)
            below = [] if child == NONE else self.unsync_under(child)
            if child != NONE and self._pages.flags[child] & UNSYNC:
                below.append(child)
            if not below:
                self._clear_unsync(row, index)
            found.extend(below)
        return found

    def forget_row(self, row: int) -> None:
        """Drop the links of a page that is freed."""
        self.children.pop(row, None)
        self.unsync_below.pop(row, None)
        self._more_parents.pop(row, None)

    def forget_all(self) -> list[dict[int, Any]]:
        """Drop all links: every page was zapped. Return what takes long to free."""
        dropped: list[dict[int, Any]] = [self.children, self._more_parents]
        self.children, self._more_parents = {}, {}
        self.unsync_below.clear()
        self.write_tracking.clear()
        return dropped

    def restore(self, row: int, parents: list[tuple[int, int]]) -> None:
        """Set which entries point to a page, the first one first, from a snapshot.

        Precondition: `children` has these entries.
        """
        self._pages.parent[row], self._pages.parent_index[row] = parents[0]
        if parents[1:]:
            self._more_parents[row] = parents[1:]

    def fields(self, row: int) -> ShadowPageFields:
        """Return what every tracepoint of a shadow page records of it."""
        pages = self._pages
        return {
            "mmu_valid_gen": pages.gen[row],
            "gfn": pages.gfn[row],
            "role": pages.role[row],
            "root_count": pages.root_count[row],
            "unsync": bool(pages.flags[row] & UNSYNC),
        }

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
        """Mark the page in every table above that has no mark yet. Like mmu.c:mark_unsync."""
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

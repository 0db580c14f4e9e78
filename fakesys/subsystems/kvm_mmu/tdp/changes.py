"""What follows from a changed entry: its event, the gauges, a table that goes.

Like arch/x86/kvm/mmu/tdp_mmu.c:handle_changed_spte, handle_removed_pt (v6.1).
"""

from __future__ import annotations

from fakesys.core.scheduling.resched import cond_resched
from fakesys.subsystems.kvm_mmu.events.pages import (
    KvmMmuGetPage,
    KvmMmuPrepareZapPage,
    ShadowPageFields,
)
from fakesys.subsystems.kvm_mmu.events.sptes import KvmTdpMmuSpteChanged
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.role import SMM, role_word
from fakesys.subsystems.kvm_mmu.shadow.sptes import ENTRIES
from fakesys.subsystems.kvm_mmu.tdp.tables import (
    HUGE,
    MIXED,
    Directory,
    Leaf,
    Table,
    Upper,
)
from fakesys.subsystems.kvm_mmu.tdp.values import SpteValues

_SHIFTS = (0, 0, 9, 18, 27)


class Changes:
    """Tells of changed entries, and takes tables down that no entry points to any more."""

    def __init__(self, arch: MmuArch, values: SpteValues) -> None:
        self._arch = arch
        self._bus = arch.bus
        self.values = values

    def trace(self, as_id: int, gfn: int, level: int, old: int, new: int) -> None:
        """Emit kvm_tdp_mmu_spte_changed, if a listener wants it."""
        if old != new and KvmTdpMmuSpteChanged in self._bus.wanted:
            self._bus.emit(
                KvmTdpMmuSpteChanged(gfn=gfn, old_spte=old, new_spte=new, level=level, as_id=as_id)
            )

    @property
    def is_traced(self) -> bool:
        """Whether a listener hears of single entries, or of tables that go."""
        wanted = self._bus.wanted
        return KvmTdpMmuSpteChanged in wanted or KvmMmuPrepareZapPage in wanted

    def trace_new_page(self, as_id: int, gfn: int, level: int) -> None:
        """Emit kvm_mmu_get_page for a new table."""
        if KvmMmuGetPage in self._bus.wanted:
            self._bus.emit(KvmMmuGetPage(**self._fields(as_id, gfn, level), created=True))

    def count(self, level: int, change: int) -> None:
        """Add leaf sptes to the gauges."""
        self._arch.sptes.count(level, change)

    def take_down(self, as_id: int, table: Table, gfn: int, level: int, *, shared: bool) -> None:
        """Tell of a table of level 2 or 3 that goes, with all below it.

        `shared`: the lock is held for reading, so that entries without a page are frozen too.
        Precondition: a table of level 3 has nothing below it any more.
        """
        if not self.is_traced:
            self.count_gone(as_id, table, gfn)
            return
        self._trace_zap(as_id, gfn, level)
        shift = _SHIFTS[level]
        values = self.values
        for index in range(ENTRIES):
            cond_resched()
            place = gfn + (index << shift)
            old = values.entry(as_id, table, index, place)
            if old == values.empty and not shared:
                continue
            self.trace(as_id, place, level, old, values.removed)
            if isinstance(table, Upper):
                assert index not in table.entries
            elif table.is_table(index):
                self.take_down_leaf(as_id, table, index, place, shared=shared)
            elif table.state[index] & HUGE:
                self.count(2, -1)

    def take_down_leaf(
        self, as_id: int, directory: Directory, index: int, gfn: int, *, shared: bool
    ) -> None:
        """Tell of a table of level 1 that goes; the caller clears the entry that pointed to it."""
        present = directory.present(index)
        self.forget_split(as_id, gfn)
        if self.is_traced:
            self._trace_zap(as_id, gfn, 1)
            self._trace_sptes(as_id, directory, index, gfn, shared)
        self.count(1, -present.bit_count())

    def forget_split(self, as_id: int, gfn: int) -> None:
        """Stop counting a table that replaced a large page because of nx_huge_pages."""
        key = as_id << 48 | gfn
        if key in self._arch.nx_splits:
            self._arch.unaccount_nx_huge_page(key)

    def _trace_sptes(
        self, as_id: int, directory: Directory, index: int, gfn: int, shared: bool
    ) -> None:
        if KvmTdpMmuSpteChanged not in self._bus.wanted:
            return
        values = self.values
        present = directory.present(index)
        leaf = directory.leaves.get(index) if directory.state[index] == MIXED else None
        mmio = leaf.mmio if leaf is not None else {}
        for place in range(ENTRIES):
            if present >> place & 1 or (shared and place in mmio):
                old = values.leaf(as_id, directory, index, place, gfn + place)
            elif shared:
                old = values.empty
            else:
                continue
            self.trace(as_id, gfn + place, 1, old, values.removed)
        cond_resched()

    def count_gone(self, as_id: int, table: Table, gfn: int) -> None:
        """Take what a table maps from the gauges, without a word of it."""
        cond_resched()
        if isinstance(table, Upper):
            for index, below in table.entries.items():
                if isinstance(below, int):
                    self.count(3, -1)
                else:
                    shift = 27 if isinstance(below, Upper) else 18
                    self.count_gone(as_id, below, gfn + (index << shift))
            return
        full, huge = table.totals()
        mixed = sum(leaf.present.bit_count() for leaf in table.leaves.values())
        self.count(1, -(full * ENTRIES + mixed))
        self.count(2, -huge)
        if self._arch.nx_splits:
            for index in range(ENTRIES):
                self.forget_split(as_id, gfn + (index << 9))

    def _trace_zap(self, as_id: int, gfn: int, level: int) -> None:
        if KvmMmuPrepareZapPage in self._bus.wanted:
            self._bus.emit(KvmMmuPrepareZapPage(**self._fields(as_id, gfn, level)))

    def _fields(self, as_id: int, gfn: int, level: int) -> ShadowPageFields:
        role = role_word(self._arch.policy.base_role, level, direct=True)
        return {
            # Neither the generation nor the number of users is ever set.
            "mmu_valid_gen": 0,
            "gfn": gfn,
            "role": role | (SMM if as_id else 0),
            "root_count": 0,
            "unsync": False,
        }


def free_slowly(leaves: dict[int, Leaf]) -> None:
    """Free many objects, letting others in."""
    while leaves:
        cond_resched()
        leaves.popitem()

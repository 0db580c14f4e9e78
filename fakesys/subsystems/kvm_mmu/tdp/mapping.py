"""A leaf made for a fault, with the tables down to it. Like tdp_mmu.c:kvm_tdp_mmu_map (v6.1)."""

from __future__ import annotations

from typing import NamedTuple

from fakesys.subsystems.kvm_mmu.events.sptes import KvmMmuSetSpte, KvmMmuSplitHugePage
from fakesys.subsystems.kvm_mmu.events.walk import MarkMmioSpte
from fakesys.subsystems.kvm_mmu.mmu.fast_page_fault import RetPf
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.sptes import ALL, ENTRIES
from fakesys.subsystems.kvm_mmu.shadow.vcpu import VcpuMmu
from fakesys.subsystems.kvm_mmu.slots.memslots import Memslot
from fakesys.subsystems.kvm_mmu.tdp.changes import Changes
from fakesys.subsystems.kvm_mmu.tdp.tables import (
    FULL_PROTECTED,
    FULL_RW,
    HUGE,
    MIXED,
    Directory,
    Huge,
    TdpRoot,
    TdpTables,
    Upper,
    entry_address,
)
from fakesys.subsystems.kvm_mmu.tdp.values import NX, P, U


class Goal(NamedTuple):
    """What a fault wants mapped; `struct kvm_page_fault` (v6.1).

    `level`: of the leaf. `asked`: the level without nx_huge_pages. `mmio`: the spte of a gfn
    without slot, else 0. `writable`: the host may write to the page.
    """

    vcpu: VcpuMmu
    gfn: int
    slot: Memslot | None
    level: int
    asked: int
    mmio: int
    writable: bool


class TdpMapper:
    """Makes leaves and tables below a root."""

    def __init__(self, arch: MmuArch, tables: TdpTables, changes: Changes) -> None:
        self._arch = arch
        self._tables = tables
        self._changes = changes
        self._values = changes.values
        rules = arch.policy.tdp
        assert rules is not None
        self._rules = rules

    def map(self, root: TdpRoot, goal: Goal) -> RetPf:
        """Map what a fault wants; return how the fault ended."""
        upper = self._level_3(root, goal.gfn)
        index = goal.gfn >> 18 & 511
        level = goal.level
        entry = upper.entries.get(index)
        if level == 3 and isinstance(entry, Directory):
            level -= self._keeps_table(root, goal.gfn >> 18 << 18)
        if level == 3:
            return self._set_level_3(root, upper, index, goal)
        directory = self._directory(root, upper, index, entry, goal)
        index = goal.gfn >> 9 & 511
        if level == 2 and directory.is_table(index):
            level -= self._keeps_table(root, goal.gfn & -ENTRIES)
        if level == 2:
            return self._set_level_2(root, directory, index, goal)
        self._table(root, directory, index, goal)
        return self._set_level_1(root, directory, index, goal)

    def _keeps_table(self, root: TdpRoot, gfn: int) -> bool:
        """Return whether a table stays because of nx_huge_pages: disallowed_hugepage_adjust."""
        if self._rules.nx_keeps_tables:
            return self._arch.nx_huge_pages
        return (root.as_id << 48 | gfn) in self._arch.nx_splits

    def _level_3(self, root: TdpRoot, gfn: int) -> Upper:
        index = gfn >> 27 & 511
        below = root.top.entries.get(index)
        if below is None:
            base = gfn >> 27 << 27
            below = Upper(self._new_page(root, base, 3))
            root.top.entries[index] = below
            self._trace_table(root, base, 4, below.page)
        assert isinstance(below, Upper)
        return below

    def _directory(
        self, root: TdpRoot, upper: Upper, index: int, entry: object, goal: Goal
    ) -> Directory:
        if isinstance(entry, Directory):
            return entry
        base = goal.gfn >> 18 << 18
        if isinstance(entry, int):
            if self._splits(goal):
                return self.split_level_3(root, upper, index, base)
            old = self._values.huge(root.as_id, entry, base)
            self._remove(root, base, 3, old)
            del upper.entries[index]
        directory = Directory(self._new_page(root, base, 2, 1 + ENTRIES))
        upper.entries[index] = directory
        self._trace_table(root, base, 3, directory.page)
        self._account_nx(root, base, 3, goal)
        return directory

    def _table(self, root: TdpRoot, directory: Directory, index: int, goal: Goal) -> None:
        """Make a table of level 1 below an entry, unless there is one."""
        state = directory.state[index]
        if 0 < state < HUGE:
            return
        base = goal.gfn & -ENTRIES
        if state & HUGE:
            if self._splits(goal):
                self.split_level_2(root, directory, index, base)
                return
            self._remove(root, base, 2, self._values.huge(root.as_id, state, base))
        directory.state[index] = MIXED
        page = directory.page + 1 + index
        self._changes.trace_new_page(root.as_id, base, 1)
        self._trace_table(root, base, 2, page)
        self._account_nx(root, base, 2, goal)

    def _splits(self, goal: Goal) -> bool:
        """Return whether a large leaf in the way is split rather than zapped."""
        return self._rules.write_splits

    def _remove(self, root: TdpRoot, gfn: int, level: int, old: int) -> None:
        """Zap a large leaf in the way. Like tdp_mmu_zap_spte_atomic."""
        self._changes.trace(root.as_id, gfn, level, old, self._values.removed)
        self._changes.count(level, -1)
        self._arch.flush_remote_tlbs()

    def _account_nx(self, root: TdpRoot, gfn: int, level: int, goal: Goal) -> None:
        if goal.level < goal.asked and goal.asked >= level:
            self._arch.account_nx_huge_page(root.as_id << 48 | gfn)

    def _new_page(self, root: TdpRoot, gfn: int, level: int, number: int = 1) -> int:
        self._changes.trace_new_page(root.as_id, gfn, level)
        return self._tables.take_pages(number)

    def _trace_table(self, root: TdpRoot, gfn: int, level: int, page: int) -> None:
        values = self._values
        self._changes.trace(root.as_id, gfn, level, values.empty, values.table(page))

    def _set_level_3(self, root: TdpRoot, upper: Upper, index: int, goal: Goal) -> RetPf:
        base = goal.gfn >> 18 << 18
        bits = self._huge_bits(goal)
        old = self._values.entry(root.as_id, upper, index, base)
        below = upper.entries.get(index)
        upper.entries[index] = bits
        new = self._values.huge(root.as_id, bits, base)
        if not isinstance(below, int):
            self._changes.count(3, 1)
        self._changes.trace(root.as_id, base, 3, old, new)
        if isinstance(below, Directory):
            self._changes.take_down(root.as_id, below, base, 2, shared=True)
            self._arch.flush_remote_tlbs()
        return self._done(base, 3, new, entry_address(upper.page, index), changed=old != new)

    def _set_level_2(self, root: TdpRoot, directory: Directory, index: int, goal: Goal) -> RetPf:
        base = goal.gfn & -ENTRIES
        bits = self._huge_bits(goal)
        old = self._values.entry(root.as_id, directory, index, base)
        new = self._values.huge(root.as_id, bits, base)
        self._changes.trace(root.as_id, base, 2, old, new)
        if directory.is_table(index):
            self._changes.take_down_leaf(root.as_id, directory, index, base, shared=True)
            directory.leaves.pop(index, None)
            self._arch.flush_remote_tlbs()
        if not directory.state[index] & HUGE:
            self._changes.count(2, 1)
        directory.state[index] = bits
        return self._done(base, 2, new, entry_address(directory.page, index), changed=old != new)

    def _huge_bits(self, goal: Goal) -> int:
        bits = HUGE | (Huge.WRITABLE if goal.writable else Huge.READ_ONLY)
        return bits | (Huge.NO_EXEC if self._arch.nx_huge_pages else 0)

    def _set_level_1(self, root: TdpRoot, directory: Directory, index: int, goal: Goal) -> RetPf:
        place = goal.gfn & 511
        page = directory.page + 1 + index
        old = self._values.leaf(root.as_id, directory, index, place, goal.gfn)
        if goal.slot is not None and goal.writable:
            self._arch.mark_dirty(goal.slot, goal.gfn)
        if goal.mmio:
            self._set_mmio(directory, index, place, goal.mmio)
        else:
            self._set_leaf(directory, index, place, goal)
        new = self._values.leaf(root.as_id, directory, index, place, goal.gfn)
        self._changes.trace(root.as_id, goal.gfn, 1, old, new)
        if not goal.mmio:
            directory.pack(index)
            address = entry_address(page, place)
            return self._done(goal.gfn, 1, new, address, changed=old != new)
        goal.vcpu.stats.pf_mmio_spte_created += 1
        self._trace_mmio(goal, entry_address(page, place))
        return RetPf.EMULATE

    def _set_mmio(self, directory: Directory, index: int, place: int, value: int) -> None:
        leaf = directory.leaf(index)
        if leaf.present >> place & 1:
            leaf.forget(1 << place)
            self._changes.count(1, -1)
        leaf.mmio[place] = value

    def _set_leaf(self, directory: Directory, index: int, place: int, goal: Goal) -> None:
        leaf, bit = directory.leaf(index), 1 << place
        stale = leaf.mmio.pop(place, None)
        if not leaf.present & bit:
            self._changes.count(1, 1)
        leaf.forget(bit)
        leaf.present |= bit
        if goal.writable:
            leaf.writable |= bit
            assert goal.slot is not None
            if stale is not None:
                # make_spte stops before D where W was set, as it is in an MMIO spte.
                leaf.clean |= bit
        else:
            leaf.readonly |= bit

    def _trace_mmio(self, goal: Goal, address: int) -> None:
        if MarkMmioSpte in self._arch.bus.wanted:
            generation = self._arch.mmio_bits.unpack(goal.mmio)
            self._arch.bus.emit(
                MarkMmioSpte(sptep=address, gfn=goal.gfn, access=goal.mmio & 7, gen=generation)
            )

    def _done(self, gfn: int, level: int, value: int, address: int, *, changed: bool) -> RetPf:
        self.trace_set_spte(gfn, level, value, address)
        return RetPf.FIXED if changed else RetPf.SPURIOUS

    def trace_set_spte(self, gfn: int, level: int, value: int, address: int) -> None:
        """Emit kvm_mmu_set_spte for an spte of this value, if a listener wants it."""
        if KvmMmuSetSpte in self._arch.bus.wanted:
            self._arch.bus.emit(
                KvmMmuSetSpte(
                    gfn=gfn,
                    spte=value,
                    sptep=address,
                    level=level,
                    r=bool(value & P),
                    x=not value & NX,
                    u=int(bool(value & U)),
                )
            )

    def split_level_3(self, root: TdpRoot, upper: Upper, index: int, gfn: int) -> Directory:
        """Replace a leaf of 1 GiB by 512 of 2 MiB. Like tdp_mmu_split_huge_page."""
        bits = upper.entries[index]
        assert isinstance(bits, int)
        old = self._values.huge(root.as_id, bits, gfn)
        directory = Directory(self._new_page(root, gfn, 2, 1 + ENTRIES))
        directory.state = bytearray([bits]) * ENTRIES
        upper.entries[index] = directory
        self._changes.trace(root.as_id, gfn, 3, old, self._values.table(directory.page))
        self._changes.count(3, -1)
        self._changes.count(2, ENTRIES)
        self._trace_split(gfn, old, 3)
        return directory

    def split_level_2(self, root: TdpRoot, directory: Directory, index: int, gfn: int) -> None:
        """Replace a leaf of 2 MiB by 512 of 4 KiB, which are executable."""
        bits = directory.state[index]
        old = self._values.huge(root.as_id, bits, gfn)
        self._changes.trace_new_page(root.as_id, gfn, 1)
        table = self._values.table(directory.page + 1 + index)
        self._changes.trace(root.as_id, gfn, 2, old, table)
        directory.state[index] = FULL_RW if bits & Huge.WRITABLE else FULL_PROTECTED
        if bits & (Huge.READ_ONLY | Huge.CLEAN):
            leaf = directory.leaf(index)
            leaf.readonly = ALL if bits & Huge.READ_ONLY else 0
            leaf.clean = ALL if bits & Huge.CLEAN else 0
        self._changes.count(2, -1)
        self._changes.count(1, ENTRIES)
        self._trace_split(gfn, old, 2)

    def _trace_split(self, gfn: int, old: int, level: int) -> None:
        if KvmMmuSplitHugePage in self._arch.bus.wanted:
            self._arch.bus.emit(KvmMmuSplitHugePage(gfn=gfn, spte=old, level=level, errno=0))

"""Setting one leaf spte: permissions, write protection, the event, the rmap.

Like arch/x86/kvm/mmu/mmu.c:mmu_set_spte and spte.c:make_spte (v6.1).
"""

from __future__ import annotations

from fakesys.subsystems.kvm_mmu.events import catalog as trace
from fakesys.subsystems.kvm_mmu.ops.mmio import spte_address
from fakesys.subsystems.kvm_mmu.shadow.arch import Kit
from fakesys.subsystems.kvm_mmu.shadow.links import Tree
from fakesys.subsystems.kvm_mmu.shadow.pages import NONE, UNSYNC
from fakesys.subsystems.kvm_mmu.shadow.role import DIRECT, EXEC, LEVEL_MASK, USER, WRITE
from fakesys.subsystems.kvm_mmu.shadow.sptes import Leaf, level_size
from fakesys.subsystems.kvm_mmu.slots.memslots import Memslot, Memslots

P, W, U, A, D, LARGE = 1, 2, 4, 0x20, 0x40, 0x80
NX = 1 << 63


class SpteSetter:
    """Makes leaf sptes. `slots`: where their pfns come from."""

    def __init__(self, kit: Kit, tree: Tree, slots: Memslots) -> None:
        self._kit = kit
        self._pages = kit.pages
        self._sptes = kit.sptes
        self._tree = tree
        self._slots = slots

    def set(
        self,
        slot: Memslot,
        row: int,
        index: int,
        gfn: int,
        access: int,
        *,
        writable: bool = True,
        prefetch: bool = False,
    ) -> tuple[bool, bool]:
        """Map `gfn`. `writable`: the host may write to the page.

        Answers whether the spte changed, and whether it had to be write-protected because the
        page is a table that is shadowed.
        """
        if self._kit.nx_huge_pages and self._pages.role[row] & LEVEL_MASK > 1:
            access &= ~EXEC
        bit = 1 << index
        leaf = self._sptes.leaf(row)
        flush, known = self._make_room(leaf, row, index, gfn)
        before = _state(leaf, bit)
        protected = False
        if access & WRITE and not leaf.writable & bit and self._tree.tracked.indirect:
            protected = not self._try_unsync(gfn, prefetch)
            if protected:
                access &= ~WRITE
        _apply(leaf, bit, access, writable=writable, prefetch=prefetch)
        if leaf.mmio:
            leaf.mmio.pop(index, None)
        if access & WRITE:
            slot.mark_dirty(gfn)
        if not known:
            self._add(row, index, gfn)
        changed = not known or before != _state(leaf, bit)
        if changed and trace.KvmMmuSetSpte in self._kit.bus.wanted:
            self.tell(row, index, gfn, self.value(row, index))
        lost_w = before[0] and not leaf.writable & bit
        if flush or lost_w:
            self._kit.flush_remote_tlbs()
        self._sptes.settle(row)
        return changed, protected

    def value(self, row: int, index: int) -> int:
        """The spte as a number; 0 when it is not present."""
        leaf, bit = self._sptes.leaf(row), 1 << index
        if not leaf.present & bit:
            return 0
        kinds = self._kit.policy.spte
        level = self._pages.role[row] & LEVEL_MASK
        gfn = self.gfn_of(row, index)
        slot = self._slots.find(gfn)
        word = P | kinds.mmu_present | (0 if slot is None else self.pfn(slot, gfn) << 12)
        word |= LARGE if level > 1 else 0
        word |= W if leaf.writable & bit else 0
        word |= 0 if leaf.no_user & bit else U
        word |= A if leaf.accessed & bit else 0
        word |= D if leaf.dirty & bit else 0
        word |= NX if leaf.no_exec & bit else 0
        word |= 0 if leaf.host_ro & bit else kinds.host_writable
        return word | (0 if (leaf.sealed | leaf.host_ro) & bit else kinds.mmu_writable)

    def gfn_of(self, row: int, index: int) -> int:
        """The first gfn that an spte maps."""
        leaf = self._sptes.leaves.get(row)
        if leaf is not None and leaf.gfns is not None:
            return leaf.gfns[index]
        return self._pages.gfn[row] + index * level_size(self._pages.role[row] & LEVEL_MASK)

    @staticmethod
    def pfn(slot: Memslot, gfn: int) -> int:
        """The host page behind a gfn; 0 where there is none."""
        return 0 if slot.memory is None else slot.memory.pfn + slot.page(gfn)

    def tell(self, row: int, index: int, gfn: int, value: int) -> None:
        """The event of an spte that was set."""
        if trace.KvmMmuSetSpte not in self._kit.bus.wanted:
            return
        event = trace.KvmMmuSetSpte(
            gfn=gfn,
            spte=value,
            sptep=spte_address(row, index),
            level=self._pages.role[row] & LEVEL_MASK,
            r=bool(value & P),
            x=not value & NX,
            u=int(bool(value & U)),
        )
        self._kit.bus.emit(event)

    def _make_room(self, leaf: Leaf, row: int, index: int, gfn: int) -> tuple[bool, bool]:
        """Clear what is there unless it maps `gfn`: must others flush, and was it that gfn?"""
        if leaf.present >> index & 1:
            if leaf.gfns is None or leaf.gfns[index] == gfn:
                return False, True
            self._sptes.drop(row, 1 << index)
            return True, False
        if self._tree.child(row, index) != NONE:
            self._tree.unlink(row, index)
            return True, False
        return False, False

    def _add(self, row: int, index: int, gfn: int) -> None:
        if not self._kit.knobs.tdp:
            level = self._pages.role[row] & LEVEL_MASK
            before = len(self._sptes.mappings(gfn, level))
            stats = self._kit.stats
            stats.max_mmu_rmap_size = max(stats.max_mmu_rmap_size, before)
        self._sptes.add(row, index, gfn)

    def _try_unsync(self, gfn: int, prefetch: bool) -> bool:
        """May the guest write to this gfn? Its tables there become unsync.

        Like mmu.c:mmu_try_to_unsync_pages (v6.1), mmu_need_write_protect (v5.4).
        """
        if self._tree.tracked.is_tracked(gfn):
            return False
        for row in self._pages.at(gfn):
            if self._pages.role[row] & DIRECT or self._pages.flags[row] & UNSYNC:
                continue
            if prefetch:
                return False
            self._tree.unsync(row)
        return True


def _state(leaf: Leaf, bit: int) -> tuple[int, ...]:
    return (
        leaf.writable & bit,
        leaf.sealed & bit,
        leaf.host_ro & bit,
        leaf.accessed & bit,
        leaf.no_exec & bit,
        leaf.no_user & bit,
    )


def _apply(leaf: Leaf, bit: int, access: int, *, writable: bool, prefetch: bool) -> None:
    keep = ~bit
    if access & WRITE:
        leaf.writable |= bit
        leaf.dirty |= bit
        leaf.sealed &= keep
    else:
        leaf.writable &= keep
        leaf.dirty &= keep
        leaf.sealed |= bit
    leaf.accessed = leaf.accessed & keep if prefetch else leaf.accessed | bit
    leaf.host_ro = leaf.host_ro & keep if writable else leaf.host_ro | bit
    leaf.no_exec = leaf.no_exec & keep if access & EXEC else leaf.no_exec | bit
    leaf.no_user = leaf.no_user & keep if access & USER else leaf.no_user | bit

"""Setting one leaf spte: permissions, write protection, the tracepoint, the rmap.

Like arch/x86/kvm/mmu/mmu.c:mmu_set_spte and spte.c:make_spte (v6.1).
"""

from __future__ import annotations

from fakesys.subsystems.kvm_mmu.events.sptes import KvmMmuSetSpte
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.links import ShadowLinks
from fakesys.subsystems.kvm_mmu.shadow.pages import NONE, UNSYNC
from fakesys.subsystems.kvm_mmu.shadow.role import DIRECT, EXEC, LEVEL_MASK, USER, WRITE, as_id_of
from fakesys.subsystems.kvm_mmu.shadow.sptes import Leaf, spte_address
from fakesys.subsystems.kvm_mmu.slots.memslots import AddressSpaces, Memslot

P, W, U, A, D, LARGE = 1, 2, 4, 0x20, 0x40, 0x80
NX = 1 << 63


class SpteSetter:
    """Makes leaf sptes. `spaces`: where their host pages come from."""

    def __init__(self, arch: MmuArch, links: ShadowLinks, spaces: AddressSpaces) -> None:
        self._arch = arch
        self._pages = arch.pages
        self._sptes = arch.sptes
        self._links = links
        self._spaces = spaces

    def set_spte(
        self,
        slot: Memslot,
        row: int,
        index: int,
        gfn: int,
        access: int,
        *,
        host_writable: bool = True,
        prefetch: bool = False,
    ) -> tuple[bool, bool]:
        """Map `gfn` by an spte. Like mmu.c:mmu_set_spte (v6.1).

        `host_writable`: the host may write to the page. `prefetch`: the guest did not ask for it.
        Return whether the spte changed, and whether it had to be write-protected because the page
        is a guest table that is shadowed. Flush remote TLBs if a translation was taken away.
        """
        if self._arch.nx_huge_pages and self._pages.role[row] & LEVEL_MASK > 1:
            access &= ~EXEC
        bit = 1 << index
        leaf = self._sptes.leaf(row)
        flush, known = self._make_room(leaf, row, index, gfn)
        before = _state(leaf, bit)
        write_protected = self._must_write_protect(leaf, bit, gfn, access, prefetch=prefetch)
        if write_protected:
            access &= ~WRITE
        _make_spte(leaf, bit, access, host_writable=host_writable, prefetch=prefetch)
        if leaf.mmio:
            leaf.mmio.pop(index, None)
        if access & WRITE:
            self._arch.mark_dirty(slot, gfn)
        if not known:
            self._rmap_add(row, index, gfn)
        changed = not known or before != _state(leaf, bit)
        if changed:
            self._trace_changed(row, index, gfn)
        if flush or (before[0] and not leaf.writable & bit):
            self._arch.flush_remote_tlbs()
        self._sptes.pack(row)
        return changed, write_protected

    def value(self, row: int, index: int) -> int:
        """Return the spte as a number; 0 if it is not present."""
        leaf, bit = self._sptes.leaf(row), 1 << index
        if not leaf.present & bit:
            return 0
        kinds = self._arch.policy.spte
        level = self._pages.role[row] & LEVEL_MASK
        gfn = self._sptes.gfn_of(row, index)
        slot = self._spaces.memslots[as_id_of(self._pages.role[row])].find(gfn)
        word = P | kinds.mmu_present | (0 if slot is None else self.pfn(slot, gfn) << 12)
        word |= LARGE if level > 1 else 0
        word |= W if leaf.writable & bit else 0
        word |= 0 if leaf.no_user & bit else U
        word |= A if leaf.accessed & bit else 0
        word |= D if leaf.dirty & bit else 0
        word |= NX if leaf.no_exec & bit else 0
        word |= 0 if leaf.host_readonly & bit else kinds.host_writable
        return word | (0 if (leaf.mmu_readonly | leaf.host_readonly) & bit else kinds.mmu_writable)

    @staticmethod
    def pfn(slot: Memslot, gfn: int) -> int:
        """Return the host page behind a gfn; 0 where there is none."""
        return 0 if slot.memory is None else slot.memory.pfn_of(slot.page(gfn))

    def trace_set_spte(self, row: int, index: int, gfn: int, value: int) -> None:
        """Emit kvm_mmu_set_spte for an spte of this value, if a listener wants it."""
        if KvmMmuSetSpte not in self._arch.bus.wanted:
            return
        event = KvmMmuSetSpte(
            gfn=gfn,
            spte=value,
            sptep=spte_address(row, index),
            level=self._pages.role[row] & LEVEL_MASK,
            r=bool(value & P),
            x=not value & NX,
            u=int(bool(value & U)),
        )
        self._arch.bus.emit(event)

    def _trace_changed(self, row: int, index: int, gfn: int) -> None:
        # Checked before `value`, which costs more than the rest.
        if KvmMmuSetSpte in self._arch.bus.wanted:
            self.trace_set_spte(row, index, gfn, self.value(row, index))

    def _make_room(self, leaf: Leaf, row: int, index: int, gfn: int) -> tuple[bool, bool]:
        """Clear the entry unless it maps `gfn`.

        Return whether remote TLBs must be flushed, and whether the entry maps that gfn already.
        """
        if leaf.present >> index & 1:
            if leaf.gfns is None or leaf.gfns[index] == gfn:
                return False, True
            self._sptes.drop(row, 1 << index)
            return True, False
        if self._links.child(row, index) != NONE:
            self._links.unlink(row, index)
            return True, False
        return False, False

    def _rmap_add(self, row: int, index: int, gfn: int) -> None:
        if not self._arch.knobs.tdp:
            level = self._pages.role[row] & LEVEL_MASK
            before = len(self._sptes.mappings(gfn, level))
            stats = self._arch.stats
            stats.max_mmu_rmap_size = max(stats.max_mmu_rmap_size, before)
        self._sptes.add(row, index, gfn)

    def _must_write_protect(
        self, leaf: Leaf, bit: int, gfn: int, access: int, *, prefetch: bool
    ) -> bool:
        if not access & WRITE or leaf.writable & bit:
            return False
        if not self._links.write_tracking.indirect_shadow_pages:
            return False
        return not self._try_unsync(gfn, prefetch)

    def _try_unsync(self, gfn: int, prefetch: bool) -> bool:
        """Return whether the guest may write to this gfn; its shadowed tables there become unsync.

        Like mmu.c:mmu_try_to_unsync_pages (v6.1), mmu_need_write_protect (v5.4).
        """
        if self._links.write_tracking.is_write_tracked(gfn):
            return False
        for row in self._pages.at(gfn):
            if self._pages.role[row] & DIRECT or self._pages.flags[row] & UNSYNC:
                continue
            if prefetch:
                return False
            self._links.unsync(row)
        return True


def _state(leaf: Leaf, bit: int) -> tuple[int, ...]:
    return (
        leaf.writable & bit,
        leaf.mmu_readonly & bit,
        leaf.host_readonly & bit,
        leaf.accessed & bit,
        leaf.no_exec & bit,
        leaf.no_user & bit,
    )


def _make_spte(leaf: Leaf, bit: int, access: int, *, host_writable: bool, prefetch: bool) -> None:
    keep = ~bit
    if access & WRITE:
        leaf.writable |= bit
        leaf.dirty |= bit
        leaf.mmu_readonly &= keep
    else:
        leaf.writable &= keep
        leaf.dirty &= keep
        leaf.mmu_readonly |= bit
    leaf.accessed = leaf.accessed & keep if prefetch else leaf.accessed | bit
    leaf.host_readonly = leaf.host_readonly & keep if host_writable else leaf.host_readonly | bit
    leaf.no_exec = leaf.no_exec & keep if access & EXEC else leaf.no_exec | bit
    leaf.no_user = leaf.no_user & keep if access & USER else leaf.no_user | bit

"""MMIO: sptes that remember that a page has no memory behind it, and their generation."""

from __future__ import annotations

from collections.abc import Callable

from fakesys.core.tracepoint import hashed
from fakesys.subsystems.kvm_mmu.events import catalog as trace
from fakesys.subsystems.kvm_mmu.ops.roots import MmioCache, VcpuMmu
from fakesys.subsystems.kvm_mmu.shadow.arch import Kit
from fakesys.subsystems.kvm_mmu.shadow.role import LEVEL_MASK
from fakesys.subsystems.kvm_mmu.shadow.sptes import level_size
from fakesys.subsystems.kvm_mmu.slots.memslots import UPDATE_IN_PROGRESS, Memslots

# Bit 51 is reserved on a processor of fewer physical bits: mmu.c:kvm_set_mmio_spte_mask.
MMIO_VALUE = 1 << 51 | 1
_ACCESS_BITS = 3


class Mmio:
    """MMIO sptes of a VM. `slots`: address space 0, whose generation they carry."""

    def __init__(self, kit: Kit, slots: Memslots) -> None:
        self._kit = kit
        self._slots = slots

    @property
    def generation(self) -> int:
        """The generation as a new MMIO spte would carry it."""
        return self._slots.generation & self._kit.mmio_bits.mask

    def mark(self, row: int, index: int, gfn: int, access: int) -> None:
        """Make an MMIO spte. Like mmu.c:mark_mmio_spte."""
        leaf = self._kit.sptes.leaf(row)
        if leaf.mmio is None:
            leaf.mmio = {}
        if leaf.gfns is not None:
            leaf.gfns[index] = gfn
        leaf.mmio[index] = self.generation << _ACCESS_BITS | access
        if trace.MarkMmioSpte in self._kit.bus.wanted:
            event = trace.MarkMmioSpte(
                sptep=spte_address(row, index), gfn=gfn, access=access, gen=self.generation
            )
            self._kit.bus.emit(event)

    def is_marked(self, row: int, index: int) -> bool:
        """Is the entry an MMIO spte, of whatever generation?"""
        leaf = self._kit.sptes.leaves.get(row)
        return leaf is not None and leaf.mmio is not None and index in leaf.mmio

    def hit(self, vcpu: VcpuMmu, row: int, index: int, address: int) -> bool:
        """A fault on an MMIO spte: does it still hold? Like mmu.c:handle_mmio_page_fault."""
        if self._slots.generation & UPDATE_IN_PROGRESS:
            return False
        leaf = self._kit.sptes.leaves[row]
        assert leaf.mmio is not None
        generation, access = divmod(leaf.mmio[index], 1 << _ACCESS_BITS)
        if trace.CheckMmioSpte in self._kit.bus.wanted:
            event = trace.CheckMmioSpte(
                kvm_gen=self.generation, spte_gen=generation, spte=self.value(row, index)
            )
            self._kit.bus.emit(event)
        if generation != self.generation:
            return False
        gfn = self._gfn(row, index)
        if trace.HandleMmioPageFault in self._kit.bus.wanted:
            self._kit.bus.emit(trace.HandleMmioPageFault(addr=address, gfn=gfn, access=access))
        self.remember(vcpu, address, gfn)
        return True

    def value(self, row: int, index: int) -> int:
        """The spte as a number."""
        leaf = self._kit.sptes.leaves[row]
        assert leaf.mmio is not None
        generation, access = divmod(leaf.mmio[index], 1 << _ACCESS_BITS)
        # Access is kept in the bits of W and U, which mean nothing in an MMIO spte.
        bits = MMIO_VALUE | access & 0b110 | self._gfn(row, index) << 12
        return bits | self._kit.mmio_bits.pack(generation)

    def remember(self, vcpu: VcpuMmu, gva: int, gfn: int) -> None:
        """Fill the vCPU's cache of one page. Like x86.h:vcpu_cache_mmio_info."""
        if not self._slots.generation & UPDATE_IN_PROGRESS:
            vcpu.mmio = MmioCache(gva & -4096, gfn, self._slots.generation)

    def match_gva(self, vcpu: VcpuMmu, gva: int) -> int | None:
        """The guest physical address of an address whose page is cached as MMIO."""
        cache = vcpu.mmio
        if cache is None or cache.generation != self._slots.generation or not cache.gva:
            return None
        return cache.gfn << 12 | gva & 0xFFF if cache.gva == gva & -4096 else None

    def match_gpa(self, vcpu: VcpuMmu, gpa: int) -> bool:
        """Is the page of a guest physical address cached as MMIO?"""
        cache = vcpu.mmio
        if cache is None or cache.generation != self._slots.generation:
            return False
        return cache.gfn != 0 and cache.gfn == gpa >> 12

    def invalidate(self, generation: int, as_num: int, zap: Callable[[], None]) -> None:
        """A new generation is in use: zap if it looks like an old one.

        Like mmu.c:kvm_mmu_invalidate_mmio_sptes.
        """
        if not generation & self._kit.mmio_bits.mask & ~(as_num - 1):
            zap()

    def _gfn(self, row: int, index: int) -> int:
        pages, leaf = self._kit.pages, self._kit.sptes.leaves[row]
        if leaf.gfns is not None:
            return leaf.gfns[index]
        return pages.gfn[row] + index * level_size(pages.role[row] & LEVEL_MASK)


def spte_address(row: int, index: int) -> int:
    """Where in host memory the entry is: tables lie one after the other."""
    return SPT_BASE + row * 4096 + index * 8


SPT_BASE = 0x8000_0000
__all__ = ["Mmio", "hashed", "spte_address"]

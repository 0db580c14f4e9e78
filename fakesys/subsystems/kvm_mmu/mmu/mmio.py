"""MMIO sptes, which record that a gfn has no memory behind it, and their generation."""

from __future__ import annotations

from collections.abc import Callable

from fakesys.subsystems.kvm_mmu.events.walk import CheckMmioSpte, HandleMmioPageFault, MarkMmioSpte
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.role import ALL_ACCESS
from fakesys.subsystems.kvm_mmu.shadow.sptes import spte_address
from fakesys.subsystems.kvm_mmu.shadow.vcpu import MmioCache, VcpuMmu
from fakesys.subsystems.kvm_mmu.slots.memslots import UPDATE_IN_PROGRESS, AddressSpaces, Memslots

# Bit 51 is reserved on a processor of fewer physical bits: mmu.c:kvm_set_mmio_spte_mask.
MMIO_VALUE = 1 << 51 | 1
_ACCESS_BITS = 3
# Access is kept in the bits of W and U, which mean nothing in an MMIO spte.
_KEPT_ACCESS = 0b110


class Mmio:
    """MMIO sptes of a VM, and the vCPUs' caches of the last MMIO page.

    `slots`: address space 0, whose generation the sptes carry.
    """

    def __init__(self, arch: MmuArch, spaces: AddressSpaces) -> None:
        self._arch = arch
        self._spaces = spaces
        self._slots = spaces.memslots[0]

    @property
    def generation(self) -> int:
        """The memslot generation as a new MMIO spte would carry it."""
        return self._slots.generation & self._arch.mmio_bits.mask

    def mark_spte(self, row: int, index: int, gfn: int, access: int) -> None:
        """Make an MMIO spte. Like mmu.c:mark_mmio_spte."""
        leaf = self._arch.sptes.leaf(row)
        if leaf.mmio is None:
            leaf.mmio = {}
        if leaf.gfns is not None:
            leaf.gfns[index] = gfn
        leaf.mmio[index] = self.generation << _ACCESS_BITS | access
        if MarkMmioSpte in self._arch.bus.wanted:
            event = MarkMmioSpte(
                sptep=spte_address(row, index), gfn=gfn, access=access, gen=self.generation
            )
            self._arch.bus.emit(event)

    def handle_page_fault(self, vcpu: VcpuMmu, row: int, index: int, address: int) -> bool:
        """Return whether the MMIO spte that faulted is still valid; if so, fill the vCPU's cache.

        Like mmu.c:handle_mmio_page_fault. Precondition: the entry is an MMIO spte.
        """
        leaf = self._arch.sptes.leaves[row]
        assert leaf.mmio is not None
        gfn = self._arch.sptes.gfn_of(row, index)
        return self.handle_spte(vcpu, self.value(row, index), gfn, address)

    def handle_spte(self, vcpu: VcpuMmu, spte: int, gfn: int, address: int) -> bool:
        """Do `handle_page_fault` for an MMIO spte of this value."""
        slots = self._slots_of(vcpu)
        if slots.generation & UPDATE_IN_PROGRESS:
            return False
        now = slots.generation & self._arch.mmio_bits.mask
        generation = self._arch.mmio_bits.unpack(spte)
        if CheckMmioSpte in self._arch.bus.wanted:
            self._arch.bus.emit(CheckMmioSpte(kvm_gen=now, spte_gen=generation, spte=spte))
        if generation != now:
            return False
        if HandleMmioPageFault in self._arch.bus.wanted:
            access = spte & _KEPT_ACCESS
            self._arch.bus.emit(HandleMmioPageFault(addr=address, gfn=gfn, access=access))
        self.cache_info(vcpu, address, gfn)
        return True

    def new_spte(self, vcpu: VcpuMmu, gfn: int, access: int) -> int:
        """Return an MMIO spte of the present generation. Like spte.c:make_mmio_spte (v6.1)."""
        generation = self._slots_of(vcpu).generation & self._arch.mmio_bits.mask
        return mmio_spte(self._arch, gfn, generation, access)

    def _slots_of(self, vcpu: VcpuMmu) -> Memslots:
        return self._spaces.memslots[vcpu.as_id]

    def value(self, row: int, index: int) -> int:
        """Return the MMIO spte as a number."""
        leaf = self._arch.sptes.leaves[row]
        assert leaf.mmio is not None
        generation, access = divmod(leaf.mmio[index], 1 << _ACCESS_BITS)
        bits = MMIO_VALUE | access & _KEPT_ACCESS | self._arch.sptes.gfn_of(row, index) << 12
        return bits | self._arch.mmio_bits.pack(generation)

    def cache_info(self, vcpu: VcpuMmu, gva: int, gfn: int) -> None:
        """Fill the vCPU's cache of one page. Like x86.h:vcpu_cache_mmio_info."""
        generation = self._slots_of(vcpu).generation
        if not generation & UPDATE_IN_PROGRESS:
            vcpu.mmio = MmioCache(gva & -4096, gfn, generation)

    def match_gva(self, vcpu: VcpuMmu, gva: int) -> int | None:
        """Return the guest physical address if the page is cached as MMIO, else None."""
        cache = vcpu.mmio
        if cache is None or cache.generation != self._slots_of(vcpu).generation or not cache.gva:
            return None
        return cache.gfn << 12 | gva & 0xFFF if cache.gva == gva & -4096 else None

    def match_gpa(self, vcpu: VcpuMmu, gpa: int) -> bool:
        """Return whether the page of a guest physical address is cached as MMIO."""
        cache = vcpu.mmio
        if cache is None or cache.generation != self._slots_of(vcpu).generation:
            return False
        return cache.gfn != 0 and cache.gfn == gpa >> 12

    def invalidate(self, generation: int, as_num: int, zap: Callable[[], None]) -> None:
        """Call `zap` if the new generation, cut to the bits of an spte, could equal an old one.

        Like mmu.c:kvm_mmu_invalidate_mmio_sptes.
        """
        if not generation & self._arch.mmio_bits.mask & ~(as_num - 1):
            zap()


def mmio_spte(arch: MmuArch, gfn: int, generation: int, access: int = ALL_ACCESS) -> int:
    """Return an MMIO spte. Like spte.c:make_mmio_spte (v6.1)."""
    return MMIO_VALUE | access & _KEPT_ACCESS | gfn << 12 | arch.mmio_bits.pack(generation)

"""The MMU notifier: the host takes pages away, or changes what may be done with them."""

from __future__ import annotations

from collections.abc import Iterable
from errno import ECHILD, EINVAL

from fakesys.core.errors import KernelError
from fakesys.subsystems.kvm.events.memory import KvmSetSpteHva, KvmUnmapHvaRange
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.slots.host import PAGE, HostMemory
from fakesys.subsystems.kvm_mmu.slots.memslots import AddressSpaces
from fakesys.subsystems.kvm_mmu.tdp.zap import TdpZapper


class MmuNotifier:
    """Drops the sptes that map what the host invalidates. Tables stay."""

    def __init__(self, arch: MmuArch, spaces: AddressSpaces) -> None:
        self._arch = arch
        self._spaces = spaces
        self._zapper: TdpZapper | None = None
        # Children that share memory with the owner.
        self.children = 0

    def also_unmaps(self, zapper: TdpZapper) -> None:
        """Drop what the TDP MMU maps, too."""
        self._zapper = zapper

    def invalidate(self, memory: HostMemory, offset: int, size: int) -> None:
        """Drop the sptes of a range of host memory. Raises EINVAL unless it is whole pages of it.

        Like kvm_main.c:kvm_mmu_notifier_invalidate_range_start and mmu.c:kvm_unmap_gfn_range.
        """
        _check_range(memory, offset, size)
        start, end = memory.hva + offset, memory.hva + offset + size
        if KvmUnmapHvaRange in self._arch.bus.wanted:
            self._arch.bus.emit(KvmUnmapHvaRange(start=start, end=end))
        self._arch.notifier_seq += 1
        dropped = False
        with self._arch.mmu_lock:
            for slot in self._spaces.in_order:
                low = max(start, slot.userspace_addr)
                high = min(end, slot.userspace_addr + slot.npages * PAGE)
                if low < high:
                    gfn = slot.base_gfn + (low - slot.userspace_addr) // PAGE
                    dropped |= self._unmap(slot.as_id, gfn, (high - low) // PAGE)
            if dropped:
                self._arch.flush_remote_tlbs()

    def _unmap(self, as_id: int, gfn: int, npages: int) -> bool:
        if self._zapper is not None:
            return self._zapper.unmap(as_id, gfn, npages)
        return self._arch.sptes.drop_range(gfn, npages, as_id) > 0

    def copy_page(self, memory: HostMemory, page: int) -> bool:
        """Make a page writable: copy it if it is shared or the zero page.

        Return whether the sptes of it were dropped for that. Like mm/memory.c:wp_page_copy (v6.1).
        """
        copied = memory.is_copied(page) and (self.children > 0 or not memory.is_shared(page))
        if copied:
            self.invalidate(memory, page * PAGE, PAGE)
            if KvmSetSpteHva in self._arch.bus.wanted:
                self._arch.bus.emit(KvmSetSpteHva(hva=memory.hva + page * PAGE))
        memory.fault_in(page)
        return copied

    def fork(self, memories: Iterable[HostMemory]) -> None:
        """Share all memory with a child: fork(2). The mappings made last lie lowest."""
        for memory in memories:
            self.invalidate(memory, 0, memory.size)
            memory.share()
        self.children += 1

    def end_child(self) -> None:
        """End a child: what it alone shared with the owner is the owner's. Raises ECHILD."""
        if not self.children:
            raise KernelError(ECHILD, "there is no child")
        self.children -= 1

    def collapse(self, memory: HostMemory, offset: int, size: int) -> None:
        """Put pages of 2 MiB in place of small ones: madvise(MADV_COLLAPSE). Raises EINVAL."""
        _check_range(memory, offset, size)
        if not memory.is_all_large(offset // PAGE, size // PAGE):
            self.invalidate(memory, offset, size)
        memory.collapse(offset // PAGE, size // PAGE)

    def munmap(self, memory: HostMemory, offset: int, size: int) -> None:
        """Take the pages away for good: munmap(2). Raises EINVAL."""
        self.invalidate(memory, offset, size)
        memory.munmap(offset // PAGE, size // PAGE)

    def unmap(self, memory: HostMemory, offset: int, size: int) -> None:
        """Take the pages away until they are faulted in: madvise(MADV_DONTNEED). Raises EINVAL."""
        self.invalidate(memory, offset, size)
        memory.unmap(offset // PAGE, size // PAGE)

    def protect(self, memory: HostMemory, offset: int, size: int, *, writable: bool) -> None:
        """Let the host only read, or write again: mprotect(2). Raises EINVAL."""
        self.invalidate(memory, offset, size)
        memory.protect(offset // PAGE, size // PAGE, writable=writable)


def _check_range(memory: HostMemory, offset: int, size: int) -> None:
    if offset % PAGE or size % PAGE or not size or offset + size > memory.size:
        raise KernelError(EINVAL, f"{offset:#x}+{size:#x} are not pages of {memory.name}")

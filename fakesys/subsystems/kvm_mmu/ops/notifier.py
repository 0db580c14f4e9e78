"""The mmu notifier: the host takes pages away, or changes what may be done with them."""

from __future__ import annotations

from errno import EINVAL

from fakesys.core.errors import KernelError
from fakesys.subsystems.kvm.events.memory import KvmUnmapHvaRange
from fakesys.subsystems.kvm_mmu.shadow.arch import Kit
from fakesys.subsystems.kvm_mmu.slots.host import PAGE, HostMemory
from fakesys.subsystems.kvm_mmu.slots.memslots import AddressSpaces


class Notifier:
    """Drops the sptes of what the host invalidates. Tables stay."""

    def __init__(self, kit: Kit, spaces: AddressSpaces) -> None:
        self._kit = kit
        self._spaces = spaces

    def invalidate(self, memory: HostMemory, offset: int, size: int) -> None:
        """The host invalidates a range. Raises EINVAL.

        Like kvm_main.c:kvm_mmu_notifier_invalidate_range_start and mmu.c:kvm_unmap_gfn_range.
        """
        _check_range(memory, offset, size)
        start, end = memory.hva + offset, memory.hva + offset + size
        if KvmUnmapHvaRange in self._kit.bus.wanted:
            self._kit.bus.emit(KvmUnmapHvaRange(start=start, end=end))
        self._kit.notifier_seq += 1
        dropped = 0
        for slot in self._spaces.mappable:
            low = max(start, slot.userspace_addr)
            high = min(end, slot.userspace_addr + slot.npages * PAGE)
            if low < high:
                gfn = slot.base_gfn + (low - slot.userspace_addr) // PAGE
                dropped += self._kit.sptes.drop_range(gfn, (high - low) // PAGE)
        if dropped:
            self._kit.flush_remote_tlbs()

    def unmap(self, memory: HostMemory, offset: int, size: int) -> None:
        """madvise(MADV_DONTNEED): the pages are gone until somebody touches them."""
        self.invalidate(memory, offset, size)
        memory.unmap(offset // PAGE, size // PAGE)

    def protect(self, memory: HostMemory, offset: int, size: int, *, writable: bool) -> None:
        """mprotect: the host may only read, or also write, from now on."""
        self.invalidate(memory, offset, size)
        memory.protect(offset // PAGE, size // PAGE, writable=writable)


def _check_range(memory: HostMemory, offset: int, size: int) -> None:
    if offset % PAGE or size % PAGE or not size or offset + size > memory.size:
        raise KernelError(EINVAL, f"{offset:#x}+{size:#x} are not pages of {memory.name}")

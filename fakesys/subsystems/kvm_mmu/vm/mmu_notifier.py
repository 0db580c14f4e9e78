"""The MMU notifier: the host takes pages away, or changes what may be done with them."""

from __future__ import annotations

from errno import EINVAL

from fakesys.core.errors import KernelError
from fakesys.subsystems.kvm.events.memory import KvmUnmapHvaRange
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.slots.host import PAGE, HostMemory
from fakesys.subsystems.kvm_mmu.slots.memslots import AddressSpaces


class MmuNotifier:
    """Drops the sptes that map what the host invalidates. Tables stay."""

    def __init__(self, arch: MmuArch, spaces: AddressSpaces) -> None:
        self._arch = arch
        self._spaces = spaces

    def invalidate(self, memory: HostMemory, offset: int, size: int) -> None:
        """Drop the sptes of a range of host memory. Raises EINVAL unless it is whole pages of it.

        Like kvm_main.c:kvm_mmu_notifier_invalidate_range_start and mmu.c:kvm_unmap_gfn_range.
        """
        _check_range(memory, offset, size)
        start, end = memory.hva + offset, memory.hva + offset + size
        if KvmUnmapHvaRange in self._arch.bus.wanted:
            self._arch.bus.emit(KvmUnmapHvaRange(start=start, end=end))
        self._arch.notifier_seq += 1
        dropped = 0
        with self._arch.mmu_lock:
            for slot in self._spaces.mappable:
                low = max(start, slot.userspace_addr)
                high = min(end, slot.userspace_addr + slot.npages * PAGE)
                if low < high:
                    gfn = slot.base_gfn + (low - slot.userspace_addr) // PAGE
                    dropped += self._arch.sptes.drop_range(gfn, (high - low) // PAGE)
            if dropped:
                self._arch.flush_remote_tlbs()

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

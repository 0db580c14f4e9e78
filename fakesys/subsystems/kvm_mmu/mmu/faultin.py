"""The host page behind a gfn. Like mmu.c:kvm_faultin_pfn, kvm_main.c:hva_to_pfn (v6.1)."""

from __future__ import annotations

from collections.abc import Callable

from fakesys.subsystems.kvm_mmu.mmu.fast_page_fault import RetPf
from fakesys.subsystems.kvm_mmu.shadow.walk import PF_WRITE
from fakesys.subsystems.kvm_mmu.slots.host import HostMemory
from fakesys.subsystems.kvm_mmu.slots.memslots import Memslot

# Copies a page before it is written; returns whether the notifier was called.
CopyPage = Callable[[HostMemory, int], bool]


class HostFaults:
    """Faults host pages in."""

    def __init__(self, copy_page: CopyPage) -> None:
        self._copy_page = copy_page

    def fault_in(self, slot: Memslot | None, gfn: int, error: int) -> bool | RetPf:
        """Get the host page and return whether it is writable; a RetPf ends the fault here."""
        if slot is None:
            return True
        if slot.read_only and error & PF_WRITE:
            return RetPf.EMULATE
        if slot.invalid:
            return RetPf.RETRY
        if slot.memory is None or not slot.backed(gfn):
            return RetPf.FAILED
        page = slot.page(gfn)
        writable = not slot.memory.is_read_only(page)
        if error & PF_WRITE:
            if not writable:
                return RetPf.FAILED
            if not slot.memory.is_writable(page) and self._copy_page(slot.memory, page):
                # The notifier was called meanwhile: mmu.c:is_page_fault_stale.
                return RetPf.RETRY
        elif slot.memory.is_gone(page):
            slot.memory.fault_in(page, write=False)
            writable = False
        elif slot.memory.is_copied(page):
            writable = False
        return writable and not slot.read_only

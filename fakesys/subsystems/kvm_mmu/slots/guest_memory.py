"""Guest physical memory as KVM itself reads and writes it.

Follows kvm_main.c:kvm_read_guest_page, kvm_write_guest_page (v6.1).
"""

from __future__ import annotations

from fakesys.subsystems.kvm_mmu.slots.memslots import Memslots


class GuestMemory:
    """Guest physical memory of address space 0. Every access lies within one page."""

    def __init__(self, slots: Memslots) -> None:
        self._slots = slots

    def read(self, gpa: int, size: int) -> bytes | None:
        """Return bytes, or None where there is no memory."""
        gfn = gpa >> 12
        slot = self._slots.find(gfn)
        if slot is None or slot.memory is None or slot.invalid or not slot.backed(gfn):
            return None
        return slot.memory.read(slot.page(gfn) << 12 | gpa & 0xFFF, size)

    def write(self, gpa: int, data: bytes) -> bool:
        """Write bytes and mark the page dirty; return False where that is not possible."""
        gfn = gpa >> 12
        slot = self._slots.find(gfn)
        if slot is None or slot.memory is None or slot.invalid or slot.read_only:
            return False
        if not slot.backed(gfn) or slot.memory.is_read_only(slot.page(gfn)):
            return False
        slot.memory.fault_in(slot.page(gfn))
        slot.memory.write(slot.page(gfn) << 12 | gpa & 0xFFF, data)
        slot.mark_dirty(gfn)
        return True

    def store(self, gpa: int, data: bytes) -> None:
        """Write bytes as the processor does, which was allowed to: nothing is marked dirty."""
        slot = self._slots.find(gpa >> 12)
        if slot is not None and slot.memory is not None:
            slot.memory.write(slot.page(gpa >> 12) << 12 | gpa & 0xFFF, data)

    def is_written(self, gpa: int) -> bool:
        """Return whether something was ever written to a page."""
        slot = self._slots.find(gpa >> 12)
        return (
            slot is not None and slot.memory is not None and slot.memory.holds(slot.page(gpa >> 12))
        )

    def entry(self, gpa: int) -> int | None:
        """Return an 8-byte table entry, or None where there is no memory."""
        raw = self.read(gpa, 8)
        return None if raw is None else int.from_bytes(raw, "little")

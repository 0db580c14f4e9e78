"""The ring in which a vCPU logs the pages that it makes dirty.

Follows virt/kvm/dirty_ring.c (v6.1): kvm_dirty_ring_push, kvm_dirty_ring_soft_full.
"""

from __future__ import annotations

from fakesys.core.events import Bus
from fakesys.subsystems.kvm.events.memory import KvmDirtyRingPush

# KVM_DIRTY_RING_RSVD_ENTRIES; PML is not in use.
RESERVED = 64
# Flags of an entry.
DIRTY, HARVESTED = 1, 2
_U32 = (1 << 32) - 1


class RingEntry:
    """One entry: a page of a slot, and what was done with it; `struct kvm_dirty_gfn`."""

    __slots__ = ("flags", "offset", "slot")

    def __init__(self) -> None:
        self.flags = 0
        self.slot = 0
        self.offset = 0


class DirtyRing:
    """The ring of one vCPU. `dirty_index`, `reset_index`: entries pushed and reset so far."""

    def __init__(self, bus: Bus, index: int, size: int) -> None:
        self._bus = bus
        self.index = index
        self.size = size
        self.dirty_index = 0
        self.reset_index = 0
        self.entries: dict[int, RingEntry] = {}

    @property
    def used(self) -> int:
        """Number of entries that were not reset yet."""
        return self.dirty_index - self.reset_index & _U32

    @property
    def is_soft_full(self) -> bool:
        """Whether the vCPU must return to user space."""
        return self.used >= self.size - RESERVED

    def entry(self, index: int) -> RingEntry:
        """Return an entry; the index wraps around."""
        return self.entries.setdefault(index % self.size, RingEntry())

    def push(self, slot: int, offset: int, *, locked: bool = True) -> None:
        """Log a page. `slot`: its number with the address space. `locked`: by mmu_lock."""
        if self.used >= self.size:
            return
        entry = self.entry(self.dirty_index)
        entry.flags, entry.slot, entry.offset = DIRTY, slot, offset
        self.dirty_index = self.dirty_index + 1 & _U32
        if KvmDirtyRingPush in self._bus.wanted:
            self._bus.emit(
                KvmDirtyRingPush(
                    index=self.index,
                    dirty_index=self.dirty_index,
                    reset_index=self.reset_index,
                    slot=slot,
                    offset=offset,
                    locked=locked,
                )
            )

    def harvest(self) -> list[tuple[int, int]]:
        """Reset the entries that user space has harvested; return slot and offset of each."""
        found = []
        while self.used and self.entry(self.reset_index).flags & HARVESTED:
            entry = self.entry(self.reset_index)
            found.append((entry.slot, entry.offset))
            entry.flags = 0
            self.reset_index = self.reset_index + 1 & _U32
        return found

"""Memslots: which guest physical memory exists, the checks of the ioctl, generations."""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass, field
from enum import Enum
from errno import EEXIST, EINVAL
from typing import NamedTuple

from msgspec import Struct

from fakesys.core.errors import KernelError
from fakesys.subsystems.kvm_mmu.slots.host import (
    PAGE,
    USER_SPACE_END,
    HostMemory,
    HostSpace,
)

LOG_DIRTY_PAGES = 1
READONLY = 2
KNOWN_FLAGS = LOG_DIRTY_PAGES | READONLY

UPDATE_IN_PROGRESS = 1 << 63
# KVM_MEM_MAX_NR_PAGES
MAX_PAGES = (1 << 31) - 1
_U64 = 1 << 64


class Change(Enum):
    """What a request does to a slot; enum kvm_mr_change."""

    CREATE = "create"
    DELETE = "delete"
    MOVE = "move"
    FLAGS_ONLY = "flags only"
    NOTHING = "nothing"


class Region(NamedTuple):
    """A request; struct kvm_userspace_memory_region.

    `slot`: id in bits 0-15, address space above.
    """

    slot: int
    flags: int
    guest_phys_addr: int
    memory_size: int
    userspace_addr: int


class Memslot(Struct, eq=False):
    """A range of guest physical memory. `dirty`: one bit per page, only with LOG_DIRTY_PAGES.

    `invalid`: the slot is being deleted or moved; nothing may be mapped from it meanwhile.
    """

    id: int
    as_id: int
    base_gfn: int
    npages: int
    userspace_addr: int
    flags: int
    memory: HostMemory | None
    invalid: bool = False
    dirty: bytearray | None = None

    @property
    def end_gfn(self) -> int:
        """The first gfn behind the slot."""
        return self.base_gfn + self.npages

    @property
    def logs_dirty(self) -> bool:
        """Whether dirty logging is on, in a bitmap or in the rings of the vCPUs."""
        return bool(self.flags & LOG_DIRTY_PAGES)

    @property
    def read_only(self) -> bool:
        """Whether the slot has the flag KVM_MEM_READONLY."""
        return bool(self.flags & READONLY)

    def page(self, gfn: int) -> int:
        """Return the page number within the host memory. Precondition: `memory` is not None."""
        assert self.memory is not None
        return (self.userspace_addr - self.memory.hva) // PAGE + gfn - self.base_gfn

    def backed(self, gfn: int) -> bool:
        """Return whether there is host memory behind a gfn."""
        if self.memory is None:
            return False
        page = self.page(gfn)
        return page < self.memory.npages and not self.memory.is_unmapped(page)

    def fits_large(self, gfn: int, level: int = 2) -> bool:
        """Return whether one page of a level could map the block of a gfn.

        That takes the same offset in guest and host, and a block that lies within the slot.
        """
        pages = 1 << 9 * (level - 1)
        base = gfn & -pages
        if (self.base_gfn ^ self.userspace_addr // PAGE) & pages - 1:
            return False
        return base >= self.base_gfn and base + pages <= self.end_gfn

    def max_level(self, gfn: int, highest: int = 3) -> int:
        """Return the level of the largest page that slot and host allow for a gfn."""
        if highest == 1 or self.memory is None or not self.memory.has_large or self.logs_dirty:
            return 1
        for level in range(highest, 1, -1):
            base = gfn & -(1 << 9 * (level - 1))
            if self.fits_large(gfn, level) and self.memory.level(self.page(base)) >= level:
                return level
        return 1

    def mark_dirty(self, gfn: int) -> None:
        """Set the page's bit in the dirty log, if there is one.

        Like kvm_main.c:mark_page_dirty_in_slot.
        """
        if self.dirty is not None:
            offset = gfn - self.base_gfn
            self.dirty[offset >> 3] |= 1 << (offset & 7)

    def mark_all_dirty(self, gfn: int, mask: int) -> None:
        """Mark page `gfn` + N for each bit N of a mask; pages before the slot are ignored."""
        if self.dirty is None or not mask:
            return
        offset = gfn - self.base_gfn
        mask, offset = (mask >> -offset, 0) if offset < 0 else (mask, offset)
        first = offset >> 3
        mask <<= offset & 7
        last = first + (mask.bit_length() + 7 >> 3)
        old = int.from_bytes(self.dirty[first:last], "little")
        self.dirty[first:last] = (old | mask).to_bytes(last - first, "little")


@dataclass(eq=False)
class Memslots:
    """The slots of one address space, by id and by gfn.

    `generation` changes with every change of the slots. Bit 63, UPDATE_IN_PROGRESS, is set while
    one is going on.
    """

    generation: int
    by_id: dict[int, Memslot] = field(default_factory=dict)
    _starts: list[int] = field(default_factory=list)
    _last: Memslot | None = None

    def find(self, gfn: int) -> Memslot | None:
        """Return the slot that holds a gfn, or None."""
        last = self._last
        if last is not None and last.base_gfn <= gfn < last.base_gfn + last.npages:
            return last
        index = bisect_right(self._starts, gfn) - 1
        if index < 0:
            return None
        slot = self._by_start[self._starts[index]]
        if gfn >= slot.end_gfn:
            return None
        self._last = slot
        return slot

    def insert(self, slot: Memslot) -> None:
        """Add a slot. Precondition: it overlaps no other one."""
        self.by_id[slot.id] = slot
        self._by_start[slot.base_gfn] = slot
        insort(self._starts, slot.base_gfn)

    def remove(self, slot: Memslot) -> None:
        """Remove a slot."""
        del self.by_id[slot.id]
        del self._by_start[slot.base_gfn]
        self._starts.remove(slot.base_gfn)
        self._last = None

    def starts_at(self, gfn: int) -> bool:
        """Return whether a slot begins at this gfn."""
        return gfn in self._by_start

    def overlap(self, slot_id: int, first: int, npages: int) -> Memslot | None:
        """Return another slot that shares pages with this range, or None."""
        for other in self.by_id.values():
            if other.id != slot_id and first < other.end_gfn and other.base_gfn < first + npages:
                return other
        return None

    def __post_init__(self) -> None:
        self._by_start: dict[int, Memslot] = {}

    @property
    def in_order(self) -> list[Memslot]:
        """The slots by gfn."""
        return [self._by_start[start] for start in self._starts]


class AddressSpaces:
    """All memslots of a VM; `memslots[1]` is the address space of SMM.

    `physical_bits`: of addresses that the MMU can map. `start`: the first generation.
    """

    def __init__(
        self,
        host: HostSpace,
        *,
        as_num: int,
        user_mem_slots: int,
        physical_bits: int,
        start: int,
    ) -> None:
        self._host = host
        self.user_mem_slots = user_mem_slots
        # The first gfn that the MMU cannot map.
        self.end_gfn = 1 << physical_bits - 12
        self.as_num = as_num
        # Address spaces count in steps of their number and never meet in a generation.
        self.memslots = [Memslots(start + as_id) for as_id in range(as_num)]

    @property
    def npages(self) -> int:
        """Number of pages of all slots."""
        return sum(slot.npages for space in self.memslots for slot in space.by_id.values())

    @property
    def in_order(self) -> list[Memslot]:
        """All slots, those of each address space by gfn."""
        return [slot for space in self.memslots for slot in space.in_order]

    def slot(self, number: int) -> Memslot | None:
        """Return the slot that a number of an ioctl means, or None.

        Raises EINVAL for an address space or id that does not exist in this kernel.
        """
        as_id, slot_id = number >> 16, number & 0xFFFF
        if as_id >= self.as_num or slot_id >= self.user_mem_slots:
            raise KernelError(EINVAL, f"slot {number} is beyond {self.user_mem_slots - 1}")
        return self.memslots[as_id].by_id.get(slot_id)

    def check(self, region: Region) -> Change:
        """Return what a request would do; change nothing.

        Raises EINVAL for numbers that are not allowed and EEXIST for an overlap, in the order of
        kvm_main.c:__kvm_set_memory_region and x86.c:kvm_arch_prepare_memory_region (v6.1).
        """
        self._check_numbers(region)
        old = self.slot(region.slot)
        if not region.memory_size:
            if old is None:
                raise KernelError(EINVAL, f"there is no slot {region.slot} to delete")
            return Change.DELETE
        change = self._change(region, old)
        if change in (Change.CREATE, Change.MOVE):
            self._check_place(region)
        return change

    def new_slot(self, region: Region) -> Memslot:
        """Return the slot that a request describes, without inserting it."""
        return Memslot(
            id=region.slot & 0xFFFF,
            as_id=region.slot >> 16,
            base_gfn=region.guest_phys_addr // PAGE,
            npages=region.memory_size // PAGE,
            userspace_addr=region.userspace_addr,
            flags=region.flags,
            memory=self._host.at(region.userspace_addr),
        )

    def _check_numbers(self, region: Region) -> None:
        _, flags, gpa, size, address = region
        if flags & ~KNOWN_FLAGS:
            raise KernelError(EINVAL, f"unknown flags {flags & ~KNOWN_FLAGS:#x}")
        if size % PAGE or gpa % PAGE or address % PAGE:
            raise KernelError(EINVAL, "size, gpa and address are multiples of 4096")
        if address + size > USER_SPACE_END:
            raise KernelError(EINVAL, f"{address:#x} is no user address")
        self.slot(region.slot)
        if gpa + size >= _U64:
            raise KernelError(EINVAL, "gpa and size wrap around")
        if size // PAGE > MAX_PAGES:
            raise KernelError(EINVAL, f"a slot has at most {MAX_PAGES} pages")

    def _change(self, region: Region, old: Memslot | None) -> Change:
        if old is None:
            return Change.CREATE
        if region.userspace_addr != old.userspace_addr or region.memory_size // PAGE != old.npages:
            raise KernelError(EINVAL, "size and address of a slot stay as they are")
        if (region.flags ^ old.flags) & READONLY:
            raise KernelError(EINVAL, "a slot stays read-only or writable")
        if region.guest_phys_addr // PAGE != old.base_gfn:
            return Change.MOVE
        return Change.FLAGS_ONLY if region.flags != old.flags else Change.NOTHING

    def _check_place(self, region: Region) -> None:
        first, npages = region.guest_phys_addr // PAGE, region.memory_size // PAGE
        space = self.memslots[region.slot >> 16]
        other = space.overlap(region.slot & 0xFFFF, first, npages)
        if other is not None:
            raise KernelError(EEXIST, f"overlaps slot {other.id}")
        if first + npages > self.end_gfn:
            bits = self.end_gfn.bit_length() + 11
            raise KernelError(EINVAL, f"beyond {bits} bits of physical address")

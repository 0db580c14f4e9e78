"""Memslots in a snapshot: address spaces with their generations, slots with their dirty logs."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from msgspec import Meta

from fakesys.core.saved import U63, Natural, Saved, check, check_range
from fakesys.subsystems.kvm_mmu.saved.packed import GENERATION_END, Gfn
from fakesys.subsystems.kvm_mmu.slots.host import PAGE, USER_SPACE_END, HostSpace
from fakesys.subsystems.kvm_mmu.slots.memslots import (
    KNOWN_FLAGS,
    LOG_DIRTY_PAGES,
    MAX_PAGES,
    AddressSpaces,
    Memslot,
    Memslots,
)
from fakesys.subsystems.kvm_mmu.vm.dirty_log import bitmap_bytes

# That of a race has a greater one; it is made again with the race.
LAST_ID = 0xFFFF
SlotId = Annotated[int, Meta(ge=0, le=LAST_ID)]
Pages = Annotated[int, Meta(ge=1, le=MAX_PAGES)]
Flags = Annotated[int, Meta(ge=0, le=KNOWN_FLAGS)]


class SavedSlot(Saved, frozen=True):
    """One slot. `backed`: there was host memory at its address when it was made."""

    id: SlotId
    base_gfn: Gfn
    npages: Pages
    address: U63
    flags: Flags
    backed: bool
    dirty: bytes | None


class SavedSpace(Saved, frozen=True):
    """The slots of one address space, in the order of their creation."""

    generation: Natural
    slots: list[SavedSlot]


def save_slots(spaces: AddressSpaces) -> list[SavedSpace]:
    """Return what a snapshot holds of the slots, by address space."""
    return [
        SavedSpace(
            generation=space.generation,
            slots=[_save_slot(slot) for slot in space.by_id.values() if slot.id <= LAST_ID],
        )
        for space in spaces.memslots
    ]


def restore_slots(
    saved: list[SavedSpace], spaces: AddressSpaces, host: HostSpace, *, rings: bool
) -> None:
    """Fill the address spaces of a VM. Raises BadSnapshotError.

    `rings`: slots have no bitmaps, as dirty pages are logged in rings. Precondition: the host
    memory was restored.
    """
    check(len(saved) == spaces.as_num, f"{len(saved)} address spaces, not {spaces.as_num}")
    for as_id, (found, space) in enumerate(zip(saved, spaces.memslots, strict=True)):
        space.generation = check_range(found.generation, GENERATION_END, "a generation")
        for slot in found.slots:
            check(slot.id not in space.by_id, f"there are two slots {slot.id}")
            dirty = _dirty(slot, rings=rings)
            _insert(slot, as_id, spaces, space, host, dirty)
        for lower, upper in pairwise(space.in_order):
            check(lower.end_gfn <= upper.base_gfn, f"slot {upper.id} overlaps slot {lower.id}")


def _save_slot(slot: Memslot) -> SavedSlot:
    return SavedSlot(
        id=slot.id,
        base_gfn=slot.base_gfn,
        npages=slot.npages,
        address=slot.userspace_addr,
        flags=slot.flags,
        backed=slot.memory is not None,
        dirty=None if slot.dirty is None else bytes(slot.dirty),
    )


def _insert(
    saved: SavedSlot,
    as_id: int,
    spaces: AddressSpaces,
    space: Memslots,
    host: HostSpace,
    dirty: bytearray | None,
) -> None:
    what = f"slot {saved.id}"
    memory = host.at(saved.address) if saved.backed else None
    check(saved.backed == (memory is not None), f"{what} has no host memory")
    is_private = memory is not None and memory is host.private
    check(is_private or saved.id < spaces.user_mem_slots, f"there is no {what}")
    check(saved.address % PAGE == 0, f"{what} is not at a page")
    end = USER_SPACE_END - saved.npages * PAGE + 1
    check_range(saved.address, end, f"the address of {what}")
    check_range(saved.base_gfn + saved.npages - 1, spaces.end_gfn, f"the end of {what}")
    check(not space.starts_at(saved.base_gfn), f"{what} overlaps another one")
    space.insert(
        Memslot(
            id=saved.id,
            as_id=as_id,
            base_gfn=saved.base_gfn,
            npages=saved.npages,
            userspace_addr=saved.address,
            flags=saved.flags,
            memory=memory,
            dirty=dirty,
        )
    )


def _dirty(saved: SavedSlot, *, rings: bool) -> bytearray | None:
    what = f"slot {saved.id}"
    logged = bool(saved.flags & LOG_DIRTY_PAGES) and not rings
    check(logged == (saved.dirty is not None), f"the dirty log of {what}")
    if saved.dirty is None:
        return None
    check(len(saved.dirty) == bitmap_bytes(saved.npages), f"the length of the log of {what}")
    tail = int.from_bytes(saved.dirty[-8:], "little")
    check_range(tail, 1 << (saved.npages - 1) % 64 + 1, f"the last word of the log of {what}")
    return bytearray(saved.dirty)

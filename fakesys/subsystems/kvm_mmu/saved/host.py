"""The host memory behind guests in a snapshot. Addresses follow from the order of the mappings."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fakesys.core.errors import KernelError
from fakesys.core.saved import Natural, Saved, Word, check, check_range, refuse
from fakesys.subsystems.kvm_mmu.saved.packed import EntryMask
from fakesys.subsystems.kvm_mmu.slots.host import BLOCK_PAGES, PAGE, HostMemory, HostSpace

PageBytes = Annotated[bytes, Meta(min_length=PAGE, max_length=PAGE)]


class SavedPages(Saved, frozen=True):
    """What differs from memory that was just mapped; see `HostMemory`. `written`: by page."""

    split: list[Natural]
    gone: dict[Natural, EntryMask]
    read_only: dict[Natural, EntryMask]
    written: dict[Natural, PageBytes]


class SavedHostMemory(Saved, frozen=True):
    """One mapping."""

    name: Word
    size: Natural
    thp: bool
    pages: SavedPages


class SavedHost(Saved, frozen=True):
    """All mappings of an owner in the order of their creation; `private`: KVM's own page."""

    memories: list[SavedHostMemory]
    private: SavedPages | None


def save_host(host: HostSpace) -> SavedHost:
    """Return what a snapshot holds of the mappings."""
    return SavedHost(
        memories=[
            SavedHostMemory(
                name=memory.name, size=memory.size, thp=memory.thp, pages=_save_pages(memory)
            )
            for memory in host.memories
        ],
        private=None if host.private is None else _save_pages(host.private),
    )


def restore_host(saved: SavedHost, host: HostSpace) -> None:
    """Make the mappings. Raises BadSnapshotError."""
    for found in saved.memories:
        try:
            memory = host.add(found.name, found.size, thp=found.thp)
        except KernelError as error:
            refuse(error.why)
        _restore_pages(found.pages, memory)
    if saved.private is not None:
        _restore_pages(saved.private, host.private_page())


def _save_pages(memory: HostMemory) -> SavedPages:
    return SavedPages(
        split=sorted(memory.split),
        gone={block: f"{mask:x}" for block, mask in memory.gone.items()},
        read_only={block: f"{mask:x}" for block, mask in memory.read_only.items()},
        written=memory.written(),
    )


def _restore_pages(saved: SavedPages, memory: HostMemory) -> None:
    blocks = -(-memory.npages // BLOCK_PAGES)
    for block in (*saved.split, *saved.gone, *saved.read_only):
        check_range(block, blocks, f"a block of memory {memory.name}")
    memory.split.update(saved.split)
    for masks, found in ((memory.gone, saved.gone), (memory.read_only, saved.read_only)):
        for block, text in found.items():
            pages = min(BLOCK_PAGES, memory.npages - block * BLOCK_PAGES)
            masks[block] = check_range(int(text, 16), 1 << pages, "a mask of pages")
    check(memory.gone.keys() <= memory.split, f"memory {memory.name}: a whole page is gone in part")
    for page, data in saved.written.items():
        check_range(page, memory.npages, f"a page of memory {memory.name}")
        memory.write(page * PAGE, data)

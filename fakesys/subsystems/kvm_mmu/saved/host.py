"""The host memory behind guests in a snapshot. Addresses follow from the order of the mappings."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fakesys.core.errors import KernelError
from fakesys.core.saved import Natural, Saved, Word, check, check_range, refuse
from fakesys.subsystems.kvm_mmu.saved.packed import EntryMask
from fakesys.subsystems.kvm_mmu.slots.host import (
    BLOCK_PAGES,
    GIANT,
    LARGE,
    PAGE,
    HostMemory,
    HostSpace,
)

PageBytes = Annotated[bytes, Meta(min_length=PAGE, max_length=PAGE)]


class SavedPages(Saved, frozen=True):
    """What differs from memory that was just mapped; see `HostMemory`. `written`: by page."""

    split: list[Natural]
    whole: list[Natural]
    gone: dict[Natural, EntryMask]
    zero: dict[Natural, EntryMask]
    shared: dict[Natural, EntryMask]
    read_only: dict[Natural, EntryMask]
    unmapped: dict[Natural, EntryMask]
    written: dict[Natural, PageBytes]


class SavedHostMemory(Saved, frozen=True):
    """One mapping."""

    name: Word
    size: Natural
    thp: bool
    hugetlb: Natural
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
                name=memory.name,
                size=memory.size,
                thp=memory.thp,
                hugetlb=memory.hugetlb,
                pages=_save_pages(memory),
            )
            for memory in host.memories
        ],
        private=None if host.private is None else _save_pages(host.private),
    )


def restore_host(saved: SavedHost, host: HostSpace) -> None:
    """Make the mappings. Raises BadSnapshotError."""
    for found in saved.memories:
        check(found.hugetlb in (0, LARGE, GIANT), f"memory {found.name}: hugetlb {found.hugetlb}")
        try:
            memory = host.add(found.name, found.size, thp=found.thp, hugetlb=found.hugetlb)
        except KernelError as error:
            refuse(error.why)
        _restore_pages(found.pages, memory)
    if saved.private is not None:
        _restore_pages(saved.private, host.private_page())


def _save_pages(memory: HostMemory) -> SavedPages:
    return SavedPages(
        split=sorted(memory.split),
        whole=sorted(memory.whole),
        gone=_texts(memory.gone),
        zero=_texts(memory.zero),
        shared=_texts(memory.shared),
        read_only=_texts(memory.read_only),
        unmapped=_texts(memory.unmapped),
        written=memory.written(),
    )


def _texts(masks: dict[int, int]) -> dict[int, str]:
    return {block: f"{mask:x}" for block, mask in masks.items()}


def _restore_pages(saved: SavedPages, memory: HostMemory) -> None:
    blocks = -(-memory.npages // BLOCK_PAGES)
    for block in (*saved.split, *saved.whole):
        check_range(block, blocks, f"a block of memory {memory.name}")
    memory.split.update(saved.split)
    memory.whole.update(saved.whole)
    for masks, found in (
        (memory.gone, saved.gone),
        (memory.zero, saved.zero),
        (memory.shared, saved.shared),
        (memory.read_only, saved.read_only),
        (memory.unmapped, saved.unmapped),
    ):
        for block, text in found.items():
            check_range(block, blocks, f"a block of memory {memory.name}")
            pages = min(BLOCK_PAGES, memory.npages - block * BLOCK_PAGES)
            masks[block] = check_range(int(text, 16), 1 << pages, "a mask of pages")
    _check_pages(memory)
    for page, data in saved.written.items():
        check_range(page, memory.npages, f"a page of memory {memory.name}")
        memory.write(page * PAGE, data)


def _check_pages(memory: HostMemory) -> None:
    what = f"memory {memory.name}"
    check(memory.gone.keys() <= memory.split, f"{what}: a whole page is gone in part")
    check(not memory.whole & memory.split, f"{what}: a page is whole and split")
    for masks in (memory.zero, memory.unmapped):
        absent = (mask & ~memory.gone.get(block, 0) for block, mask in masks.items())
        check(not any(absent), f"{what}: a page is there that is not")
    both = (mask & memory.gone.get(block, 0) for block, mask in memory.shared.items())
    check(not any(both), f"{what}: a page is shared that is gone")

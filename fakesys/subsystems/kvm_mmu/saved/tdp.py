"""The TDP MMU of a VM in a snapshot: a tree of tables per root."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta

from fakesys.core.saved import Natural, Saved, check, check_range
from fakesys.core.scheduling.resched import cond_resched_killable
from fakesys.subsystems.kvm_mmu.mmu.mmio import mmio_spte
from fakesys.subsystems.kvm_mmu.saved.packed import MASK_BYTES
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.sptes import ENTRIES
from fakesys.subsystems.kvm_mmu.tdp.tables import (
    HUGE,
    MIXED,
    TABLE_PAGES,
    Directory,
    Huge,
    Leaf,
    TdpRoot,
    TdpTables,
    Upper,
)

_MASKS = 4
_FLAGS = Huge.WRITABLE | Huge.READ_ONLY | Huge.NO_EXEC | Huge.CLEAN | Huge.PROTECTED
_BITS = {state for state in range(256) if state & HUGE and not state & ~(HUGE | _FLAGS)}
_STATES = bytes(set(range(MIXED + 3)) | _BITS)
Masks = Annotated[bytes, Meta(min_length=_MASKS * MASK_BYTES, max_length=_MASKS * MASK_BYTES)]
States = Annotated[bytes, Meta(min_length=ENTRIES, max_length=ENTRIES)]


class SavedLeaf(Saved, frozen=True):
    """The sptes of a table of level 1: 4 masks of 512 bits, and whole MMIO sptes by index."""

    masks: Masks
    mmio: dict[Natural, Natural]


class SavedDirectory(Saved, frozen=True):
    """A table of level 2; see `Directory`."""

    page: Natural
    state: States
    leaves: dict[Natural, SavedLeaf]


class SavedUpper(Saved, frozen=True):
    """A table of level 3: tables and leaves of 1 GiB by index."""

    page: Natural
    directories: dict[Natural, SavedDirectory]
    leaves: dict[Natural, Natural]


class SavedRoot(Saved, frozen=True):
    """A root: tables of level 3 by index."""

    number: Natural
    as_id: Natural
    page: Natural
    tables: dict[Natural, SavedUpper]


class SavedTdp(Saved, frozen=True):
    """All roots, the newest first. `nx_splits`: gfns of tables that replace a large page."""

    roots: list[SavedRoot]
    pages_made: Natural
    roots_made: Natural
    nx_splits: list[Natural]


def save_tdp(tables: TdpTables, arch: MmuArch) -> SavedTdp:
    """Return what a snapshot holds of the TDP MMU."""
    return SavedTdp(
        roots=[_save_root(root) for root in tables.roots],
        pages_made=tables.pages_made,
        roots_made=tables.roots_made,
        nx_splits=list(arch.nx_splits),
    )


def _save_root(root: TdpRoot) -> SavedRoot:
    return SavedRoot(
        number=root.number,
        as_id=root.as_id,
        page=root.top.page,
        tables={
            index: _save_upper(table)
            for index, table in root.top.tables()
            if isinstance(table, Upper)
        },
    )


def _save_upper(upper: Upper) -> SavedUpper:
    entries = upper.entries
    return SavedUpper(
        page=upper.page,
        directories={
            index: _save_directory(entry)
            for index, entry in entries.items()
            if isinstance(entry, Directory)
        },
        leaves={index: entry for index, entry in entries.items() if isinstance(entry, int)},
    )


def _save_directory(directory: Directory) -> SavedDirectory:
    return SavedDirectory(
        page=directory.page,
        state=bytes(directory.state),
        leaves={
            index: SavedLeaf(
                masks=b"".join(
                    mask.to_bytes(MASK_BYTES, "little")
                    for mask in (leaf.present, leaf.writable, leaf.readonly, leaf.clean)
                ),
                mmio=dict(leaf.mmio),
            )
            for index, leaf in directory.leaves.items()
        },
    )


def restore_tdp(saved: SavedTdp, tables: TdpTables, arch: MmuArch) -> None:
    """Make the tables of a VM, whose gauges must be the number of its sptes.

    Raises BadSnapshotError.
    """
    check_range(saved.pages_made, TABLE_PAGES, "pages of tables")
    spaces = [root.as_id for root in saved.roots]
    numbers = [root.number for root in saved.roots]
    check(len(set(spaces)) == len(spaces), "two roots of an address space")
    check(numbers == sorted(set(numbers), reverse=True), "the order of roots")
    for found in saved.roots:
        check_range(found.as_id, arch.knobs.as_num, "the address space of a root")
        check(0 < found.number <= saved.roots_made, "the number of a root")
        tables.roots.append(_restore_root(found, arch))
    tables.pages_made, tables.roots_made = saved.pages_made, saved.roots_made
    _count(tables, arch)
    _restore_splits(saved, tables, arch)


def _restore_root(saved: SavedRoot, arch: MmuArch) -> TdpRoot:
    root = TdpRoot(saved.number, saved.as_id, _page(saved.page))
    for index, found in saved.tables.items():
        check_range(index, ENTRIES, "the index of a table of level 3")
        upper = root.top.entries[index] = Upper(_page(found.page))
        for low, entry in found.directories.items():
            cond_resched_killable()
            check_range(low, ENTRIES, "the index of a table of level 2")
            upper.entries[low] = _restore_directory(entry, (index << 9 | low) << 18, arch)
        for low, bits in found.leaves.items():
            check_range(low, ENTRIES, "the index of a leaf of 1 GiB")
            check(low not in found.directories, "an entry is a table and a leaf")
            check(bits in _BITS, f"a leaf of 1 GiB: {bits:#x}")
            upper.entries[low] = bits
    return root


def _restore_directory(saved: SavedDirectory, base: int, arch: MmuArch) -> Directory:
    directory = Directory(_page(saved.page))
    check(not saved.state.translate(None, _STATES), "states of a table of level 2")
    directory.state = bytearray(saved.state)
    for index, found in saved.leaves.items():
        check_range(index, ENTRIES, "the index of a table of level 1")
        check(saved.state[index] == MIXED, "sptes of a table that is all alike, or none")
        directory.leaves[index] = _restore_leaf(found, base + (index << 9), arch)
    return directory


def _restore_leaf(saved: SavedLeaf, base: int, arch: MmuArch) -> Leaf:
    masks = [
        int.from_bytes(saved.masks[at : at + MASK_BYTES], "little")
        for at in range(0, len(saved.masks), MASK_BYTES)
    ]
    leaf = Leaf()
    leaf.present, leaf.writable, leaf.readonly, leaf.clean = masks
    check(not any(mask & ~leaf.present for mask in masks), "bits of absent sptes")
    check(not leaf.writable & leaf.readonly, "an spte is writable and read-only")
    for place, value in saved.mmio.items():
        check_range(place, ENTRIES, "the index of an MMIO spte")
        check(not leaf.present >> place & 1, "an entry is two sptes")
        generation = arch.mmio_bits.unpack(value)
        check(value == mmio_spte(arch, base + place, generation), f"MMIO spte {value:#x}")
    leaf.mmio = dict(saved.mmio)
    return leaf


def _page(page: int) -> int:
    return check_range(page, TABLE_PAGES, "the page of a table")


def _directories(tables: TdpTables) -> Iterator[tuple[int, int, Directory | int]]:
    for root in tables.roots:
        for gfn, upper, index in root.directories(0, (1 << 36) - 1):
            entry = upper.entries[index]
            assert not isinstance(entry, Upper)
            yield root.as_id, gfn, entry


def _count(tables: TdpTables, arch: MmuArch) -> None:
    stats = arch.stats
    counted = [0, 0, 0]
    for _, _, entry in _directories(tables):
        if isinstance(entry, int):
            counted[2] += 1
            continue
        full, huge = entry.totals()
        counted[0] += full * ENTRIES
        counted[0] += sum(leaf.present.bit_count() for leaf in entry.leaves.values())
        counted[1] += huge
    saved = [stats.pages_4k, stats.pages_2m, stats.pages_1g]
    check(saved == counted, f"gauges of sptes are {saved}, the tables have {counted}")


def _restore_splits(saved: SavedTdp, tables: TdpTables, arch: MmuArch) -> None:
    check(len(saved.nx_splits) == arch.stats.nx_lpage_splits, "the number of split large pages")
    known = set()
    for as_id, gfn, entry in _directories(tables):
        if isinstance(entry, Directory):
            known.add(as_id << 48 | gfn)
            known.update(
                as_id << 48 | gfn + (index << 9)
                for index in range(ENTRIES)
                if entry.is_table(index)
            )
    check(set(saved.nx_splits) <= known, "a split large page without table")
    check(len(set(saved.nx_splits)) == len(saved.nx_splits), "a split large page is there twice")
    arch.nx_splits = dict.fromkeys(saved.nx_splits)

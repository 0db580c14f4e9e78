"""Leaf sptes in a snapshot: masks of each table that is not all alike, gfns, MMIO sptes."""

from __future__ import annotations

from array import array

from fakesys.core.saved import Natural, Saved, check, check_range
from fakesys.core.scheduling.resched import cond_resched_killable
from fakesys.subsystems.kvm_mmu.saved.packed import MASK_BYTES, packed, rows_of, unpacked
from fakesys.subsystems.kvm_mmu.saved.pages import ROOT_LEVEL
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.role import DIRECT, INVALID, level_of
from fakesys.subsystems.kvm_mmu.shadow.sptes import EMPTY, ENTRIES, MIXED, Leaf

_GFN_BYTES = ENTRIES * 8
_MASKS = 8
_LEAF_BYTES = _MASKS * MASK_BYTES
_LAST_GFN = (1 << 52) - 1


class SavedSptes(Saved, frozen=True):
    """Tables whose sptes differ. `rows`: the tables. `masks`: of each, 8 masks of 512 bits.

    `gfns`: of each that shadows a guest's table, 512 gfns. `mmio`: by table and entry, generation
    and access of MMIO sptes.
    """

    rows: bytes
    masks: bytes
    gfns: bytes
    mmio: dict[Natural, dict[Natural, Natural]]


def save_sptes(arch: MmuArch) -> SavedSptes:
    """Return what a snapshot holds of the sptes."""
    leaves = arch.sptes.leaves
    return SavedSptes(
        rows=packed(array("i", leaves)),
        masks=b"".join(
            mask.to_bytes(MASK_BYTES, "little") for leaf in leaves.values() for mask in _masks(leaf)
        ),
        gfns=b"".join(packed(leaf.gfns) for leaf in leaves.values() if leaf.gfns is not None),
        mmio={row: dict(leaf.mmio) for row, leaf in leaves.items() if leaf.mmio is not None},
    )


def restore_sptes(saved: SavedSptes, arch: MmuArch, used: set[int]) -> None:
    """Make the sptes of the pages in the rows `used`; count them in the pages.

    Raises BadSnapshotError, also where the gauges of the VM are not the number of sptes.
    """
    pages = arch.pages
    rows = rows_of(saved.rows, used, "tables of sptes")
    check(len(saved.masks) == len(rows) * _LEAF_BYTES, "masks of sptes")
    mixed = {row for row in used if pages.leaf_state[row] == MIXED}
    check(set(rows) == mixed, "not exactly the mixed tables have masks")
    indirect = [row for row in rows if not pages.role[row] & DIRECT]
    check(len(saved.gfns) == len(indirect) * _GFN_BYTES, "gfns of sptes")
    gfns = unpacked("Q", saved.gfns, "gfns of sptes")
    check(not gfns or max(gfns) <= _LAST_GFN, "a gfn of an spte")
    for place, row in enumerate(rows):
        cond_resched_killable()
        leaf = _leaf(saved.masks[place * _LEAF_BYTES : (place + 1) * _LEAF_BYTES], row)
        if not pages.role[row] & DIRECT:
            leaf.gfns, gfns = gfns[:ENTRIES], gfns[ENTRIES:]
        arch.sptes.restore(row, leaf)
    _restore_mmio(saved, arch)
    _count(arch, used)


def _masks(leaf: Leaf) -> tuple[int, ...]:
    return (
        leaf.present,
        leaf.writable,
        leaf.accessed,
        leaf.dirty,
        leaf.mmu_readonly,
        leaf.host_readonly,
        leaf.no_exec,
        leaf.no_user,
    )


def _leaf(data: bytes, row: int) -> Leaf:
    masks = [
        int.from_bytes(data[at : at + MASK_BYTES], "little")
        for at in range(0, len(data), MASK_BYTES)
    ]
    leaf = Leaf()
    leaf.present, leaf.writable, leaf.accessed, leaf.dirty = masks[:4]
    leaf.mmu_readonly, leaf.host_readonly, leaf.no_exec, leaf.no_user = masks[4:]
    check(not any(mask & ~leaf.present for mask in masks), f"table {row}: bits of absent sptes")
    return leaf


def _restore_mmio(saved: SavedSptes, arch: MmuArch) -> None:
    end = arch.mmio_bits.mask + 1 << 3
    for row, entries in saved.mmio.items():
        check(row in arch.sptes.leaves, f"table {row} has no MMIO sptes")
        leaf = arch.sptes.leaves[row]
        for index, value in entries.items():
            check_range(index, ENTRIES, f"the index of an MMIO spte of table {row}")
            check(not leaf.present >> index & 1, f"entry {index} of table {row} is two sptes")
            check_range(value, end, f"generation and access of MMIO spte {index} of table {row}")
        leaf.mmio = dict(entries)


def _count(arch: MmuArch, used: set[int]) -> None:
    pages, stats = arch.pages, arch.stats
    saved = (stats.pages_4k, stats.pages_2m, stats.pages_1g, stats.largepages)
    stats.pages_4k = stats.pages_2m = stats.pages_1g = stats.largepages = 0
    for row in used:
        state, role = pages.leaf_state[row], pages.role[row]
        check(state <= MIXED, f"table {row}: state {state}")
        if state == EMPTY:
            continue
        check(state == MIXED or role & DIRECT, f"table {row} shadows one and is full")
        number = arch.sptes.present(row).bit_count()
        check(not number or level_of(role) < ROOT_LEVEL, f"table {row} is too high for sptes")
        check(not number or not role & INVALID, f"table {row} is invalid and has sptes")
        pages.present[row] += number
        arch.sptes.count(level_of(role), number)
    counted = (stats.pages_4k, stats.pages_2m, stats.pages_1g, stats.largepages)
    check(saved == counted, f"gauges of sptes are {saved}, the tables have {counted}")

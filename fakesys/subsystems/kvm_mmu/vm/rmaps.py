"""The file `mmu_rmaps_stat`: how many gfns of each size are mapped by how many sptes."""

from __future__ import annotations

from collections import defaultdict

from fakesys.subsystems.kvm_mmu.shadow.role import DIRECT, level_of
from fakesys.subsystems.kvm_mmu.shadow.sptes import LEVELS, set_bits
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory

# Columns 0, 1, 2-3, 4-7 ... 512-1023: debugfs.c:RMAP_LOG_SIZE (v6.1).
COLUMNS = 11
_SIZES = {1: "4K", 2: "2M", 3: "1G"}


def rmap_counts(memory: VmMemory, level: int) -> list[int]:
    """Return the units of a level by column.

    Like arch/x86/kvm/debugfs.c:kvm_mmu_rmaps_stat_show (v6.1).
    """
    counts = [0] * COLUMNS
    mapped = 0
    for masks in _masks_by_block(memory, level).values():
        if len(masks) == 1:
            number = masks[0].bit_count()
            counts[1] += number
            mapped += number
            continue
        for sptes in _times(masks):
            # The kernel takes ffs(), not fls(): 6 lands in the column of 2-3.
            counts[min((sptes & -sptes).bit_length(), COLUMNS - 1)] += 1
            mapped += 1
    counts[0] = _units(memory, level) - mapped
    return counts


def rmaps_text(memory: VmMemory) -> str:
    """Return the text of the file; the TDP MMU has no rmap."""
    if memory.tdp is not None:
        return ""
    heads = ["0", "1", *(f"{1 << n}-{(2 << n) - 1}" for n in range(1, COLUMNS - 1))]
    lines = ["Rmap_Count:\t" + "".join(f"{head}\t" for head in heads)]
    for level in LEVELS:
        numbers = "".join(f"{count}\t" for count in rmap_counts(memory, level))
        lines.append(f"Level={_SIZES[level]}:\t{numbers}")
    return "\n".join(lines) + "\n"


def _units(memory: VmMemory, level: int) -> int:
    shift = 9 * (level - 1)
    return sum(
        (slot.end_gfn - 1 >> shift) - (slot.base_gfn >> shift) + 1
        for space in memory.spaces.memslots
        for slot in space.in_order
    )


def _masks_by_block(memory: VmMemory, level: int) -> dict[int, list[int]]:
    """Return masks of mapped units by block of 512; one mask per table that maps some of them."""
    pages, sptes = memory.arch.pages, memory.arch.sptes
    found: dict[int, list[int]] = defaultdict(list)
    shift = 9 * (level - 1)
    for row in pages.oldest_first():
        if level_of(pages.role[row]) != level:
            continue
        present = sptes.present(row)
        if present and pages.role[row] & DIRECT:
            found[pages.gfn[row] >> shift + 9].append(present)
        elif present:
            for index in set_bits(present):
                unit = sptes.gfn_of(row, index) >> shift
                found[unit >> 9].append(1 << (unit & 511))
    return found


def _times(masks: list[int]) -> list[int]:
    """Return, for each bit that any mask has, how many masks have it."""
    every = 0
    for mask in masks:
        every |= mask
    return [sum(mask >> index & 1 for mask in masks) for index in set_bits(every)]

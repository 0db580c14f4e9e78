"""Shadow pages in a snapshot: columns of all rows, the list, the free rows and the hash."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fakesys.core.saved import Saved, check
from fakesys.core.scheduling.resched import cond_resched_killable
from fakesys.subsystems.kvm_mmu.mmu.pte_write import FLOODED
from fakesys.subsystems.kvm_mmu.saved.packed import packed, rows_of, unpacked
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.links import ShadowLinks
from fakesys.subsystems.kvm_mmu.shadow.pages import ACCOUNTED, NONE, ON_LIST, UNSYNC, ShadowPages
from fakesys.subsystems.kvm_mmu.shadow.policy import Generation
from fakesys.subsystems.kvm_mmu.shadow.role import (
    ACCESS_SHIFT,
    ALL_ACCESS,
    DIRECT,
    INVALID,
    LEVEL_MASK,
    level_of,
)

ROOT_LEVEL = 4
_LAST_GFN = (1 << 52) - 1
_FREE_BITS = LEVEL_MASK | DIRECT | ALL_ACCESS << ACCESS_SHIFT | INVALID
# Fewer zaps than a column can count.
ValidGen = Annotated[int, Meta(ge=0, lt=1 << 31)]


class SavedShadowPages(Saved, frozen=True):
    """The columns of `ShadowPages` that do not follow from others; those of free rows mean nothing.

    `order`: rows on the list, the oldest first. `free`: rows of freed pages, the next one last.
    `hashed`: rows in an order in which they get into the hash.
    """

    valid_gen: ValidGen
    gfn: bytes
    role: bytes
    gen: bytes
    flags: bytes
    write_flooding_count: bytes
    leaf_state: bytes
    order: bytes
    free: bytes
    hashed: bytes


def save_pages(pages: ShadowPages) -> SavedShadowPages:
    """Return what a snapshot holds of the shadow pages."""
    return SavedShadowPages(
        valid_gen=pages.valid_gen,
        gfn=packed(pages.gfn),
        role=packed(pages.role),
        gen=packed(pages.gen),
        flags=packed(pages.flags),
        write_flooding_count=packed(pages.write_flooding_count),
        leaf_state=packed(pages.leaf_state),
        order=packed(pages.order),
        free=packed(pages.free_rows),
        hashed=packed(pages.hashed_rows()),
    )


def restore_pages(
    saved: SavedShadowPages, arch: MmuArch, links: ShadowLinks, *, zapping: bool
) -> set[int]:
    """Make the pages, without sptes, links and roots; return their rows.

    `zapping`: a zap of all pages is in its middle: some are obsolete. Raises BadSnapshotError.
    """
    pages = arch.pages
    _fill_columns(saved, pages)
    every = set(range(len(pages.gfn)))
    free = rows_of(saved.free, every, "free rows")
    used = every - set(free)
    order = rows_of(saved.order, used, "the list of pages")
    hashed = rows_of(saved.hashed, used, "the hash of pages")
    toggles = arch.policy.generation is Generation.TOGGLE
    check(not toggles or saved.valid_gen < 2, f"generation {saved.valid_gen}")
    pages.valid_gen = saved.valid_gen
    for row in used:
        cond_resched_killable()
        _check_page(pages, row, arch.policy.base_role, zapping=zapping)
        pages.flags[row] &= ~ON_LIST
    valid = {row for row in used if not pages.role[row] & INVALID}
    check(set(hashed) == valid, "the hash has not exactly the valid pages")
    check(valid <= set(order), "a valid page is not on the list")
    keys = {(pages.gfn[row], pages.role[row], pages.is_stale(row)) for row in valid}
    check(len(keys) == len(valid), "two pages have the same gfn and role")
    pages.restore(free, order, hashed)
    _count(arch, links, valid)
    return used


def _fill_columns(saved: SavedShadowPages, pages: ShadowPages) -> None:
    pages.gfn = unpacked("Q", saved.gfn, "gfns")
    pages.role = unpacked("I", saved.role, "roles")
    pages.gen = unpacked("I", saved.gen, "generations")
    pages.flags = unpacked("B", saved.flags, "flags")
    pages.write_flooding_count = unpacked("B", saved.write_flooding_count, "counts of writes")
    pages.leaf_state = unpacked("B", saved.leaf_state, "states of tables")
    rows = len(pages.gfn)
    columns = (pages.role, pages.gen, pages.flags, pages.write_flooding_count, pages.leaf_state)
    check(all(len(column) == rows for column in columns), "columns of pages differ in length")
    pages.root_count.frombytes(bytes(2 * rows))
    pages.present.frombytes(bytes(2 * rows))
    pages.parent_index.frombytes(bytes(2 * rows))
    pages.parent.extend([NONE] * rows)


def _check_page(pages: ShadowPages, row: int, base_role: int, *, zapping: bool) -> None:
    what = f"shadow page {row}"
    gfn, role, flags = pages.gfn[row], pages.role[row], pages.flags[row]
    level = level_of(role)
    check(role & ~_FREE_BITS == base_role, f"{what}: role {role:#x}")
    check(1 <= level <= ROOT_LEVEL, f"{what}: level {level}")
    check(gfn <= _LAST_GFN, f"{what}: gfn {gfn:#x}")
    check(not role & DIRECT or gfn % (1 << 9 * level) == 0, f"{what}: gfn {gfn:#x}")
    check(not flags & ~(UNSYNC | ON_LIST | ACCOUNTED), f"{what}: flags {flags:#x}")
    if flags & UNSYNC:
        check(level == 1 and not role & (DIRECT | INVALID), f"{what} cannot be unsync")
    if not role & INVALID:
        check(zapping or pages.gen[row] == pages.valid_gen, f"{what} is obsolete")
        check(role & DIRECT or flags & ACCOUNTED, f"{what} is not accounted")
        check(pages.write_flooding_count[row] < FLOODED, f"{what} is flooded")


def _count(arch: MmuArch, links: ShadowLinks, valid: set[int]) -> None:
    pages = arch.pages
    for row in valid:
        if not pages.role[row] & DIRECT:
            links.write_tracking.account(pages.gfn[row], level_of(pages.role[row]), 1)
            arch.unsync_pages += bool(pages.flags[row] & UNSYNC)

"""Links between shadow pages in a snapshot, and the marks of unsync pages below a table."""

from __future__ import annotations

from array import array

from fakesys.core.saved import Natural, Saved, check
from fakesys.core.scheduling.resched import cond_resched_killable
from fakesys.subsystems.kvm_mmu.saved.packed import EntryMask, packed, rows_of, unpacked
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.links import NO_CHILDREN, ShadowLinks
from fakesys.subsystems.kvm_mmu.shadow.pages import NONE, UNSYNC, ShadowPages
from fakesys.subsystems.kvm_mmu.shadow.role import DIRECT, INVALID, level_of
from fakesys.subsystems.kvm_mmu.shadow.sptes import ENTRIES

Parents = dict[int, list[tuple[int, int]]]


class SavedLinks(Saved, frozen=True):
    """What points to what. `rows`: tables that point to others. `children`: of each, 512 rows.

    `parents`: of each page with several parents, their entries (row * 512 + index), the first one
    first. `unsync_below`: by table, the entries below which a page is or was unsync.
    """

    rows: bytes
    children: bytes
    parents: dict[Natural, list[Natural]]
    unsync_below: dict[Natural, EntryMask]


def save_links(arch: MmuArch, links: ShadowLinks) -> SavedLinks:
    """Return what a snapshot holds of the links."""
    tables = {row: kids for row, kids in links.children.items() if kids != NO_CHILDREN}
    linked = {child for kids in tables.values() for child in kids} - {NONE}
    parents = {child: list(links.parents(child)) for child in sorted(linked)}
    return SavedLinks(
        rows=packed(array("i", tables)),
        children=b"".join(packed(kids) for kids in tables.values()),
        parents={
            child: [row * ENTRIES + index for row, index in entries]
            for child, entries in parents.items()
            if len(entries) > 1
        },
        unsync_below={row: f"{mask:x}" for row, mask in links.unsync_below.items()},
    )


def restore_links(saved: SavedLinks, arch: MmuArch, links: ShadowLinks, used: set[int]) -> None:
    """Make the links of the pages in the rows `used`; count them in the pages.

    Raises BadSnapshotError. Precondition: pages and sptes were restored.
    """
    rows = rows_of(saved.rows, used, "tables with children")
    children = unpacked("i", saved.children, "children")
    check(len(children) == len(rows) * ENTRIES, "children of tables")
    parents: Parents = {}
    for place, row in enumerate(rows):
        cond_resched_killable()
        kids = children[place * ENTRIES : (place + 1) * ENTRIES]
        _restore_children(row, kids, arch, parents, used)
        links.children[row] = kids
    several = {child for child, entries in parents.items() if len(entries) > 1}
    check(saved.parents.keys() == several, "pages with several parents")
    for child, entries in parents.items():
        links.restore(child, _in_order(saved, child, entries))
    _restore_unsync(saved, arch.pages, links, parents, used)


def _restore_children(
    row: int, kids: array[int], arch: MmuArch, parents: Parents, used: set[int]
) -> None:
    pages, present = arch.pages, arch.sptes.present(row)
    check(not pages.role[row] & INVALID, f"table {row} is invalid and has children")
    for index, child in enumerate(kids):
        if child == NONE:
            continue
        what = f"entry {index} of table {row}"
        check(child in used, f"{what} points to no page")
        check(not present >> index & 1, f"{what} is a leaf and a link")
        _check_link(pages, row, index, child, what)
        pages.present[row] += 1
        parents.setdefault(child, []).append((row, index))


def _check_link(pages: ShadowPages, row: int, index: int, child: int, what: str) -> None:
    role, below = pages.role[row], pages.role[child]
    check(not below & INVALID, f"{what} points to an invalid page")
    check(level_of(below) == level_of(role) - 1, f"{what} points to a wrong level")
    if role & DIRECT:
        place = pages.gfn[child] >> 9 * level_of(below) & ENTRIES - 1
        check(below & DIRECT and place == index, f"{what} points to a wrong gfn")


def _in_order(
    saved: SavedLinks, child: int, entries: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    if len(entries) == 1:
        return entries
    ordered = [divmod(entry, ENTRIES) for entry in saved.parents[child]]
    check(sorted(ordered) == sorted(entries), f"the parents of page {child}")
    return ordered


def _restore_unsync(
    saved: SavedLinks, pages: ShadowPages, links: ShadowLinks, parents: Parents, used: set[int]
) -> None:
    for table, mask in saved.unsync_below.items():
        check(table in used, f"marks of table {table}, which is no page")
        links.unsync_below[table] = int(mask, 16)
    for child, entries in parents.items():
        if pages.flags[child] & UNSYNC or child in links.unsync_below:
            for row, index in entries:
                marked = links.unsync_below.get(row, 0) >> index & 1
                check(marked, f"entry {index} of table {row} does not mark an unsync page")

"""Which guest pages are page tables that KVM shadows, so that guest writes must be noticed.

Follows mmu.c:account_shadowed, update_gfn_disallow_lpage_count and page_track.c (v6.1).
"""

from __future__ import annotations


class WriteTracking:
    """Counts of shadowed guest tables by gfn; `indirect_shadow_pages` is their sum."""

    def __init__(self) -> None:
        self.indirect_shadow_pages = 0
        # gfns of tables above level 1, which the guest may never write directly.
        self._write_tracked: dict[int, int] = {}
        # Level -> block of gfns -> shadowed tables in it: no large page may map the block.
        self._disallow_lpage: dict[int, dict[int, int]] = {2: {}, 3: {}}

    def account(self, gfn: int, level: int, change: int) -> None:
        """Add `change` (1 or -1) shadowed tables of `level` at a gfn."""
        self.indirect_shadow_pages += change
        if level > 1:
            _add(self._write_tracked, gfn, change)
        for large, blocks in self._disallow_lpage.items():
            _add(blocks, gfn >> 9 * (large - 1), change)

    def is_write_tracked(self, gfn: int) -> bool:
        """Return whether KVM must emulate every guest write to this gfn."""
        return gfn in self._write_tracked

    def disallows_lpage(self, gfn: int, level: int) -> bool:
        """Return whether a shadowed table forbids that a large page at `level` maps this gfn."""
        return gfn >> 9 * (level - 1) in self._disallow_lpage[level]

    def clear(self) -> None:
        """Forget every table: all shadow pages were zapped."""
        self.indirect_shadow_pages = 0
        self._write_tracked.clear()
        for blocks in self._disallow_lpage.values():
            blocks.clear()


def _add(counts: dict[int, int], key: int, change: int) -> None:
    number = counts.get(key, 0) + change
    if number:
        counts[key] = number
    else:
        del counts[key]

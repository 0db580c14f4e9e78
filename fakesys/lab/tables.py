"""Tables of an experiment, which the command prints and tests read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

if TYPE_CHECKING:
    from rich.table import Table as RichTable


class Table(Struct, frozen=True):
    """A table with a title above and notes below.

    The first column is text, all others are numbers. A newline within a head makes it two lines.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def for_terminal(self) -> RichTable:
        """Return head and rows for rich, but no title: rich would wrap it to their width."""
        from rich import box
        from rich.table import Table as RichTable

        table = RichTable(box=box.SIMPLE_HEAD, padding=0)
        for place, name in enumerate(self.head):
            table.add_column(name, justify=_side(place), no_wrap=True)
        for row in self.rows:
            table.add_row(*row)
        return table


def _side(place: int) -> Literal["left", "right"]:
    return "right" if place else "left"

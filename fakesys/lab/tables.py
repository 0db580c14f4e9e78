"""Tables of an experiment: what the command prints and what tests read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

if TYPE_CHECKING:
    from rich.table import Table as RichTable


class Table(Struct, frozen=True):
    """`title` above, `notes` below; the first column is text, all others are numbers.

    A newline within a head makes two lines of it.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def for_terminal(self) -> RichTable:
        """The rows for rich; a long title would be wrapped to their width, so it is not in it."""
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

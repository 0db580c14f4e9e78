"""What all plots share: matplotlib only when it is needed, no window, files that do not differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Blue and orange differ for everybody; grey is for what is neither.
BLUE, ORANGE, GREY = "#2166ac", "#d6604d", "#777777"
KINDS = (".png", ".svg")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches. Raises ImportError without matplotlib."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def check(path: Path) -> None:
    """Before a long experiment: can a plot be written there?

    Raises ImportError without matplotlib, OSError or ValueError for the file.
    """
    import matplotlib  # noqa: F401

    if path.suffix not in KINDS:
        raise ValueError(f"the name ends in neither {' nor '.join(KINDS)}")
    with path.open("ab"):
        pass


def save(draw: Callable[[], Figure], path: Path) -> None:
    """Draw and write an SVG or PNG file, by its name. Same numbers, same bytes.

    Raises ImportError without matplotlib, OSError.
    """
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "fakesys", "svg.fonttype": "none"}):
        draw().savefig(path, dpi=120, metadata=_no_date(path))


def _no_date(path: Path) -> dict[str, Any]:
    return {"Date": None} if path.suffix == ".svg" else {}

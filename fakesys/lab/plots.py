"""The parts that all plots share. The same numbers make the same bytes of a file.

matplotlib is imported when a plot is asked for; no window is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Blue and orange can be told apart with any kind of colour vision; grey is for a third thing.
BLUE, ORANGE, GREY = "#2166ac", "#d6604d", "#777777"
# Curves of one plot: each has a colour that can be told from the others, and a mark.
CURVES = (
    (ORANGE, "o"),
    (BLUE, "s"),
    (GREY, "^"),
    ("#1b7837", "D"),
    ("#762a83", "v"),
    ("#000000", "P"),
    ("#b8860b", "X"),
    ("#01928f", "*"),
)
KINDS = (".png", ".svg")


def new_sheet(title: str) -> Figure:
    """Return an empty figure for several plots. Raises ImportError without matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 9), layout="constrained")
    figure.suptitle(title)
    return figure


def add_grid_and_legend(axes: Axes, **legend: str) -> None:
    """Finish a plot: faint grid lines and a legend with these options of matplotlib."""
    axes.grid(alpha=0.3)
    axes.legend(**legend)


def check(path: Path) -> None:
    """Refuse a file to which no plot can be written, before a long experiment.

    Raises ImportError without matplotlib, ValueError for the name, OSError for the file.
    """
    import matplotlib  # noqa: F401

    if path.suffix not in KINDS:
        raise ValueError(f"the name ends in neither {' nor '.join(KINDS)}")
    with path.open("ab"):
        pass


def save(draw: Callable[[], Figure], path: Path) -> None:
    """Draw and write a file, SVG or PNG by its name. Raises ImportError, OSError."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "fakesys", "svg.fonttype": "none"}):
        draw().savefig(path, dpi=120, metadata=_no_date(path))


def _no_date(path: Path) -> dict[str, Any]:
    return {"Date": None} if path.suffix == ".svg" else {}

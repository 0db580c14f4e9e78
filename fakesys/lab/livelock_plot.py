"""Draw the livelock experiment: work and time of both flows, and the patch levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fakesys.lab import plots
from fakesys.lab.livelock import FLOWS, PATCH_LEVELS, Outcome, Setup, drops, legend
from fakesys.subsystems.kvm_mmu.guest.race import Ending, RaceResult
from fakesys.subsystems.kvm_mmu.shadow.policy import ZapFlow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {ZapFlow.ZAP_ALL: plots.ORANGE, ZapFlow.FAST: plots.BLUE}
_STYLES = {Ending.DONE: "-", Ending.LIVELOCK: "", Ending.UNDECIDED: ""}
_MARKS = {
    ZapFlow.ZAP_ALL: {Ending.DONE: "s", Ending.LIVELOCK: "X", Ending.UNDECIDED: "1"},
    ZapFlow.FAST: {Ending.DONE: "o", Ending.LIVELOCK: "P", Ending.UNDECIDED: "2"},
}
_NAMES = {ZapFlow.ZAP_ALL: "zap_all (before the series)", ZapFlow.FAST: "fast (the series)"}


def draw(setup: Setup, flows: list[Outcome], patches: list[Outcome]) -> Figure:
    """Draw both comparisons on one sheet. Raises ImportError without matplotlib."""
    figure = plots.new_sheet(f"Deleting a memslot while vCPUs fault ({setup.summary})")
    grid = figure.add_gridspec(2, 2, height_ratios=(1, 1.2))
    work = figure.add_subplot(grid[0, 0])
    _draw_flows(work, flows, lambda result: result.zapped)
    work.set(title=f"Work, kernel {setup.kernel}", ylabel="shadow pages zapped")
    time = figure.add_subplot(grid[0, 1])
    _draw_flows(time, flows, lambda result: result.vtime_ns / 1e6)
    time.set(title=f"Time, kernel {setup.kernel}", ylabel="virtual milliseconds")
    _draw_patches(figure.add_subplot(grid[1, :]), setup, patches)
    return figure


def _draw_flows(axes: Axes, outcomes: list[Outcome], value: Callable[[RaceResult], float]) -> None:
    from matplotlib.ticker import MaxNLocator

    for flow in FLOWS:
        colour = _COLOURS[flow]
        for ending, style in _STYLES.items():
            mine = [
                (case.vcpus, value(result))
                for case, result in outcomes
                if case.flow is flow and result.ending is ending
            ]
            if mine:
                label = f"{_NAMES[flow]}: {ending.value}"
                mark = _MARKS[flow][ending]
                axes.plot(
                    *zip(*mine, strict=True), ls=style, marker=mark, ms=8, color=colour, label=label
                )
    axes.set_yscale("log")
    axes.set_xlabel("running vCPUs")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    plots.add_grid_and_legend(axes, fontsize="small")


def _draw_patches(axes: Axes, setup: Setup, outcomes: list[Outcome]) -> None:
    """Draw a square per kernel and number of vCPUs, with how often the lock was dropped."""
    results = {(case.policy.name, case.vcpus): result for case, result in outcomes}
    names = [policy.name for policy in PATCH_LEVELS]
    for row, name in enumerate(names):
        for column, vcpus in enumerate(setup.vcpus):
            _draw_square(axes, column, row, results[name, vcpus])
    axes.set_xlim(-0.5, len(setup.vcpus) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xticks(range(len(setup.vcpus)), [str(vcpus) for vcpus in setup.vcpus])
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("running vCPUs")
    axes.set_title(
        f"Drops of the lock by patch level (blue: done; {legend(setup)})", fontsize="medium"
    )


def _draw_square(axes: Axes, column: int, row: int, result: RaceResult) -> None:
    from matplotlib.patches import Rectangle

    colour = plots.BLUE if result.done else plots.ORANGE
    square = Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, color=colour, alpha=0.45, lw=0)
    axes.add_patch(square)
    axes.text(column, row, drops(result), ha="center", va="center", fontsize="small")

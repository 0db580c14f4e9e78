"""Draw a boot and the storms: counts over time, when AVIC was off, cost of a window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fakesys.lab import plots
from fakesys.lab.apicv import Setup, Step, Storm, Timeline
from fakesys.machine.kernels.apicv import APICV_KERNELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Marks of a curve of steps, and the part of the width that a letter of a label takes.
_MARKS_OF_A_CURVE = 12
_LETTER = 0.0085
_ROW = 0.06


def draw(setup: Setup, timeline: Timeline, storms: list[Storm]) -> Figure:
    """Draw both experiments on one sheet. Raises ImportError without matplotlib."""
    figure = plots.new_sheet(f"AVIC during a boot: {setup.summary}")
    grid = figure.add_gridspec(3, 2, height_ratios=(1.3, 0.35, 1.3))
    counts = figure.add_subplot(grid[0, :])
    _draw_counts(counts, timeline)
    state = figure.add_subplot(grid[1, :], sharex=counts)
    _draw_state(state, timeline)
    running = figure.add_subplot(grid[2, 0])
    _draw_storms(running, setup, storms, halted=False)
    halted = figure.add_subplot(grid[2, 1], sharey=running)
    _draw_storms(halted, setup, storms, halted=True)
    return figure


def _draw_counts(axes: Axes, timeline: Timeline) -> None:
    times = [sample.seconds * 1e3 for sample in timeline.samples]
    for place, (name, style) in enumerate(
        (("exits", "-"), ("injections", "-"), ("events", "--")),
    ):
        colour, mark = plots.CURVES[place]
        values = [getattr(sample, name) for sample in timeline.samples]
        # Curves that lie on each other have their marks at different places.
        every = max(1, len(values) // _MARKS_OF_A_CURVE)
        axes.step(
            times, values, style, where="post", color=colour, label=name, marker=mark, ms=5,
            markevery=(place * every // 3, every),
        )  # fmt: skip
    top = max(sample.exits for sample in timeline.samples)
    axes.set(ylabel="count since creation", ylim=(0, top * 1.05))
    _name_steps(axes, timeline)
    plots.add_grid_and_legend(axes, loc="upper left", fontsize="small")


def _name_steps(axes: Axes, timeline: Timeline) -> None:
    """Write the names of the long steps above the plot, in as many rows as they need."""
    low, high = axes.get_xlim()
    ends: list[float] = []
    for step in timeline.steps:
        # There is no room for the names of the short steps.
        if _seconds(step) <= timeline.samples[-1].seconds / 40:
            continue
        start = step.first.seconds * 1e3
        axes.axvline(start, color=plots.GREY, lw=0.6, alpha=0.6)
        left = (start - low) / (high - low)
        row = next((row for row, end in enumerate(ends) if end < left), len(ends))
        ends[row : row + 1] = [left + _LETTER * (len(step.name) + 2)]
        place = (left, 1.02 + row * _ROW)
        axes.text(*place, step.name, transform=axes.transAxes, fontsize="small", va="bottom")


def _seconds(step: Step) -> float:
    return step.last.seconds - step.first.seconds


def _draw_state(axes: Axes, timeline: Timeline) -> None:
    times = [sample.seconds * 1e3 for sample in timeline.samples]
    on = [int(sample.active) for sample in timeline.samples]
    axes.fill_between(times, on, step="post", color=plots.BLUE, alpha=0.5, lw=0)
    last = timeline.samples[-1]
    axes.set(xlabel="simulated milliseconds", ylim=(0, 1.05))
    axes.set_yticks((0, 1), ("off", "active"))
    axes.set_title(f"AVIC of the VM: {last.off} times off, {last.on} on", fontsize="medium")


def _label(names: list[str]) -> str:
    """Return one label for curves that are the same: each count with its kernels."""
    kernels: dict[str, list[str]] = {}
    for name in names:
        what, kernel = name.split(" ", 1)
        kernels.setdefault(what, []).append(kernel)
    return "; ".join(
        f"{what}, {'all kernels' if len(found) == len(APICV_KERNELS) else ', '.join(found)}"
        for what, found in kernels.items()
    )


def _draw_storms(axes: Axes, setup: Setup, storms: list[Storm], *, halted: bool) -> None:
    others = "halted" if halted else "in guest"
    curves: dict[tuple[float, ...], list[str]] = {}
    for what in ("exits", "events"):
        for kernel in APICV_KERNELS:
            mine = [one for one in storms if one.kernel == kernel and one.halted is halted]
            curves.setdefault(tuple(getattr(one, what) for one in mine), []).append(
                f"{what} {kernel}"
            )
    for (values, names), (colour, mark) in zip(curves.items(), plots.CURVES, strict=False):
        axes.plot(
            setup.storms, values, "-", marker=mark, ms=6, lw=1, color=colour, label=_label(names)
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(setup.storms, [str(number) for number in setup.storms])
    axes.minorticks_off()
    axes.set(
        xlabel=f"vCPUs, all but one {others}",
        ylabel="per window",
        title=f"{setup.windows} interrupt windows, the others {others}",
    )
    plots.add_grid_and_legend(axes, loc="upper left", fontsize="x-small")

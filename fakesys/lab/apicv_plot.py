"""Draw a boot and the storms: counts over time, when AVIC was off, cost of a window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fakesys.lab import plots
from fakesys.lab.apicv import Setup, Step, Storm, Timeline
from fakesys.machine.kernels.apicv import APICV_KERNELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = ("o", "s", "^", "v", "P", "D")


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
    for name, colour, style in (
        ("exits", plots.ORANGE, "-"),
        ("injections", plots.BLUE, "-"),
        ("events", plots.GREY, "--"),
    ):
        values = [getattr(sample, name) for sample in timeline.samples]
        axes.step(times, values, style, where="post", color=colour, label=name)
    top = max(sample.exits for sample in timeline.samples)
    # There is no room for the names of the short steps.
    long = [step for step in timeline.steps if _seconds(step) > times[-1] / 1e3 / 40]
    for number, step in enumerate(long):
        start = step.first.seconds * 1e3
        axes.axvline(start, color=plots.GREY, lw=0.6, alpha=0.6)
        height = top * (0.99 if number % 2 else 0.90)
        axes.text(start, height, f" {step.name}", fontsize="small", va="top")
    axes.set(ylabel="count since creation", ylim=(0, top * 1.05))
    plots.add_grid_and_legend(axes, loc="lower right", fontsize="small")


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


def _draw_storms(axes: Axes, setup: Setup, storms: list[Storm], *, halted: bool) -> None:
    others = "halted" if halted else "in guest"
    for kernel, marker in zip(APICV_KERNELS, _MARKERS, strict=True):
        mine = [one for one in storms if one.kernel == kernel and one.halted is halted]
        vcpus = [one.vcpus for one in mine]
        axes.plot(
            vcpus, [one.exits for one in mine], "-", marker=marker, ms=5, lw=1, alpha=0.75,
            color=plots.ORANGE, label="exits" if kernel == "v3" else None,
        )  # fmt: skip
        axes.plot(
            vcpus, [one.events for one in mine], "--", marker=marker, ms=5, lw=1, alpha=0.75,
            color=plots.BLUE, label=f"events, {kernel}",
        )  # fmt: skip
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

"""`fakesys lab`: experiments with the models, printed as tables and, if asked for, plotted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fakesys.cli.show import picture_options, plot_files, save_plots
from fakesys.pool.options import pool_options

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fakesys.lab.tables import Table
    from fakesys.pool.pool import Pool

# Wide enough for every table; rich does not fill the lines with blanks.
PIPE_WIDTH = 400


def counts_within(low: int, high: int) -> Callable[[str], tuple[int, ...]]:
    """Return a parser of numbers and ranges, such as `0-16` or `0,1,2,4,8`.

    Its result is in order and has each number once. It raises BadParameter.
    """

    def counts(text: str) -> tuple[int, ...]:
        try:
            ranges = [_range(part) for part in text.split(",")]
        except ValueError:
            raise click.BadParameter(f"{text!r} is not a list such as 0-16 or 0,1,2,4,8") from None
        if any(first < low or last > high or last < first for first, last in ranges):
            raise click.BadParameter(f"{text!r} is not within {low}-{high}")
        return tuple(sorted({n for first, last in ranges for n in range(first, last + 1)}))

    return counts


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)


def size(text: str) -> int:
    """Parse a number of bytes, with or without K, M, G or T. Raises BadParameter."""
    from fakesys.core import commands
    from fakesys.core.errors import KernelError

    try:
        return commands.size(text)
    except KernelError:
        raise click.BadParameter(f"{text!r} is not a size such as 64M") from None


@click.group(epilog="Example: fakesys lab livelock --svg livelock.svg")
def lab() -> None:
    """Run an experiment with the models."""


@lab.command(epilog="Example: fakesys lab livelock --vcpus 0,1,2,4,8 --ws 16M --svg livelock.svg")
@click.option(
    "--vcpus",
    type=counts_within(0, 64),
    default="0-16",
    show_default=True,
    help="Numbers of vCPUs that fault meanwhile.",
)
@click.option(
    "--ws", type=size, default="64M", show_default=True, help="Bytes that each vCPU touches."
)
@click.option("--kernel", default="5.4-stable", show_default=True, help="On which flows compare.")
@click.option("--seed", type=int, default=1, show_default=True, help="Where the vCPUs begin.")
@click.option(
    "--max-rounds",
    type=click.IntRange(1, 1_000_000),
    default=5000,
    show_default=True,
    help="Drops of the lock until a race is given up.",
)
@click.option("--preempt/--no-preempt", default=True, help="Is the kernel preemptible?")
@pool_options
@picture_options("Also plot to")
def livelock(
    pool: Pool,
    vcpus: tuple[int, ...],
    ws: int,
    kernel: str,
    seed: int,
    max_rounds: int,
    preempt: bool,
    svg: Path | None,
    png: Path | None,
) -> None:
    """Delete a memslot while vCPUs fault: zap_all against the fast flow.

    First both flows on one kernel, then the kernel before the series and each of its eleven
    patches with the flow that it calls by itself. Nothing depends on real time: the same options
    give the same numbers.
    """
    from fakesys.core.errors import KernelError
    from fakesys.lab import livelock as experiment
    from fakesys.lab import tasks
    from fakesys.machine.kernels.mmu import MMU_KERNELS

    _require_one_of("kernels", kernel, MMU_KERNELS)
    setup = experiment.Setup(vcpus, ws, kernel, seed, max_rounds, preempt)
    plots = plot_files(svg, png)
    try:
        with progress("races", tasks.number_of_races(setup)) as tell:
            outcomes = tasks.races(pool, setup, tell)
    except KernelError as error:
        raise click.UsageError(error.why) from None
    flows = len(experiment.flow_cases(setup))
    by_flow, by_patch = outcomes[:flows], outcomes[flows:]
    print_tables(experiment.flow_table(setup, by_flow), experiment.patch_table(setup, by_patch))

    def draw() -> Figure:
        from fakesys.lab.livelock_plot import draw

        return draw(setup, by_flow, by_patch)

    save_plots(draw, plots)


@lab.command(epilog="Example: fakesys lab apicv --preset linux-boot --vcpus 17 --svg apicv.svg")
@click.option("--preset", default="linux-boot", show_default=True, help="Which guest boots.")
@click.option("--vcpus", type=click.IntRange(1, 1024), default=17, show_default=True)
@click.option("--kernel", default="v3", show_default=True, help="The kernel of the boot.")
@click.option("--hv-synic", is_flag=True, help="Each vCPU has Hyper-V's interrupt controller.")
@click.option("--reinject/--no-reinject", default=True, help="Of lost ticks of the timer.")
@click.option(
    "--storms",
    type=counts_within(1, 255),
    default="1,2,4,8,16,32,64,128,255",
    show_default=True,
    help="Numbers of vCPUs during storms.",
)
@click.option("--windows", type=click.IntRange(1, 100_000), default=100, show_default=True)
@click.option("--patches", is_flag=True, help="Only a table of the levels of the series.")
@pool_options
@picture_options("Also plot to")
def apicv(
    pool: Pool,
    patches: bool,
    preset: str,
    vcpus: int,
    kernel: str,
    hv_synic: bool,
    reinject: bool,
    storms: tuple[int, ...],
    windows: int,
    svg: Path | None,
    png: Path | None,
) -> None:
    """Boot a guest over simulated time, and let interrupt windows storm.

    The boot: exits, injections, and when AVIC was switched off and on. The storms: what one
    interrupt window costs, by number of vCPUs, in every kernel.
    """
    from fakesys.core.errors import KernelError
    from fakesys.lab import apicv as experiment
    from fakesys.lab import tasks
    from fakesys.machine.kernels.apicv import APICV_KERNELS
    from fakesys.subsystems.apicv.presets import GUESTS

    if patches:
        _apicv_levels(pool, vcpus)
        return
    _require_one_of("kernels", kernel, APICV_KERNELS)
    _require_one_of("presets", preset, GUESTS)
    setup = experiment.Setup(preset, vcpus, kernel, hv_synic, reinject, storms, windows)
    plots = plot_files(svg, png)
    try:
        timeline = experiment.boot(setup)
    except KernelError as error:
        raise click.UsageError(error.why) from None
    with progress("storms", len(experiment.storm_cases(setup))) as tell:
        measured = tasks.storms(pool, setup, tell)
    print_tables(
        experiment.boot_table(setup, timeline),
        *(experiment.storm_table(setup, measured, halted=halted) for halted in (False, True)),
    )

    def draw() -> Figure:
        from fakesys.lab.apicv_plot import draw

        return draw(setup, timeline, measured)

    save_plots(draw, plots)


def _apicv_levels(pool: Pool, vcpus: int) -> None:
    from fakesys.lab import series, tasks

    with progress("levels", len(series.APICV_LEVELS)) as tell:
        measured = tasks.apicv_levels(pool, vcpus, tell)
    print_tables(series.apicv_table(measured, vcpus))


@lab.command(epilog="Example: fakesys lab ap")
@pool_options
def ap(pool: Pool) -> None:
    """Share crypto queues before the series and after each of its patches, where that works."""
    from fakesys.lab import series, tasks

    with progress("levels", len(series.AP_LEVELS)) as tell:
        measured = tasks.ap_levels(pool, tell)
    print_tables(series.ap_table(measured))


def _require_one_of(kind: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise click.UsageError(f"{name!r} is not one of the {kind}: {', '.join(known)}")


def print_tables(*tables: Table) -> None:
    """Print tables one after the other, in their full width unless on a terminal."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)
    for table in tables:
        console.print(table.title, soft_wrap=True)
        console.print(table.for_terminal())
        for note in table.notes:
            console.print(note, soft_wrap=True)
        console.print()


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int, object], None]]:
    """Offer a function to call after each case; a bar on standard error if that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda _index, _result: bar.advance(task)

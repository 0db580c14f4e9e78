"""`fakesys sweep`: every failure of one program."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from fakesys.cli.machine_options import MachineOptions, machine_options
from fakesys.pool.options import pool_options

if TYPE_CHECKING:
    from rich.console import Console

    from fakesys.pool.pool import Pool
    from fakesys.sweep.plan import Cell
    from fakesys.sweep.search import Report, Sweep

INTERRUPTED = 130
R = TypeVar("R")
_FILE = click.Path(dir_okay=False, path_type=Path)


def _words(_context: click.Context, _option: click.Parameter, text: str) -> tuple[str, ...]:
    return tuple(word for word in text.replace(" ", ",").split(",") if word)


class SweepOptions(NamedTuple):
    """The values of the options."""

    only: tuple[str, ...]
    faults: tuple[str, ...]
    paths: str
    limit: int | None
    seconds: float
    late: float
    rival: tuple[Path, ...]
    check: str
    replay: str
    resume: Path | None
    json_file: Path | None
    html_file: Path | None
    junit_file: Path | None
    pool: Pool
    net: bool


OPTIONS = (
    click.option(
        "--only", default="", callback=_words, help="Operations: numbers, or open, read, ..."
    ),
    click.option(
        "--faults",
        default="",
        callback=_words,
        help="Disturbances: errno, gone, rival, kill, late, or single ones: EBUSY,kill-after.",
    ),
    click.option("--paths", default="", help="Operations on files whose paths match a pattern."),
    click.option("--limit", type=click.IntRange(1), default=None, help="So many cells."),
    click.option("--seconds", type=click.FloatRange(0.1), default=10.0, help="Limit of each run."),
    click.option(
        "--late",
        type=click.FloatRange(0.0, 1e6),
        default=0.5,
        help="Simulated seconds after which a device that is late comes.",
    ),
    click.option(
        "--rival", type=_FILE, multiple=True, help="Lines `echo TEXT > FILE` of another process."
    ),
    click.option("--check", default="", help="A command that must succeed after each run."),
    click.option("--replay", default="", metavar="CELL", help="Run one cell, such as 7:EBUSY."),
    click.option("--resume", type=_FILE, help="Leave out the cells of a --json file."),
    click.option("--json", "json_file", type=_FILE, help="Write the report to this file."),
    click.option("--html", "html_file", type=_FILE, help="Write a page with the table."),
    click.option("--junit", "junit_file", type=_FILE, help="Write a report for JUnit."),
    click.option("--net", is_flag=True, help="As of `fakesys exec`."),
)


def _sweep_options(command: Callable[..., R]) -> Callable[..., R]:
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@click.command(
    context_settings={"allow_interspersed_args": False},
    epilog="Example: fakesys sweep -- sh free-adapter.sh 5 4",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@_sweep_options
@pool_options
@machine_options
def sweep(options: MachineOptions, command: tuple[str, ...], **values: Any) -> None:
    """Run COMMAND once for each failure that it can meet, each time on a fresh machine.

    Each operation on the fake is disturbed in each way: by an errno, by a device that is gone or
    late, by writes of another process, by SIGKILL. Exit status 0: COMMAND deals with all of them.
    1: there are findings, which are printed. 2: wrong usage.
    """
    from fakesys.sweep.cell import end_zygote

    chosen = SweepOptions(**values)
    try:
        with _progress() as tell:
            status = _swept(_sweep_of(options, command, chosen, tell), chosen)
    finally:
        end_zygote()
    click.get_current_context().exit(status)


def _sweep_of(
    options: MachineOptions,
    command: tuple[str, ...],
    chosen: SweepOptions,
    tell: Callable[[int, int], None],
) -> Sweep:
    """Return the sweep that the options ask for. Raises UsageError."""
    from fakesys.sweep.disturbances import RivalError, rival_of
    from fakesys.sweep.plan import Choice, program_of
    from fakesys.sweep.search import Sweep, runner

    program = program_of(
        command,
        options.machine(),
        dict(os.environ),
        Path.cwd(),
        net=chosen.net,
        seconds=chosen.seconds,
        check=tuple(shlex.split(chosen.check)),
    )
    try:
        rivals = dict(map(rival_of, chosen.rival))
    except RivalError as error:
        raise click.UsageError(str(error)) from None
    choice = Choice(
        chosen.only, chosen.faults, chosen.paths, chosen.limit or 0, chosen.late, rivals
    )
    return Sweep(program, choice, runner(chosen.pool, command), tell)


def _swept(sweep: Sweep, chosen: SweepOptions) -> int:
    """Do a sweep and tell what it found; return the exit status. Raises UsageError."""
    from fakesys.sweep.report import ReportError, from_json
    from fakesys.sweep.search import SweepError

    interrupted = False
    try:
        sweep.begin()
        if chosen.resume is not None:
            sweep.former = from_json(chosen.resume.read_bytes(), sweep.report)
        cells = _replayed(sweep, chosen.replay) if chosen.replay else sweep.cells()
        try:
            sweep.go_on(cells)
        except KeyboardInterrupt:
            interrupted = True
    except (SweepError, ReportError) as error:
        raise click.UsageError(str(error)) from None
    _tell(sweep.report, chosen)
    if interrupted:
        return INTERRUPTED
    return 1 if sweep.report.findings else 0


def _tell(report: Report, chosen: SweepOptions) -> None:
    """Print a report and write the files that are asked for."""
    from rich.console import Console

    from fakesys.sweep.pages import to_html, to_junit
    from fakesys.sweep.report import WIDTH, show, to_json

    console = Console(width=None if Console().is_terminal else WIDTH)
    show(report, console)
    if chosen.replay:
        _log(report, console)
    if chosen.json_file is not None:
        chosen.json_file.write_bytes(to_json(report))
    if chosen.html_file is not None:
        chosen.html_file.write_text(to_html(report), encoding="utf-8", errors="replace")
    if chosen.junit_file is not None:
        chosen.junit_file.write_text(to_junit(report), encoding="utf-8", errors="replace")


def _replayed(sweep: Sweep, name: str) -> list[Cell]:
    cells = [cell for cell in sweep.cells() if cell.name == name]
    if not cells:
        known = ", ".join(cell.name for cell in sweep.cells())
        raise click.UsageError(f"there is no cell {name}; there are {known}")
    return cells


def _log(report: Report, console: Console) -> None:
    """Print what the program of a single cell did and wrote."""
    for one in report.judged:
        console.print(f"\n{one.cell.name} {one.verdict}: {one.why}", markup=False)
        for operation in one.log:
            result = operation.result or "ok"
            console.print(f"{operation.number:4} {operation.title}: {result}", markup=False)
        console.print(one.output, markup=False, end="")


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Offer a function that shows how many cells are done, on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _done, _all: None
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)

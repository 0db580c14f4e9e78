"""`fakesys explore`: every order in which actors can do their steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fakesys.explore.search import Outcome, Progress

# Neither decided nor wrong: the search ended before.
UNDECIDED = 3
# Seconds between two looks of the progress.
_PAUSE = 0.2


@click.command(
    epilog="Example: fakesys explore mask-assign-unplug --ap-profile 5.3 --script way.sh"
)
@click.argument("file", required=False)
@click.option("--profile", help="The kernel, such as 6.12; else the file's.")
@click.option("--ap-profile", help="The kernel of the AP part, such as 5.3 or v6-08.")
@click.option("--mmu-profile", help="The kernel of KVM's memory, such as series-06.")
@click.option("--apicv-profile", help="The kernel of AVIC, such as v3-16.")
@click.option("--limit", type=click.IntRange(1), help="End after so many states.")
@click.option(
    "--script",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the way to a violation to this file, not to standard output.",
)
@click.pass_context
def explore(
    context: click.Context,
    file: str | None,
    profile: str | None,
    ap_profile: str | None,
    mmu_profile: str | None,
    apicv_profile: str | None,
    limit: int | None,
    script: Path | None,
) -> None:
    """Try every order of the steps of the actors in FILE, and ask what must hold.

    FILE is the name of a shipped example or the path of a .toml file; without it, the examples are
    listed. Exit status 0: it holds in every order. 1: it does not; the shortest way there is
    printed as a script for `fakesys replay`. 3: ended by --limit or Ctrl-C before that is decided.
    """
    from fakesys.explore import search
    from fakesys.explore.task import Levels, TaskError, shipped, task_of

    if file is None:
        for name in shipped():
            click.echo(f"{name:24} {task_of(name).description}")
        return
    kernels = Levels(ap=ap_profile, mmu=mmu_profile, apicv=apicv_profile)
    began = time.monotonic()
    try:
        with _progress() as tell:
            outcome = search.explore(task_of(file, profile, kernels), limit, tell)
    except TaskError as error:
        raise click.UsageError(str(error)) from None
    _report(outcome, time.monotonic() - began, script)
    if outcome.violation is not None:
        context.exit(1)
    context.exit(0 if outcome.complete else UNDECIDED)


def _report(outcome: Outcome, seconds: float, script: Path | None) -> None:
    found, violation = outcome.progress, outcome.violation
    if violation is None:
        click.echo("holds" if outcome.complete else "undecided: ended before all was tried")
    elif script is None:
        click.echo(violation.script, nl=False)
    else:
        script.write_text(violation.script, encoding="utf-8", errors="surrogateescape")
        script.chmod(0o755)
    if violation is not None:
        for line in violation.wrong:
            click.echo(f"violated after {violation.steps} steps: {line}", err=True)
    click.echo(
        f"{outcome.decided} of {outcome.orders} orders to their end; {found.states} states, "
        f"{found.machines} of the machine; {found.executed} steps done in {seconds:.1f} s",
        err=True,
    )


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """Offer a function that shows how far it is, on standard error if that is a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _progress: None
        return
    with console.status("") as status:
        due = 0.0

        def tell(progress: Progress) -> None:
            nonlocal due
            if time.monotonic() < due:
                return
            due = time.monotonic() + _PAUSE
            status.update(
                f"{progress.depth} of {progress.depths} steps deep, {progress.states} states, "
                f"{progress.executed} steps done"
            )

        yield tell

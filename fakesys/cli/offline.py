"""The commands that need no mount: `fakesys run`, `fakesys abi`, `fakesys doc`."""

from __future__ import annotations

import sys
from importlib import resources

import click

from fakesys.cli.machine_options import SEED, machine_of


@click.command(epilog="Example: fakesys run vfio-ap-three-guests")
@click.argument("scenario", required=False)
@click.option("--profile", help="Kernel to imitate: seed, 6.1, 6.12 or 6.18; else the scenario's.")
@click.option("--seed", type=SEED, help="Seed of the random generator; else the scenario's.")
def run(scenario: str | None, profile: str | None, seed: int | None) -> None:
    """Run SCENARIO in memory, without FUSE and root, and print what happens.

    SCENARIO is the name of a shipped one or the path of a .toml file; without it, those that come
    with fakesys are listed. Exit status 1 when something was not as the scenario expects.
    """
    from fakesys.machine.scenario import load, shipped
    from fakesys.machine.timeline import Timeline

    if scenario is None:
        for name in shipped():
            click.echo(f"{name:24} {load(name).description}")
        return
    machine = machine_of(scenario, profile=profile, seed=seed)
    timeline = Timeline(machine, click.echo)
    timeline.run()
    if machine.control.bugs:
        raise click.ClickException(f"internal error:\n{machine.control.bugs[0]}")
    if timeline.failures:
        count = len(timeline.failures)
        raise click.ClickException(f"{count} not as expected, first: {timeline.failures[0]}")


@click.command(epilog="Example: fakesys abi | less")
@click.option("--markdown", "as_markdown", is_flag=True, help="As the shipped Markdown page.")
def abi(as_markdown: bool) -> None:
    """Print the reference of all files and tracepoints."""
    from fakesys.machine.reference import page as reference

    sys.stdout.write(reference.markdown() if as_markdown else reference.plain())


@click.command(epilog="Example: fakesys doc tour")
@click.argument("name", required=False)
def doc(name: str | None) -> None:
    """Print a shipped text; without NAME, list them."""
    folder = resources.files("fakesys") / "docs"
    names = sorted(
        entry.name.removesuffix(".md") for entry in folder.iterdir() if entry.name.endswith(".md")
    )
    if name is None:
        click.echo("\n".join(names))
        return
    if name not in names:
        raise click.UsageError(f"{name!r} is not one of the texts: {', '.join(names)}")
    click.echo((folder / f"{name}.md").read_text(), nl=False)

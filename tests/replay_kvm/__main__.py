"""Prints a line per recording, then what differs."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click

from fakesys.core.errors import KernelError
from tests.replay_kvm.machines import Events, Files, in_process, on_mount
from tests.replay_kvm.recordings import ORACLE, RecordingError, load
from tests.replay_kvm.replay import Replay, Verdict


@click.command(epilog="Example: python -m tests.replay_kvm tests/oracle/kvm --mount ./mountpoint")
@click.argument("folder", type=click.Path(path_type=Path), default=ORACLE)
@click.option("--mount", type=click.Path(path_type=Path), help="Replay on this mount.")
@click.option("--only", metavar="NAME", help="One of the recordings.")
def command(folder: Path, mount: Path | None, only: str | None) -> None:
    """Replay recordings of a real KVM and compare.

    FOLDER has scenarios/*.json, or the files themselves, and aliases.json. Exit status 1 when
    something differs, 2 when the folder cannot be used.
    """
    try:
        recordings = load(folder)
    except RecordingError as error:
        raise click.UsageError(str(error)) from None
    wanted = [entry for entry in recordings.scenarios if only in (None, entry["scenario"])]
    if not wanted:
        raise click.UsageError(f"{folder}: no recording {only!r}")
    verdicts = []
    for scenario in wanted:
        verdict = _replay(scenario, recordings.aliases, mount)
        click.echo(verdict.line())
        verdicts.append(verdict)
    for verdict in verdicts:
        for difference in verdict.differences:
            click.echo(difference)
    equal = sum(verdict.equal for verdict in verdicts)
    click.echo(f"{equal} of {len(verdicts)} equal")
    if equal < len(verdicts):
        raise click.exceptions.Exit(1)


def _replay(scenario: dict[str, Any], aliases: dict[str, list[str]], mount: Path | None) -> Verdict:
    machine: AbstractContextManager[tuple[Files, Events]]
    machine = in_process() if mount is None else on_mount(mount)
    try:
        with machine as (files, events):
            return Replay(files, events, aliases).run(scenario)
    except KernelError as error:
        raise click.ClickException(f"{mount}: {error.why}") from None


def main(arguments: list[str]) -> int:
    """The exit status; problems are one line on standard error."""
    try:
        status: int | None = command.main(arguments, "replay_kvm", standalone_mode=False)
    except click.ClickException as error:
        click.echo(f"replay_kvm: {error.format_message()}", err=True)
        return error.exit_code
    return status or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

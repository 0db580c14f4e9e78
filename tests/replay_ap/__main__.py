"""Prints what differs, then a line per recording."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tests.replay_ap.recordings import ORACLE, recordings
from tests.replay_ap.replay import differences


@click.command(epilog="Example: python -m tests.replay_ap --only 6.1-12")
@click.argument("folder", type=click.Path(path_type=Path), default=ORACLE)
@click.option("--only", default="", metavar="TEXT", help="Those whose name begins so.")
@click.option("--limit", default=20, help="Differences that are printed of each.")
def command(folder: Path, only: str, limit: int) -> None:
    """Play recordings of the real AP drivers and compare; exit status 1 when something differs."""
    summary, failed = [], False
    for recording in recordings(folder):
        if not recording.id.startswith(only):
            continue
        found = list(differences(recording))
        failed = failed or bool(found)
        for difference in found[:limit]:
            click.echo(f"{recording.id} {difference}")
        summary.append(f"{recording.id}: {len(found)} of {len(recording.steps)} steps differ")
    click.echo("\n".join(summary))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    command()

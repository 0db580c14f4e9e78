"""Start a daemon in the background, and report to the user why it did not start."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from fakesys.cli.failures import line_about
from fakesys.cli.machine_options import MachineOptions
from fakesys.daemon.background import Ready, Refused
from fakesys.transport.mounting import MountError


def daemon_of(
    options: MachineOptions,
    point: Path,
    *,
    ready_fd: int | None = None,
    lives_with: int | None = None,
    before_mounting: Callable[[], None] = lambda: None,
) -> Callable[[], Callable[[Ready], None]]:
    """Return what `fakesys.daemon.background` runs: make the machine, then serve it on `point`."""

    def prepare() -> Callable[[Ready], None]:
        # Until the machine is served (`collecting.keep_what_exists`).
        gc.disable()
        with _reported():
            machine = options.machine()
            service = options.service(point, ready_fd=ready_fd, lives_with=lives_with)
        from fakesys.daemon.service import serve_in_background

        def serve(ready: Ready) -> None:
            with _reported(), mount_errors():
                before_mounting()
                serve_in_background(machine, service, ready)

        return serve

    return prepare


@contextmanager
def mount_errors() -> Iterator[None]:
    """Turn what prevents a mount into an error of the command."""
    try:
        yield
    except MountError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(line_about(error)) from None


@contextmanager
def refusals() -> Iterator[None]:
    """Turn the refusal of a process in the background into an error of the command."""
    try:
        yield
    except Refused as refusal:
        wrong_use = refusal.status == click.UsageError.exit_code
        kind = click.UsageError if wrong_use else click.ClickException
        raise kind(str(refusal)) from None


@contextmanager
def _reported() -> Iterator[None]:
    """Turn an error of the command, in the background, into a refusal for the foreground."""
    try:
        yield
    except click.ClickException as error:
        raise Refused(error.format_message(), error.exit_code) from None

"""`fakesys view`: a live page of a machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import click

from fakesys.cli.points import MOUNT_PATH, mount_at, require_answer


@click.command(epilog="Example: fakesys view --control ./mountpoint")
@click.argument("mountpoint", type=MOUNT_PATH, default="mountpoint")
@click.option("--scenario", help="Look at a machine of this scenario, made for this page.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0: one that is free.")
@click.option("--control", is_flag=True, help="Buttons that plug, attach and move the clock.")
@click.option("--trace", is_flag=True, help="Take the events of trace_pipe from its readers.")
def view(mountpoint: Path, scenario: str | None, port: int, control: bool, trace: bool) -> None:
    """Show a mount as a live page in a browser, until Ctrl-C."""
    try:
        from fakesys.view.server import serve
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"{error.name} is missing; pip install 'fakesys[view]'"
        ) from None
    with ExitStack() as stack:
        if scenario is None:
            require_answer(mountpoint)
            root = mount_at(mountpoint).point
        else:
            root = stack.enter_context(_machine(scenario))
        with suppress(KeyboardInterrupt):
            serve(root, port=port, control=control, trace=trace, say=_say)


@contextmanager
def _machine(scenario: str) -> Iterator[Path]:
    """Yield a mount of its own, which ends with the block."""
    from fakesys.daemon.launch import mount
    from fakesys.transport.mounting import MountError

    with ExitStack() as stack:
        try:
            point = stack.enter_context(mount(scenario=scenario))
        except (MountError, ValueError) as error:
            raise click.ClickException(str(error)) from None
        yield point


def _say(address: str) -> None:
    click.echo(address)

"""`fakesys view` and `fakesys top`: a live page of a machine, and the same in a terminal."""

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


@click.command(epilog="Example: fakesys top ./mountpoint")
@click.argument("mountpoint", type=MOUNT_PATH, default="mountpoint")
@click.option(
    "--seconds",
    type=click.FloatRange(0.05, 3600),
    default=1.0,
    show_default=True,
    help="Over which counters per second are measured.",
)
@click.option("--once", is_flag=True, help="Print one frame and end, as in a pipe.")
def top(mountpoint: Path, seconds: float, once: bool) -> None:
    """Show a mount in the terminal, until q or Ctrl-C: VMs, counters, queues, refusals.

    Where standard output is no terminal, one frame is printed.
    """
    from fakesys.top import terminal

    require_answer(mountpoint)
    root = mount_at(mountpoint).point
    show = terminal.print_frame if once or not terminal.interactive() else terminal.watch
    try:
        show(root, window=seconds)
    except terminal.Gone as error:
        raise click.ClickException(str(error)) from None


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

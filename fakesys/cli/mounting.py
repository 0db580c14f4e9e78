"""`fakesys mount`, `fakesys umount` and `fakesys status`."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import click

from fakesys.cli.machine_options import MachineOptions, machine_options, open_descriptor
from fakesys.cli.points import mount_at, own_mounts
from fakesys.cli.starting import daemon_of, mount_errors, refusals
from fakesys.daemon import background
from fakesys.transport import mounting
from fakesys.transport.mounting import Busy, Mounted, MountError

DEFAULT_POINT = "mountpoint"
END_SECONDS = 3.0
PIPE_WIDTH = 400
COUNTERS = "sys/kernel/debug/fakesys"


@click.command(epilog="Example: fakesys mount --scenario vfio-ap-three-guests ./mountpoint")
@click.argument("mountpoint", type=click.Path(path_type=Path), default=DEFAULT_POINT)
@machine_options
@click.option("--foreground", is_flag=True, help="Stay; SIGINT and SIGTERM unmount.")
@click.option(
    "--ready-fd",
    type=int,
    callback=open_descriptor(os.O_WRONLY),
    help="Write `ready` to this descriptor when mounted.",
)
@click.option(
    "--lives-with",
    type=int,
    callback=open_descriptor(os.O_RDONLY),
    hidden=True,
    help="Unmount when this descriptor becomes readable.",
)
def mount(
    options: MachineOptions,
    mountpoint: Path,
    foreground: bool,
    ready_fd: int | None,
    lives_with: int | None,
) -> None:
    """Mount a machine on MOUNTPOINT and return when every file answers."""
    point = mounting.real_point(mountpoint)

    def clear_point() -> None:
        mounting.clear_stale(point)
        mounting.check_point(point)

    if not foreground:
        work = daemon_of(
            options,
            point,
            ready_fd=ready_fd,
            lives_with=lives_with,
            before_mounting=clear_point,
        )
        with refusals():
            background.start(work)
        click.echo(str(mountpoint))
        return
    machine = options.machine()
    service = options.service(point, ready_fd=ready_fd, lives_with=lives_with)
    from fakesys.daemon.service import run

    with mount_errors():
        clear_point()
        run(machine, service)


@click.command(epilog="Example: fakesys umount ./mountpoint")
@click.argument("mountpoint", type=click.Path(path_type=Path), required=False)
@click.option("--all", "every", is_flag=True, help="All mounts of this user.")
@click.option("--lazy", is_flag=True, help="Detach although it is in use.")
def umount(mountpoint: Path | None, every: bool, lazy: bool) -> None:
    """Unmount MOUNTPOINT and wait for its daemon to end."""
    if every and mountpoint is not None:
        raise click.UsageError("give MOUNTPOINT or --all, not both")
    targets = own_mounts() if every else [mount_at(mountpoint or Path(DEFAULT_POINT))]
    failed = [message for mount in targets if (message := _unmount(mount, lazy=lazy))]
    if failed:
        raise click.ClickException("; ".join(failed))


def _unmount(mount: Mounted, *, lazy: bool) -> str | None:
    """Unmount and wait for the daemon to end; return why that failed, None when it is gone."""
    from fakesys.daemon import registry
    from fakesys.transport import processes

    entry = registry.find(mount.instance)
    try:
        mounting.unmount(mount.point, lazy=lazy)
    except Busy:
        held = ", ".join(
            f"{holder.command} (pid {holder.pid}: {holder.path})"
            for holder in processes.holders(mount.point)
        )
        users = held or "a process of another user"
        return f"{mount.point} is in use by {users}; end it, or detach with --lazy"
    except MountError as error:
        return str(error)
    if entry is None:
        return None
    if not lazy and not _ended(entry.pid):
        return f"the daemon of {mount.point} (pid {entry.pid}) does not end; kill it"
    if not processes.is_alive(entry.pid):
        registry.remove(entry.instance)
    return None


def _ended(pid: int) -> bool:
    """Wait for a daemon to end, and return whether it did.

    A mount that was copied into another mount namespace keeps it alive: then it is told to end.
    """
    from fakesys.transport import processes

    if processes.wait_gone(pid, END_SECONDS):
        return True
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    return processes.wait_gone(pid, END_SECONDS)


class State(NamedTuple):
    """One line of `status`."""

    point: str
    pid: int
    age: int
    profile: str
    scenario: str
    transport: str
    requests: int | None
    bugs: int | None
    stale: bool


@click.command(epilog="Example: fakesys status --json")
@click.option("--json", "as_json", is_flag=True, help="As a JSON list.")
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """List the mounts of this user. Exit status 1 when one is stale."""
    states = [_state_of(mount) for mount in own_mounts()]
    if as_json:
        click.echo(json.dumps([state._asdict() for state in states], indent=2))
    elif states:
        _print_table(states)
    else:
        click.echo("no mounts")
    if any(state.stale for state in states):
        context.exit(1)


def _state_of(mount: Mounted) -> State:
    from fakesys.daemon import registry

    entry = registry.find(mount.instance)
    stale = not mounting.answers(mount.point)
    return State(
        point=str(mount.point),
        pid=entry.pid if entry else 0,
        age=int(time.time() - entry.started) if entry else 0,
        profile=entry.profile if entry else "",
        scenario=entry.scenario if entry else "",
        transport=entry.transport if entry else "",
        requests=None if stale else _counter(mount.point / COUNTERS / "requests"),
        bugs=None if stale else _counter(mount.point / COUNTERS / "bugs"),
        stale=stale,
    )


def _counter(path: Path) -> int | None:
    try:
        return int(path.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None


def _print_table(states: list[State]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for field in State._fields:
        table.add_column(field, overflow="fold")
    for state in states:
        table.add_row(*("-" if value is None else str(value) for value in state))
    # Paths and names of scenarios may look like markup.
    console = Console(markup=False)
    if not console.is_terminal:
        # Not a terminal: never break a path.
        console.width = PIPE_WIDTH
    console.print(table)

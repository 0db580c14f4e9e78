"""`fakesys mount`, `fakesys umount` and `fakesys status`."""

from __future__ import annotations

import functools
import gc
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from fakesys.cli.machine_options import MachineOptions, machine_options, open_descriptor
from fakesys.cli.points import MOUNT_PATH, mount_at, own_mounts
from fakesys.cli.starting import daemon_of, mount_errors, refusals
from fakesys.daemon import background
from fakesys.transport import mounting
from fakesys.transport.mounting import Busy, Mounted, MountError

if TYPE_CHECKING:
    from fakesys.transport.processes import Process

DEFAULT_POINT = "mountpoint"
END_SECONDS = 3.0
PIPE_WIDTH = 400
COUNTERS = "sys/kernel/debug/fakesys"


@click.command(epilog="Example: fakesys mount --scenario vfio-ap-three-guests ./mountpoint")
@click.argument("mountpoint", type=MOUNT_PATH, default=DEFAULT_POINT)
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
    # Until the machine is served (`collecting.keep_what_exists`).
    gc.disable()
    machine = options.machine()
    service = options.service(point, ready_fd=ready_fd, lives_with=lives_with)
    from fakesys.daemon.service import run

    with mount_errors():
        clear_point()
        run(machine, service)


@click.command(epilog="Example: fakesys umount ./mountpoint")
@click.argument("mountpoint", type=MOUNT_PATH, required=False)
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

    entry = registry.find(mount.instance)
    try:
        mounting.unmount(mount.point, lazy=lazy)
    except Busy:
        return _in_use(mount)
    except MountError as error:
        return str(error)
    if entry is None:
        return None
    with entry.process() as daemon:
        if not lazy and not _ended(daemon):
            return f"the daemon of {mount.point} (pid {entry.pid}) does not end; kill it"
        # A daemon removes its entry itself; one that was killed has left it, with its log.
        if daemon.wait_gone(0) and registry.find(entry.instance) is not None:
            registry.forget(entry.instance)
    return None


def _in_use(mount: Mounted) -> str:
    from fakesys.transport import processes

    held = ", ".join(
        f"{holder.command} (pid {holder.pid}: {holder.path})"
        for holder in processes.holders(mount.point)
    )
    users = held or "a process of another user"
    return f"{mount.point} is in use by {users}; end it, or detach with --lazy"


def _ended(daemon: Process) -> bool:
    """Wait for a daemon to end, and return whether it did.

    A mount that was copied into another mount namespace keeps it alive: then it is told to end.
    """
    if not daemon.wait_gone(END_SECONDS):
        daemon.terminate()
    return daemon.wait_gone(END_SECONDS)


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
    mounts = own_mounts()
    # Together, so that many daemons that do not answer cost the time of one.
    questions = [functools.partial(_counters, mount.point) for mount in mounts]
    counters = mounting.within_all(mounting.ANSWER_SECONDS, questions)
    states = [_state_of(*pair) for pair in zip(mounts, counters, strict=True)]
    if as_json:
        click.echo(json.dumps([state._asdict() for state in states], indent=2))
    elif states:
        _print_table(states)
    else:
        click.echo("no mounts")
    if any(state.stale for state in states):
        context.exit(1)


class Counters(NamedTuple):
    """What the daemon of a mount counts."""

    requests: int | None
    bugs: int | None


def _counters(point: Path) -> Counters | None:
    """Ask the daemon; return None when it does not answer, or is gone."""
    if not mounting.answers(point):
        return None
    folder = point / COUNTERS
    return Counters(_counter(folder / "requests"), _counter(folder / "bugs"))


def _state_of(mount: Mounted, counters: Counters | None) -> State:
    from fakesys.daemon import registry

    entry = registry.find(mount.instance)
    return State(
        point=str(mount.point),
        pid=entry.pid if entry else 0,
        age=int(time.time() - entry.started) if entry else 0,
        profile=entry.profile if entry else "",
        scenario=entry.scenario if entry else "",
        transport=entry.transport if entry else "",
        requests=counters.requests if counters else None,
        bugs=counters.bugs if counters else None,
        stale=counters is None,
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

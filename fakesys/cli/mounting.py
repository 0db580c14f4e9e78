"""Commands around a mount: `mount`, `umount`, `status`."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import NamedTuple

import click

from fakesys.transport import mounting
from fakesys.transport.mounting import Busy, Mounted, MountError

DEFAULT_POINT = "mountpoint"
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
END_SECONDS = 10.0
COUNTERS = "sys/kernel/debug/fakesys"


@click.command(epilog="Example: fakesys mount --scenario vfio-ap-three-guests ./mountpoint")
@click.argument("mountpoint", type=click.Path(path_type=Path), default=DEFAULT_POINT)
@click.option("--scenario", default="default", help="A shipped scenario or a .toml file.")
@click.option("--profile", help="The kernel to imitate: seed, 6.1 or 6.18.")
@click.option("--preset", help="AP hardware instead of the scenario's: default, empty or full.")
@click.option("--seed", type=int, help="Of the one random generator.")
@click.option("--clock-rate", type=click.FloatRange(0), help="Simulated seconds per real second.")
@click.option(
    "--transport", type=click.Choice(["native", "fusepy"]), default="native", show_default=True
)
@click.option("--log-level", type=click.Choice(LOG_LEVELS), default="WARNING", show_default=True)
@click.option("--log-file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--allow-other", is_flag=True, help="Let other users in; root's mounts always do.")
@click.option("--lockdown", is_flag=True, help="debugfs as on a locked-down kernel.")
@click.option("--foreground", is_flag=True, help="Stay; SIGINT and SIGTERM unmount.")
@click.option("--ready-fd", type=int, help="Write `ready` to this descriptor when mounted.")
@click.option(
    "--names",
    type=click.Choice(["epoch", "entry"]),
    default="epoch",
    hidden=True,
    help="How clients are told of names that come and go.",
)
def mount(
    mountpoint: Path,
    scenario: str,
    profile: str | None,
    preset: str | None,
    seed: int | None,
    clock_rate: float | None,
    transport: str,
    log_level: str,
    log_file: Path | None,
    allow_other: bool,
    lockdown: bool,
    foreground: bool,
    ready_fd: int | None,
    names: str,
) -> None:
    """Mount a machine on MOUNTPOINT and return when every file answers."""
    if transport != "native":
        raise click.ClickException(f"--transport {transport} is not built yet; use native")
    from fakesys import daemon
    from fakesys.core.errors import KernelError
    from fakesys.machine import Machine
    from fakesys.scenario import ScenarioError, load, with_preset

    try:
        wanted = load(scenario)
        if preset is not None:
            wanted = with_preset(wanted, preset)
        machine = Machine(profile, wanted, seed=seed)
    except ScenarioError as error:
        raise click.UsageError(str(error)) from None
    except KernelError as error:
        raise click.UsageError(error.why) from None
    if clock_rate is not None:
        machine.clock.rate = clock_rate
    machine.set_lockdown(lockdown)
    service = daemon.Service(
        point=mounting.real_point(mountpoint),
        allow_other=allow_other or os.geteuid() == 0,
        by_epoch=names == "epoch",
        log_level=log_level,
        log_file=None if log_file is None else log_file.absolute(),
        ready_fd=ready_fd,
    )
    try:
        mounting.clear_stale(service.point)
        mounting.check_point(service.point)
        if foreground:
            daemon.run(machine, service)
            return
        daemon.start(machine, service)
    except (MountError, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(str(mountpoint))


@click.command(epilog="Example: fakesys umount ./mountpoint")
@click.argument("mountpoint", type=click.Path(path_type=Path), required=False)
@click.option("--all", "every", is_flag=True, help="All mounts of this user.")
@click.option("--lazy", is_flag=True, help="Detach although it is in use.")
def umount(mountpoint: Path | None, every: bool, lazy: bool) -> None:
    """Unmount MOUNTPOINT and wait for its daemon to end."""
    if every and mountpoint is not None:
        raise click.UsageError("give MOUNTPOINT or --all, not both")
    targets = _own_mounts() if every else [_mount_at(mountpoint or Path(DEFAULT_POINT))]
    failed = [message for mount in targets if (message := _unmount(mount, lazy=lazy))]
    if failed:
        raise click.ClickException("; ".join(failed))


def _mount_at(point: Path) -> Mounted:
    mount = mounting.find(point)
    if mount is None:
        raise click.ClickException(f"{point} has no fakesys mount")
    return mount


def _own_mounts() -> list[Mounted]:
    from fakesys import registry

    own = {record.instance for record in registry.records()}
    return [mount for mount in mounting.mounted() if mount.instance in own]


def _unmount(mount: Mounted, *, lazy: bool) -> str | None:
    """What went wrong, in one line; None when it is gone."""
    from fakesys import host, registry

    record = registry.find(mount.instance)
    try:
        mounting.unmount(mount.point, lazy=lazy)
    except Busy:
        held = ", ".join(
            f"{holder.command} (pid {holder.pid}: {holder.path})"
            for holder in host.holders(mount.point)
        )
        return f"{mount.point} is in use by {held or 'a process of somebody else'}; see --lazy"
    except MountError as error:
        return str(error)
    if record is None:
        return None
    if not lazy and not host.wait_gone(record.pid, END_SECONDS):
        return f"the daemon of {mount.point} (pid {record.pid}) does not end"
    if not host.is_alive(record.pid):
        registry.remove(record.instance)
    return None


class State(NamedTuple):
    """One line of `status`."""

    point: str
    pid: int
    age: int
    profile: str
    scenario: str
    requests: int | None
    bugs: int | None
    stale: bool


@click.command(epilog="Example: fakesys status --json")
@click.option("--json", "as_json", is_flag=True, help="As a JSON list.")
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """List the mounts of this user. Exit status 1 when one is stale."""
    states = [_state_of(mount) for mount in _own_mounts()]
    if as_json:
        click.echo(json.dumps([state._asdict() for state in states], indent=2))
    elif states:
        _print_table(states)
    else:
        click.echo("no mounts")
    if any(state.stale for state in states):
        context.exit(1)


def _state_of(mount: Mounted) -> State:
    from fakesys import registry

    record = registry.find(mount.instance)
    stale = not mounting.answers(mount.point)
    return State(
        point=str(mount.point),
        pid=record.pid if record else 0,
        age=int(time.time() - record.started) if record else 0,
        profile=record.profile if record else "",
        scenario=record.scenario if record else "",
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

    table = Table(*State._fields)
    for state in states:
        table.add_row(*("-" if value is None else str(value) for value in state))
    Console().print(table)

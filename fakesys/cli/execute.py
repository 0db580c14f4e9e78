"""`fakesys exec`: run a program that sees the simulated machine as its `/sys`."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fakesys.cli.failures import line_about
from fakesys.cli.machine_options import MachineOptions, machine_options
from fakesys.cli.points import MOUNT_PATH, mount_at, require_answer
from fakesys.cli.starting import daemon_of, refusals
from fakesys.daemon.background import Starting

if TYPE_CHECKING:
    from fakesys.execution.base.places import FindFake, ShowFake

# Exit statuses of fakesys, not of the command; like those of `timeout` and `chroot`.
OWN_FAILURE = 125
CANNOT_RUN = 126
NOT_FOUND = 127


class _ExecCommand(click.Command):
    """A command whose wrong options end with OWN_FAILURE too."""

    def make_context(self, *args: Any, **values: Any) -> click.Context:
        with _own_failure():
            return super().make_context(*args, **values)


class _OwnFailure(click.ClickException):
    exit_code = OWN_FAILURE


@contextmanager
def _own_failure() -> Iterator[None]:
    try:
        yield
    except click.ClickException as error:
        raise _OwnFailure(error.format_message()) from None
    except Exception as error:
        raise _OwnFailure(line_about(error)) from None


@click.command(
    cls=_ExecCommand,
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
    epilog="Example: fakesys exec --preset full -- ls /sys/bus/ap/devices",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--mount",
    type=MOUNT_PATH,
    help="Show this mount instead of a machine of its own.",
)
@click.option("--net", is_flag=True, help="A private network, on which device events are sent.")
@click.option(
    "--no-udev",
    is_flag=True,
    help="With --net, leave the events of udev to a udevd; so it is while one runs.",
)
@click.option(
    "--host-writable",
    is_flag=True,
    help="Leave the command its rights: it may change the host's part of /sys, /proc/sys and more.",
)
@machine_options
@click.pass_context
def execute(
    context: click.Context,
    options: MachineOptions,
    command: tuple[str, ...],
    mount: Path | None,
    net: bool,
    no_udev: bool,
    host_writable: bool,
) -> None:
    """Run COMMAND with the fake joined into its /sys.

    The host's part of /sys and of /proc is read-only. Without --mount a machine is made for the
    life of the command, with the options of `fakesys mount`. The exit status is that of COMMAND;
    125: it was not even started.
    """
    # This process ends, or becomes another program, before there is anything to collect.
    gc.disable()
    with _own_failure():
        find_fake = _own_machine(options) if mount is None else _existing(mount)
        _enter(find_fake, net=net, for_udevd=not no_udev, host_writable=host_writable)
    context.exit(_exec_command(command))


def _enter(find_fake: FindFake, *, net: bool, for_udevd: bool, host_writable: bool) -> None:
    """Give this process its private view. Raises ClickException."""
    from fakesys.execution import namespace
    from fakesys.execution.base.syscalls import StepError

    try:
        namespace.enter()
        show_fake = find_fake()
        # Not before: the machine is made while this is imported.
        from fakesys.execution import view

        view.enter(
            network=net, for_udevd=for_udevd, host_writable=host_writable, show_fake=show_fake
        )
    except (StepError, OSError) as error:
        raise click.ClickException(str(error)) from None


def _exec_command(command: tuple[str, ...]) -> int:
    """Replace this process by the command; return a status only when it cannot be run."""
    from fakesys.execution import view

    try:
        view.exec_command(list(command))
    except OSError as error:
        click.echo(f"fakesys: {command[0]}: {error.strerror}", err=True)
        return NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN


def _existing(mount: Path) -> FindFake:
    """Find a mount that exists already. Raises ClickException when there is none."""
    from fakesys.execution.base import places

    mount_at(mount)
    require_answer(mount)
    return lambda: places.existing_mount(mount)


def _own_machine(options: MachineOptions) -> FindFake:
    """Start a daemon with a machine that ends with the command.

    The daemon makes the machine among the files of the host, while this process covers them for
    itself, and joins it to mount.
    """
    from fakesys.execution import namespace
    from fakesys.execution.base import places

    command = os.getpid()
    lives_with = os.pidfd_open(command)

    def find_fake() -> ShowFake:
        work = daemon_of(
            options,
            places.FAKE,
            lives_with=lives_with,
            before_mounting=lambda: _join(command),
        )
        with refusals(), places.records_of_the_daemon():
            starting = Starting(work)
        os.close(lives_with)
        namespace.leave_to_others()

        def show() -> None:
            with refusals():
                starting.prepared()
                starting.serve()

        return show

    return find_fake


def _join(command: int) -> None:
    """Move the daemon to the mounts of the command. Raises ClickException."""
    from fakesys.execution import namespace
    from fakesys.execution.base.syscalls import StepError

    try:
        namespace.join_mounts(command)
    except StepError as error:
        raise click.ClickException(str(error)) from None

"""`fakesys record` and `fakesys replay`: what is written to a mount, as a shell script."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from fakesys.cli.points import MOUNT_PATH
from fakesys.cli.snapshots import MOUNT, open_control

if TYPE_CHECKING:
    from fakesys.machine.playback.replay import Difference

PIECE = 1 << 20
NOT_FOUND = 127

FILE = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))


@click.command(
    context_settings={"allow_interspersed_args": True},
    epilog="Example: fakesys record session.sh --mount ./mountpoint -- ./run-tests.sh",
)
@FILE
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@MOUNT
@click.pass_context
def record(context: click.Context, file: Path, command: tuple[str, ...], mount_point: Path) -> None:
    """Write every write to the mount, with its result, to FILE as a shell script.

    Goes on until Ctrl-C, or while COMMAND runs; the exit status is then that of COMMAND.
    `fakesys replay FILE` runs the script and compares the results.
    """
    stream = _opened(mount_point)
    try:
        with file.open("wb") as output:
            file.chmod(0o755)
            status = _copy(stream, output, command)
    except OSError as error:
        raise click.ClickException(f"{error.filename or file}: {error.strerror}") from None
    finally:
        os.close(stream)
    context.exit(status)


def _opened(mount_point: Path) -> int:
    try:
        return open_control(mount_point, "writes", os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from None


def _copy(stream: int, output: BinaryIO, command: tuple[str, ...]) -> int:
    """Copy until the command has ended, or Ctrl-C; return the exit status of the command."""
    if not command:
        click.echo("recording; end with Ctrl-C", err=True)
        with suppress(KeyboardInterrupt):
            _copy_until(stream, output, None)
        _drain(stream, output)
        return 0
    try:
        child = subprocess.Popen(command)
    except OSError as error:
        click.echo(f"fakesys: {command[0]}: {error.strerror}", err=True)
        return NOT_FOUND
    ended = os.pidfd_open(child.pid)
    try:
        # `with` waits for the command even when the mount goes first.
        with child:
            while child.poll() is None:
                # The terminal sends SIGINT to the command too; it decides when to end.
                with suppress(KeyboardInterrupt):
                    _copy_until(stream, output, ended)
                    child.wait()
    finally:
        os.close(ended)
    _drain(stream, output)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _copy_until(stream: int, output: BinaryIO, ended: int | None) -> None:
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    if ended is not None:
        poll.register(ended, select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in poll.poll()]
        _drain(stream, output)
        if ended in ready:
            return


def _drain(stream: int, output: BinaryIO) -> None:
    """Copy what is there now. Raises OSError when the mount is gone."""
    # SIGINT is blocked until everything that was read is written.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with suppress(BlockingIOError):
            while piece := os.read(stream, PIECE):
                output.write(piece)
        output.flush()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@click.command(epilog="Example: fakesys replay session.sh")
@FILE
@click.option(
    "--mount",
    "mount_point",
    type=MOUNT_PATH,
    help="A mount to write to; without it a fresh machine in memory.",
)
def replay(file: Path, mount_point: Path | None) -> None:
    """Do the writes of the script FILE and compare the results with the recorded ones.

    Exit status 1 when one differs; the line of the script is named.
    """
    from fakesys.core.text import one_line

    count, wrong = _differences(file, mount_point)
    for step, result in wrong:
        where = f"{step.number}: {step.word} {step.path}"
        what = one_line(f"{where}: {result or 'ok'}, recorded {step.result or 'ok'}")
        click.echo(f"{file}:{what}", err=True)
    if wrong:
        raise click.ClickException(f"{len(wrong)} of {count} steps differ")
    click.echo(f"{count} steps, every result as recorded", err=True)


def _differences(file: Path, mount_point: Path | None) -> tuple[int, list[Difference]]:
    """Return the number of steps, and those with another result. Raises ClickException."""
    from fakesys.machine.playback import replay as playback
    from fakesys.machine.untrusted.below import Below
    from fakesys.machine.untrusted.files import UnusableFileError
    from fakesys.subsystems.control.script import ScriptError, steps

    try:
        script = playback.recording_in(file)
        todo = list(steps(script))
        if mount_point is None:
            target = playback.InMemory(playback.machine_of(script))
            return len(todo), list(playback.run_steps(todo, target))
        os.close(_opened(mount_point))
        with Below(mount_point) as place:
            return len(todo), list(playback.run_steps(todo, playback.OnMount(place)))
    except OSError as error:
        raise click.ClickException(f"{error.filename or file}: {error.strerror}") from None
    except UnusableFileError as error:
        raise click.ClickException(str(error)) from None
    except ScriptError as error:
        raise click.ClickException(f"{file}: {error}") from None

"""`fakesys snapshot`: the whole machine of a mount to a file, and back."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from fakesys.cli.machine_options import mount_option

CONTROL = "sys/kernel/debug/fakesys"
# One FUSE request on every transport, so that a refusal is never seen as a short write.
PIECE = 1 << 16
T = TypeVar("T")

FILE = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
MOUNT = mount_option("The mount to save or load.")


@click.group(epilog="Example: fakesys snapshot save before.json --mount ./mountpoint")
def snapshot() -> None:
    """Save the whole machine of a mount, or load it."""


@snapshot.command(epilog="Example: fakesys snapshot save before.json")
@FILE
@MOUNT
def save(file: Path, mount_point: Path) -> None:
    """Write the machine on the mount to FILE, as it is at one moment."""
    data = _refusals(mount_point, lambda: control_file(mount_point, "snapshot").read_bytes())
    try:
        _replace(file, data)
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None
    click.echo(f"{file}: {len(data)} bytes", err=True)


@snapshot.command(epilog="Example: fakesys snapshot load before.json")
@FILE
@MOUNT
def load(file: Path, mount_point: Path) -> None:
    """Let the mount become the machine in FILE, in one step.

    A file that is cut off, changed, or made by another version is refused; nothing changes then.
    """
    from fakesys.core.errors import KernelError
    from fakesys.machine.snapshot import header

    try:
        data = file.read_bytes()
        header(data)
    except KernelError as refusal:
        raise click.ClickException(f"{file}: {refusal.why}") from None
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None
    _refusals(mount_point, lambda: _write(control_file(mount_point, "snapshot"), data))


def control_file(mount_point: Path, name: str) -> Path:
    """Return the path of a control file. Raises ClickException when it is not on a mount."""
    path = mount_point / CONTROL / name
    if not path.exists():
        raise click.ClickException(
            f"{mount_point} has no fakesys mount; name one with --mount, or run fakesys mount"
        )
    return path


def reason_of(mount_point: Path) -> str:
    """Return why the last refused write to a mount was refused; empty when none was."""
    try:
        words = (mount_point / CONTROL / "last_error").read_text().split(maxsplit=3)
    except OSError:
        return ""
    return words[3].strip() if len(words) > 3 else ""


def _refusals(mount_point: Path, action: Callable[[], T]) -> T:
    try:
        return action()
    except OSError as error:
        why = reason_of(mount_point) or error.strerror
        raise click.ClickException(f"{mount_point}: {why}") from None


def _write(path: Path, data: bytes) -> None:
    rest = memoryview(data)
    with path.open("r+b", buffering=0) as file:
        while rest:
            rest = rest[file.write(rest[:PIECE]) :]


def _replace(file: Path, data: bytes) -> None:
    """Write the file whole or not at all; a device or a pipe is written to directly."""
    if file.exists() and not file.is_file():
        file.write_bytes(data)
        return
    handle, draft = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as output:
            output.write(data)
        os.replace(draft, file)
    except BaseException:
        os.unlink(draft)
        raise

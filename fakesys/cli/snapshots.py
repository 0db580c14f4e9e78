"""`fakesys snapshot`: the whole machine of a mount to a file, and back."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from errno import ELOOP, ENOENT, ENOTDIR, EXDEV
from pathlib import Path
from typing import TypeVar

import click

from fakesys.cli.machine_options import mount_option
from fakesys.cli.points import require_answer

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
    data = _refusals(mount_point, lambda: _read(open_control(mount_point, "snapshot", os.O_RDONLY)))
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
    from fakesys.machine.untrusted.files import UnusableFileError, read_file
    from fakesys.subsystems.control.snapshots import LONGEST

    try:
        data = read_file(file, LONGEST)
        header(data)
    except KernelError as refusal:
        raise click.ClickException(f"{file}: {refusal.why}") from None
    except UnusableFileError as error:
        raise click.ClickException(str(error)) from None
    _refusals(mount_point, lambda: _write(open_control(mount_point, "snapshot", os.O_RDWR), data))


def open_control(mount_point: Path, name: str, flags: int) -> int:
    """Return a descriptor of a control file. Raises OSError, ClickException where is no mount.

    A directory that only looks like a mount cannot lead to a file outside of it.
    """
    from fakesys.machine.untrusted.below import Below

    require_answer(mount_point)
    try:
        with Below(mount_point) as place:
            return place.open(f"{CONTROL}/{name}", flags)
    except OSError as error:
        if error.errno not in (ENOENT, ENOTDIR, EXDEV, ELOOP):
            raise
    raise click.ClickException(
        f"{mount_point} has no fakesys mount; name one with --mount, or run fakesys mount"
    )


def reason_of(mount_point: Path) -> str:
    """Return why the last refused write to a mount was refused; empty when none was."""
    try:
        text = _read(open_control(mount_point, "last_error", os.O_RDONLY)).decode(errors="replace")
    except (OSError, click.ClickException):
        return ""
    words = text.split(maxsplit=3)
    return words[3].strip() if len(words) > 3 else ""


def _refusals(mount_point: Path, action: Callable[[], T]) -> T:
    try:
        return action()
    except OSError as error:
        why = reason_of(mount_point) or error.strerror
        raise click.ClickException(f"{mount_point}: {why}") from None


def _read(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
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

"""`fakesys show`: a machine as a picture, in the terminal or as a file.

What the commands with plots share: the options, the check before the work, the writing after it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from fakesys.cli.machine_options import mount_option
from fakesys.cli.points import MOUNT_PATH, require_answer

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

    from fakesys.lab.ap_matrix import ApMatrix

R = TypeVar("R")


def _mount(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command the mount, as its argument or as the option `--mount`."""

    @click.argument("mountpoint", type=MOUNT_PATH, required=False)
    @mount_option("The same, as an option.")
    @functools.wraps(command)
    def collected(*, mountpoint: Path | None, mount_point: Path, **values: Any) -> R:
        named = click.get_current_context().get_parameter_source("mount_point")
        if mountpoint is not None and named is ParameterSource.COMMANDLINE:
            raise click.UsageError("name one mount: as argument, or with --mount")
        return command(mount_point=mountpoint or mount_point, **values)

    return collected


def picture_options(verb: str) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Return the options `--png` and `--svg`; `verb` begins their help text."""

    def add(command: Callable[..., R]) -> Callable[..., R]:
        for name in ("png", "svg"):
            article = "an" if name == "svg" else "a"
            text = f"{verb} {article} {name.upper()} file."
            command = click.option(f"--{name}", type=click.Path(path_type=Path), help=text)(command)
        return command

    return add


def plot_files(*paths: Path | None) -> list[Path]:
    """Return the paths that were given. Raises ClickException when one cannot be written."""
    from fakesys.lab import plots

    wanted = [path for path in paths if path is not None]
    for path in wanted:
        try:
            plots.check(path)
        except ImportError:
            raise click.ClickException(
                "plots need matplotlib: pip install 'fakesys[plot]'"
            ) from None
        except (OSError, ValueError) as error:
            raise click.ClickException(f"{path}: {_reason(error)}") from None
    return wanted


def save_plots(draw: Callable[[], Figure], paths: Iterable[Path]) -> None:
    """Write each file and print its name. Raises ClickException."""
    from fakesys.lab import plots

    for path in paths:
        try:
            plots.save(draw, path)
        except OSError as error:
            raise click.ClickException(f"{path}: {_reason(error)}") from None
        click.echo(str(path))


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


@click.group(epilog="Example: fakesys show ap ./mountpoint")
def show() -> None:
    """Show a machine as a picture."""


@show.command(epilog="Example: fakesys show ap ./mountpoint --svg queues.svg")
@_mount
@picture_options("Draw to")
def ap(mount_point: Path, svg: Path | None, png: Path | None) -> None:
    """The AP matrix: adapters by domains, each queue by its owner."""  # noqa: D401 - the help text
    from fakesys.lab.ap_matrix import ap_matrix, draw

    matrix = ap_matrix(read_state(mount_point))
    if files := plot_files(svg, png):
        save_plots(lambda: draw(matrix), files)
        return
    from rich.console import Console

    print_matrix(matrix, Console())


@show.command(epilog="Example: fakesys show kvm ./mountpoint")
@_mount
def kvm(mount_point: Path) -> None:
    """The VMs with their vCPUs and the counters that are not 0."""  # noqa: D401 - the help text
    from rich.console import Console
    from rich.table import Table

    folder = mount_point / "sys/kernel/debug/kvm"
    _require_mount(mount_point, folder)
    table = Table("VM", "vCPUs", "counters")
    for vm in sorted(path for path in folder.iterdir() if path.is_dir()):
        vcpus = sum(1 for path in vm.glob("vcpu*") if path.is_dir())
        counters = ", ".join(f"{name} {value}" for name, value in _counters(vm) if value)
        table.add_row(vm.name, str(vcpus), counters or "all 0")
    Console().print(table)


def read_state(mount_point: Path) -> dict[str, Any]:
    """Return the state of the machine on a mount. Raises ClickException for another directory."""
    path = mount_point / "sys/kernel/debug/fakesys/state"
    _require_mount(mount_point, path)
    state: dict[str, Any] = json.loads(path.read_text())
    return state


def _require_mount(mount_point: Path, path: Path) -> None:
    require_answer(mount_point)
    try:
        path.stat()
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}; name a mount of fakesys") from None


def _counters(vm: Path) -> Iterator[tuple[str, int]]:
    for path in sorted(vm.iterdir()):
        if path.is_file() and (text := path.read_text().strip()).isdecimal():
            yield path.name, int(text)


def print_matrix(matrix: ApMatrix, console: Console) -> None:
    """Print the matrix as coloured letters, in as many blocks as the width needs."""
    from rich.text import Text

    from fakesys.lab.ap_matrix import Owner

    per_block = max(1, (console.width - 10) // 5)
    for start in range(0, len(matrix.domains), per_block):
        domains = matrix.domains[start : start + per_block]
        console.print("adapter  " + " ".join(f"{apqi:04x}" for apqi in domains))
        for apid, owners in matrix.rows(domains):
            line = Text(f"{apid:02x}       ")
            for owner in owners:
                line.append(f"{owner.letter:^5}", style=owner.colour)
            console.print(line, soft_wrap=True)
        console.print()
    if not matrix.domains:
        console.print("no queues")
    console.print(", ".join(f"{owner.letter} {owner.legend}" for owner in Owner), soft_wrap=True)

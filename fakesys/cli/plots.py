"""Files with plots: the options, the check before the work, the writing after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from matplotlib.figure import Figure

R = TypeVar("R")


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

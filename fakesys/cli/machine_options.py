"""The options of a machine and its daemon, common to every command that starts one."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from fakesys.daemon import Service
    from fakesys.machine import Machine

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """What the command line says about the machine and its daemon."""

    scenario: str
    profile: str | None
    preset: str | None
    seed: int | None
    clock_rate: float | None
    transport: str
    log_level: str
    log_file: Path | None
    allow_other: bool
    lockdown: bool
    names: str

    def machine(self) -> Machine:
        """The machine. Raises UsageError naming the value that cannot be used."""
        from fakesys.core.errors import KernelError
        from fakesys.machine import Machine
        from fakesys.scenario import ScenarioError, load, with_preset

        try:
            wanted = load(self.scenario)
            if self.preset is not None:
                wanted = with_preset(wanted, self.preset)
            machine = Machine(self.profile, wanted, seed=self.seed)
        except ScenarioError as error:
            raise click.UsageError(str(error)) from None
        except KernelError as error:
            raise click.UsageError(error.why) from None
        if self.clock_rate is not None:
            machine.clock.rate = self.clock_rate
        machine.set_lockdown(self.lockdown)
        return machine

    def service(
        self, point: Path, *, ready_fd: int | None = None, lives_with: int | None = None
    ) -> Service:
        """How the daemon is to serve it on `point`."""
        from fakesys.daemon import Service

        return Service(
            point=point,
            allow_other=self.allow_other or os.geteuid() == 0,
            by_epoch=self.names == "epoch",
            log_level=self.log_level,
            log_file=None if self.log_file is None else self.log_file.absolute(),
            ready_fd=ready_fd,
            lives_with=lives_with,
        )


_OPTIONS = (
    click.option("--scenario", default="default", help="A shipped scenario or a .toml file."),
    click.option("--profile", help="The kernel to imitate: seed, 6.1 or 6.18."),
    click.option("--preset", help="AP hardware instead of the scenario's: default, empty, full."),
    click.option("--seed", type=int, help="Of the one random generator."),
    click.option(
        "--clock-rate", type=click.FloatRange(0), help="Simulated seconds per real second."
    ),
    click.option(
        "--transport", type=click.Choice(["native", "fusepy"]), default="native", show_default=True
    ),
    click.option(
        "--log-level", type=click.Choice(LOG_LEVELS), default="WARNING", show_default=True
    ),
    click.option("--log-file", type=click.Path(dir_okay=False, path_type=Path)),
    click.option("--allow-other", is_flag=True, help="Let others in; root's mounts always do."),
    click.option("--lockdown", is_flag=True, help="debugfs as on a locked-down kernel."),
    click.option(
        "--names",
        type=click.Choice(["epoch", "entry"]),
        default="epoch",
        hidden=True,
        help="How clients are told of names that come and go.",
    ),
)


def machine_options(
    command: Callable[..., R],
) -> Callable[..., R]:
    """Give a command all options of a machine, as its argument `options`."""

    @functools.wraps(command)
    def collected(*args: Any, **values: Any) -> R:
        own = {field.name: values.pop(field.name) for field in fields(MachineOptions)}
        return command(*args, options=MachineOptions(**own), **values)

    decorated: Callable[..., R] = collected
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated

"""The options of a machine and its daemon, for every command that starts one."""

from __future__ import annotations

import fcntl
import functools
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from fakesys.cli.points import MOUNT_PATH
from fakesys.transport.collecting import without_collections

if TYPE_CHECKING:
    from fakesys.daemon.service import Service
    from fakesys.machine.machine import Machine

# What a snapshot and a recording can hold.
SEED = click.IntRange(0, (1 << 63) - 1)
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

R = TypeVar("R")


class MachineOptions(NamedTuple):
    """The values of the options."""

    scenario: str
    profile: str | None
    preset: tuple[str, ...]
    seed: int | None
    boot: str | None
    clock_rate: float | None
    transport: str
    log_level: str
    log_file: Path | None
    allow_other: bool
    lockdown: bool
    names: str
    request_timeout: float

    def machine(self) -> Machine:
        """Make the machine. Raises UsageError naming the value that cannot be used."""
        with without_collections():
            return self._machine()

    def _machine(self) -> Machine:
        return machine_of(
            self.scenario,
            *self.preset,
            profile=self.profile,
            seed=self.seed,
            boot=self.boot,
            clock_rate=1.0 if self.clock_rate is None else self.clock_rate,
            lockdown=self.lockdown,
        )

    def service(
        self, point: Path, *, ready_fd: int | None = None, lives_with: int | None = None
    ) -> Service:
        """Return how the daemon is to serve the machine on `point`.

        Raises ClickException when the transport lacks a library.
        """
        from fakesys.daemon.service import Service

        if self.transport == "fusepy":
            _require_libfuse()
        return Service(
            point=point,
            transport=self.transport,
            allow_other=self.allow_other or os.geteuid() == 0,
            by_epoch=self.names == "epoch",
            request_timeout=self.request_timeout,
            log_level=self.log_level,
            log_file=self.log_file,
            ready_fd=ready_fd,
            lives_with=lives_with,
        )


def machine_of(
    scenario: str,
    *presets: str,
    profile: str | None,
    seed: int | None,
    boot: str | None = None,
    clock_rate: float = 1.0,
    lockdown: bool = False,
) -> Machine:
    """Return the machine of a scenario's name or file. Raises UsageError naming what is wrong."""
    from fakesys.core.errors import KernelError
    from fakesys.machine.hardware import ScenarioError
    from fakesys.machine.machine import Machine
    from fakesys.machine.scenario import load, with_boot, with_preset

    try:
        wanted = load(scenario)
        for preset in presets:
            wanted = with_preset(wanted, preset)
        if boot is not None:
            wanted = with_boot(wanted, boot)
    except ScenarioError as error:
        raise click.UsageError(str(error)) from None
    try:
        return Machine(profile, wanted, seed=seed, clock_rate=clock_rate, lockdown=lockdown)
    except ScenarioError as error:
        raise click.UsageError(f"{scenario}: {error}") from None
    except KernelError as error:
        raise click.UsageError(error.why) from None


def _require_libfuse() -> None:
    from fakesys.transport.fusepy import library
    from fakesys.transport.mounting import MountError

    try:
        library.load()
    except MountError as error:
        raise click.ClickException(str(error)) from None


def _finite(
    _context: click.Context, _option: click.Parameter, number: float | None
) -> float | None:
    if number is not None and not math.isfinite(number):
        raise click.BadParameter(f"{number} is not finite")
    return number


def _writable_file(
    _context: click.Context, _option: click.Parameter, path: Path | None
) -> Path | None:
    if path is None:
        return None
    try:
        path.open("ab").close()
    except OSError as error:
        raise click.BadParameter(f"{path}: {error.strerror}") from None
    return path.absolute()


def open_descriptor(
    access: int,
) -> Callable[[click.Context, click.Parameter, int | None], int | None]:
    """Return the check of an option whose value is a descriptor open for `access`.

    `access` is O_RDONLY or O_WRONLY. The check raises BadParameter.
    """

    def check(_context: click.Context, _option: click.Parameter, number: int | None) -> int | None:
        if number is None:
            return None
        try:
            mode = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
        except (OSError, OverflowError, ValueError):
            raise click.BadParameter(f"{number} is no open descriptor") from None
        if mode not in (access, os.O_RDWR):
            verb = "written" if access == os.O_WRONLY else "read"
            raise click.BadParameter(f"descriptor {number} cannot be {verb}")
        return number

    return check


_OPTIONS = (
    click.option("--scenario", default="default", help="A shipped scenario or a .toml file."),
    click.option("--profile", help="The kernel to imitate: seed, 6.1, 6.12 or 6.18."),
    click.option(
        "--preset",
        multiple=True,
        help="AP hardware instead of the scenario's: default, empty, full; or a guest that boots,"
        ' such as "linux-boot vcpus=17". More than one if need be.',
    ),
    click.option("--seed", type=SEED, help="Of the one random generator."),
    click.option(
        "--boot",
        metavar="LINE",
        help="The kernel's command line instead of the scenario's, with parameters of modules such"
        ' as "ap.apmask=0xffff kvm_amd.avic=0".',
    ),
    click.option(
        "--clock-rate",
        type=click.FloatRange(0),
        callback=_finite,
        help="Simulated seconds per real second.",
    ),
    click.option(
        "--transport", type=click.Choice(["native", "fusepy"]), default="native", show_default=True
    ),
    click.option(
        "--log-level",
        type=click.Choice(LOG_LEVELS, case_sensitive=False),
        default="WARNING",
        show_default=True,
    ),
    click.option(
        "--log-file",
        type=click.Path(dir_okay=False, path_type=Path),
        callback=_writable_file,
        help="Else standard error in the foreground, a file of its own in the background.",
    ),
    click.option("--allow-other", is_flag=True, help="Let others in; root's mounts always do."),
    click.option("--lockdown", is_flag=True, help="debugfs as on a locked-down kernel."),
    click.option(
        "--request-timeout",
        type=click.FloatRange(0.1, 86400),
        default=30.0,
        show_default=True,
        help="Seconds after which a request that lets no other one in is ended with EIO.",
    ),
    click.option(
        "--names",
        type=click.Choice(["epoch", "entry"]),
        default="epoch",
        hidden=True,
        help="How clients are told of names that come and go.",
    ),
)


def mount_option(doc: str) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Return the option `--mount`, for commands that use a mount, as argument `mount_point`."""
    return click.option(
        "--mount",
        "mount_point",
        default="./mountpoint",
        show_default=True,
        type=MOUNT_PATH,
        help=doc,
    )


def machine_options(
    command: Callable[..., R],
) -> Callable[..., R]:
    """Give a command all options of a machine, as its argument `options`.

    Precondition: this decorator is below `click.command`.
    """

    @functools.wraps(command)
    def collected(*args: Any, **values: Any) -> R:
        own = {name: values.pop(name) for name in MachineOptions._fields}
        return command(*args, options=MachineOptions(**own), **values)

    decorated: Callable[..., R] = collected
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def machine_of_words(words: list[str]) -> Machine:
    """Make the machine of these command line words. Raises ValueError for one of no use."""

    @click.command()
    @machine_options
    def command(options: MachineOptions) -> Machine:
        return options.machine()

    try:
        machine: Machine = command.main(words, prog_name="fakesys", standalone_mode=False)
    except click.UsageError as error:
        raise ValueError(error.format_message()) from None
    return machine

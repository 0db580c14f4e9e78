"""The command `fakesys`. Each command's module is imported only when it is asked for."""

from __future__ import annotations

import importlib
import sys

import click

# Command: module of this package and name in it.
COMMANDS = {
    "mount": "mounting:mount",
    "umount": "mounting:umount",
    "status": "mounting:status",
    "run": "offline:run",
    "abi": "offline:abi",
    "doc": "offline:doc",
    "show": "show:show",
    "lab": "lab:lab",
    "exec": "execute:execute",
    "snapshot": "snapshots:snapshot",
    "record": "recordings:record",
    "replay": "recordings:replay",
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the help text."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name."""
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, name = place.split(":")
        command: click.Command = vars(importlib.import_module(f"{__name__}.{module}"))[name]
        return command


@click.group(cls=LazyGroup, epilog="Example: fakesys mount ./mountpoint")
@click.version_option(package_name="fakesys")
def cli() -> None:
    """A mounted fake sysfs, debugfs and tracefs that behaves."""


def main() -> None:
    """Run the command line; problems are one line on standard error and an exit status."""
    try:
        status = cli.main(standalone_mode=False)
    except click.ClickException as error:
        # 2 for a wrong command line, 1 for what was refused or failed.
        click.echo(f"fakesys: {error.format_message()}", err=True)
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    sys.exit(status or 0)

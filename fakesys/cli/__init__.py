"""The command `fakesys`: its words, its messages, its exit statuses.

Each command is a function of click in a module of this folder (`COMMANDS`), imported only when it
is asked for, so that `fakesys status` does not wait for models. Modules of one group share a file:
`mounting.py` (mount, umount, status), `offline.py` (run, abi, doc), `recordings.py` (record,
replay), `view.py` (view, top), `snapshots.py`, `lab.py`, `explore.py`, `sweep.py`, `show.py`,
`execute.py` (exec). What they share:

* `machine_options.py`: `MachineOptions`, the options of a machine and its daemon.
* `starting.py`: starts a daemon in the background and reports why it did not start.
* `points.py`: finds the mounts that a command names. `show.py`: options of files with plots.

Commands own nothing that outlives them but daemons. A refusal or failure is a ClickException: one
line on standard error that says what to do, and exit status 1, or 2 for a wrong command line.
`fakesys exec` and `fakesys record` have the status of their command. Of an internal error the line
names a file with the traceback (`failures.py`).

    >>> from fakesys.cli import cli
    >>> cli.main(["run", "selftest"], standalone_mode=False)
"""

from __future__ import annotations

import importlib
import sys

import click

from fakesys.cli.failures import FAILED, flushed, line_about, occupy_standard_descriptors, say

INTERRUPTED = 130
# Command: module of this package and name in it.
COMMANDS = {
    "mount": "mounting:mount",
    "umount": "mounting:umount",
    "status": "mounting:status",
    "run": "offline:run",
    "abi": "offline:abi",
    "doc": "offline:doc",
    "show": "show:show",
    "view": "view:view",
    "top": "view:top",
    "lab": "lab:lab",
    "explore": "explore:explore",
    "sweep": "sweep:sweep",
    "exec": "execute:execute",
    "snapshot": "snapshots:snapshot",
    "record": "recordings:record",
    "replay": "recordings:replay",
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the help text."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command of this name; None when there is none."""
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, name = place.split(":")
        command: click.Command = vars(importlib.import_module(f"{__name__}.{module}"))[name]
        return command


@click.group(cls=LazyGroup, epilog="Example: fakesys mount ./mountpoint")
@click.version_option(package_name="fakesys")
def cli() -> None:
    """A mounted fake sysfs, debugfs and tracefs that behaves."""  # noqa: D401 - the help text


def main() -> None:
    """Run the command line; problems are one line on standard error and an exit status."""
    occupy_standard_descriptors()
    sys.exit(flushed(_status()))


def _status() -> int:
    """Run the command and return its exit status."""
    try:
        return cli.main(standalone_mode=False) or 0
    except click.ClickException as error:
        # 2 for a wrong command line, 1 for what was refused or failed.
        say(error.format_message())
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except OSError as error:
        # What standard output still holds is reported when it is flushed.
        if flushed(0) == 0:
            say(
                ("" if error.filename or not error.strerror else "input or output: ")
                + line_about(error)
            )
        return FAILED
    except Exception as error:
        say(line_about(error))
        return FAILED

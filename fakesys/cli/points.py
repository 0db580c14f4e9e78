"""Find the mounts that commands are asked to use."""

from __future__ import annotations

from pathlib import Path

import click

from fakesys.transport import mounting
from fakesys.transport.mounting import Mounted

# The type of options that name a mount. click.Path calls stat(2), and would wait for a daemon.
MOUNT_PATH = Path


def mount_at(point: Path) -> Mounted:
    """Return the mount of fakesys on this point. Raises ClickException when there is none."""
    mount = mounting.find(point)
    if mount is None:
        raise click.ClickException(
            f"{point} has no fakesys mount; `fakesys status` lists the mounts of this user"
        )
    return mount


def require_answer(point: Path) -> None:
    """Ask the file system on `point` for a sign of life, before a call that might wait for it.

    Raises ClickException when nothing answers; a path that does not exist is left to the caller.
    """
    if not mounting.answers(point):
        raise click.ClickException(
            f"{point}: its daemon does not answer; continue it, or unmount with fakesys umount"
        )


def own_mounts() -> list[Mounted]:
    """Return the mounts whose daemons this user started."""
    from fakesys.daemon import registry

    own = {entry.instance for entry in registry.entries()}
    return [mount for mount in mounting.mounted() if mount.instance in own]

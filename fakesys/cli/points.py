"""Find the mounts that commands are asked to use."""

from __future__ import annotations

from pathlib import Path

import click

from fakesys.transport import mounting
from fakesys.transport.mounting import Mounted


def mount_at(point: Path) -> Mounted:
    """Return the mount of fakesys on this point. Raises ClickException when there is none."""
    mount = mounting.find(point)
    if mount is None:
        raise click.ClickException(
            f"{point} has no fakesys mount; `fakesys status` lists the mounts of this user"
        )
    return mount


def own_mounts() -> list[Mounted]:
    """Return the mounts whose daemons this user started."""
    from fakesys.daemon import registry

    own = {entry.instance for entry in registry.entries()}
    return [mount for mount in mounting.mounted() if mount.instance in own]

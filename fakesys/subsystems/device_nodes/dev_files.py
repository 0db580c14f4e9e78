"""The directory `dev` of the mount: a node for every device that says its name in /dev.

As devtmpfs makes them. Opening a node reaches no driver.

Source: drivers/base/core.c:device_get_devnode, drivers/base/devtmpfs.c:handle_create (v6.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from fakesys.core.events import Bus, Changed, Uevent
from fakesys.core.saved import text_of
from fakesys.tree.attr import Children, DeviceNodes, DeviceNumber, Layout, Mount
from fakesys.tree.kinds import SYSFS

# Of nodes of devices that name none.
ROOT_ONLY = "0600"


class WithNode(Protocol):
    """A device that has a node."""

    def uevent_env(self) -> Mapping[str, str]:
        """Return its fields: MAJOR, MINOR, DEVNAME and, unless it is 0600, DEVMODE."""


Devices = Callable[[], Iterable[WithNode]]


class Folder(NamedTuple):
    """A directory of nodes. `prefix`: what their names begin with, "" or such as `vfio/`."""

    devices: Devices
    prefix: str

    def nodes(self) -> Iterator[tuple[str, DeviceNumber]]:
        """Yield name, mode and number of each node in it and below."""
        for device in self.devices():
            env = device.uevent_env()
            name = text_of(env["DEVNAME"])
            if name.startswith(self.prefix):
                mode = int(env.get("DEVMODE", ROOT_ONLY), 8)
                number = DeviceNumber(mode, int(env["MAJOR"]), int(env["MINOR"]))
                yield name.removeprefix(self.prefix), number

    def names(self) -> list[str]:
        """Return the names of the nodes in it."""
        return [name for name, _ in self.nodes() if "/" not in name]

    def number(self, wanted: str) -> DeviceNumber | None:
        """Return mode and number of one node."""
        return next((number for name, number in self.nodes() if name == wanted), None)

    def folders(self) -> list[str]:
        """Return the names of the directories in it."""
        return sorted({name.partition("/")[0] for name, _ in self.nodes() if "/" in name})

    def folder(self, name: str) -> Folder | None:
        """Return a directory in it."""
        return Folder(self.devices, f"{self.prefix}{name}/") if name in self.folders() else None


NODES: Layout[Folder] = Layout(
    (DeviceNodes(names=Folder.names, get=Folder.number, label="NODE"),), kind=SYSFS
)
DEV: Layout[Folder] = Layout(
    (
        *NODES.rows,
        Children(names=Folder.folders, get=Folder.folder, layout=NODES, label="FOLDER"),
    ),
    kind=SYSFS,
)


def top(bus: Bus, devices: Devices) -> Folder:
    """Return the model of the directory, which follows what `bus` tells of these devices."""
    folder = Folder(devices, "")

    def follow(event: Uevent) -> None:
        if "DEVNAME" in event.env:
            bus.emit(Changed((None, folder), deep=True))

    bus.subscribe(Uevent, follow)
    return folder


def mount(folder: Folder) -> Mount:
    """Return where the nodes appear."""
    return Mount("dev", DEV, lambda: folder)

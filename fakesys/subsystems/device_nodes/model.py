"""Devices with a node, and the nodes that users make in `class/zcrypt`. Knows no text of files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from errno import EEXIST, EINVAL, ENOENT, ENOSPC
from typing import Any

from fakesys.core.errors import KernelError
from fakesys.core.events import Changed, Uevent
from fakesys.core.kernel import Kernel
from fakesys.core.saved import byte_text
from fakesys.core.text import format_mask
from fakesys.subsystems.s390dbf.model import DebugFeatures, Level

# Of misc devices; VFIO_MINOR; the others are given out dynamically, from above (misc.c, v6.1).
MISC_MAJOR = 10
VFIO_MINOR = 196
# Given out dynamically, too.
ZCRYPT_MAJOR = 252
# zcrypt_api.c: ZCRYPT_MAX_MINOR_NODES, ZCDN_MAX_NAME.
MOST_NODES = 256
LONGEST_NAME = 31
READ_WRITE_ALL = "0666"


class NodeDevice:
    """A device of a class. `mode`: of its node, "" for the default."""

    def __init__(self, kind: str, name: str, number: tuple[int, int], mode: str = "") -> None:
        self.subsystem = kind
        self.name = name
        self.number = number
        self.mode = mode

    @property
    def path(self) -> str:
        """Path of its directory from the root of the mount."""
        return f"sys/devices/virtual/{self.subsystem}/{self.name}"

    @property
    def devpath(self) -> str:
        """Path below /sys, as events have it: a name is bytes there."""
        return f"/devices/virtual/{self.subsystem}/{byte_text(self.name)}"

    def uevent_env(self) -> Mapping[str, str]:
        """Return the number and the name of the node."""
        major, minor = self.number
        # drivers/base/core.c:device_get_devnode (v6.1).
        env = {"MAJOR": f"{major}", "MINOR": f"{minor}", "DEVNAME": self._node_name}
        return env | {"DEVMODE": self.mode} if self.mode else env

    @property
    def _node_name(self) -> str:
        return byte_text(self.name).replace("!", "/")

    def listed_in(self) -> Iterable[object]:
        """Return None, which stands for the directories above all mounts."""
        return (None,)


MASKS = ("ioctlmask", "apmask", "aqmask", "admask")


class ZcryptNode(NodeDevice):
    """A node of zcrypt. `masks`: by their names; nothing is allowed at first."""

    def __init__(self, nodes: DeviceNodes, name: str, minor: int) -> None:
        super().__init__("zcrypt", name, (ZCRYPT_MAJOR, minor))
        self.nodes = nodes
        self.masks = dict.fromkeys(MASKS, 0)

    def listed_in(self) -> Iterable[object]:
        """Return the model whose directories list it."""
        return (self.nodes,)

    def state(self) -> dict[str, Any]:
        """Return minor number and masks as plain data."""
        masks = {name: format_mask(mask) for name, mask in self.masks.items()}
        return {"minor": self.number[1], **masks}


def _misc() -> dict[str, NodeDevice]:
    """Return the misc devices by the name of the module that makes each."""
    return {
        "zcrypt": NodeDevice("misc", "z90crypt", (MISC_MAJOR, 125)),
        "pkey": NodeDevice("misc", "pkey", (MISC_MAJOR, 124), READ_WRITE_ALL),
        "vfio": VfioMisc("misc", "vfio", (MISC_MAJOR, VFIO_MINOR), READ_WRITE_ALL),
    }


class VfioMisc(NodeDevice):
    """The misc device of vfio, whose node is in a directory of /dev (container.c, v6.1)."""

    @property
    def _node_name(self) -> str:
        return "vfio/vfio"


class DeviceNodes:
    """The nodes of one machine. `misc`: devices by their modules; `zcrypt`: nodes by name."""

    def __init__(self, kernel: Kernel, debug: DebugFeatures | None = None) -> None:
        self.kernel = kernel
        self._debug = debug or DebugFeatures(kernel)
        self.misc = _misc()
        self.loaded = set(self.misc)
        self.zcrypt: dict[str, ZcryptNode] = {}

    def present(self) -> Iterator[NodeDevice]:
        """Yield every device that has a node now."""
        yield from (self.misc[name] for name in self.misc if name in self.loaded)
        yield from self.zcrypt.values()

    def module_loaded(self, name: str, *classes: str) -> None:
        """Make what a module makes: its classes, then its misc device."""
        self.loaded.add(name)
        self._tell_classes("add", classes)
        self.kernel.devices.add(self.misc[name])
        self._names_changed()

    def module_removed(self, name: str, *classes: str) -> None:
        """Remove what a module has made, its nodes first."""
        if name == "zcrypt":
            for node in list(self.zcrypt):
                self.destroy(node)
        self.loaded.discard(name)
        self.kernel.devices.remove(self.misc[name])
        self._tell_classes("remove", classes)
        self._names_changed()

    def create(self, text: str) -> ZcryptNode:
        """Make a node of zcrypt; "" gives it the name `zcrypt_` and its minor number.

        Raises EEXIST for a name in use, ENOSPC at the 257th node, EINVAL for `.` and `..`, which
        no directory can have. Like zcrypt_api.c:zcdn_create (v6.1).
        """
        name = text.replace("/", "!")
        if text in self.zcrypt:
            raise KernelError(EEXIST, f"there is a node {text!r}")
        taken = {node.number[1] for node in self.zcrypt.values()}
        minor = next((each for each in range(MOST_NODES) if each not in taken), None)
        if minor is None:
            raise KernelError(ENOSPC, f"there are {MOST_NODES} nodes")
        name = name or f"zcrypt_{minor}"
        if name in self.zcrypt:
            raise KernelError(EEXIST, f"there is a node {name!r}")
        if name in (".", ".."):
            raise KernelError(EINVAL, f"{name!r} is no name of a directory")
        node = self.zcrypt[name] = ZcryptNode(self, name, minor)
        self.kernel.devices.add(node)
        self._say(f"zcdn_create created zcdn device {ZCRYPT_MAJOR}:{minor}")
        return node

    def destroy(self, name: str) -> None:
        """Remove a node of zcrypt. Raises ENOENT. Like zcrypt_api.c:zcdn_destroy (v6.1)."""
        node = self.zcrypt.pop(name, None)
        if node is None:
            raise KernelError(ENOENT, f"there is no node {name!r}")
        self.kernel.devices.remove(node)
        major, minor = node.number
        self._say(f"zcdn_device_release releasing zcdn device {major}:{minor}")

    def complain(self, module: str, text: str) -> None:
        """Tell an error of a module to its debug feature."""
        self._debug.write(module, Level.ERR, text)

    def state(self) -> dict[str, Any]:
        """Return the nodes of zcrypt as plain data."""
        return {name: node.state() for name, node in sorted(self.zcrypt.items())}

    def _say(self, text: str) -> None:
        self._debug.write("zcrypt", Level.INFO, text)

    def _tell_classes(self, action: str, classes: Iterable[str]) -> None:
        for name in classes:
            self.kernel.bus.emit(Uevent(action, f"/class/{name}", "class"))

    def _names_changed(self) -> None:
        self.kernel.bus.emit(Changed((None, self)))

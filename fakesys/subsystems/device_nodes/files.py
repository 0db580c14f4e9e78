"""`class/misc`, `class/zcrypt`, and the devices of both classes in `devices/virtual`.

Source: zcrypt_api.c, pkey_api.c, drivers/char/misc.c (v6.1).
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EEXIST, EINVAL, EIO, ENODEV, ENOENT, ENOSPC
from typing import Any, NamedTuple

from msgspec.structs import replace

from fakesys.core.devices import Devices
from fakesys.core.errors import KernelError
from fakesys.core.saved import text_of
from fakesys.core.text import format_mask, parse_mask
from fakesys.subsystems.device_nodes.features import NodeFeature
from fakesys.subsystems.device_nodes.model import (
    LONGEST_NAME,
    MASKS,
    DeviceNodes,
    NodeDevice,
    ZcryptNode,
)
from fakesys.subsystems.device_nodes.pkey import (
    FAMILIES,
    MISSING_FUNCTIONS,
    NO_FUNCTION,
    TRIES,
    Family,
    KeyMakers,
    MissingFunction,
)
from fakesys.subsystems.driver_core.files import device_rows
from fakesys.tree.attr import Attr, Children, Dir, Layout, Link, Links, Mount, Row
from fakesys.tree.kinds import SYSFS, Kind

_BLANKS = " \t\n\v\f\r"


def node_rows(devices: Devices) -> tuple[Row, ...]:
    """Return the rows that a device of a class with a node has."""
    own = tuple(row for row in device_rows(devices, power=False) if isinstance(row, Attr))
    number: Attr[Any] = Attr(
        name="dev",
        mode=0o444,
        doc="Number of the device: `MAJOR:MINOR`.",
        show=lambda device: "{}:{}\n".format(*device.number),
    )
    return (
        *own,
        number,
        Link(name="subsystem", to=lambda device: f"sys/class/{device.subsystem}"),
    )


def node_name(text: str) -> str:
    """Return the name in a text, cut to 31 characters. Like zcrypt_api.c:zcdn_create_store."""
    return text_of(text.lstrip(_BLANKS)[:LONGEST_NAME].rstrip(_BLANKS))


def _mask_row(name: str, what: str) -> Attr[ZcryptNode]:
    def store(node: ZcryptNode, text: str) -> None:
        node.masks[name] = parse_mask(text, node.masks[name])

    return Attr(
        name=name,
        mode=0o644,
        doc=f"{what} that the node allows; none at first.",
        show=lambda node: f"{format_mask(node.masks[name])}\n",
        store=store,
        errors={EINVAL: "not a mask, absolute or relative"},
    )


_WHAT = ("Requests (ioctl numbers)", "Adapters", "Domains", "Control domains")
MASK_ROWS: tuple[Row, ...] = tuple(map(_mask_row, MASKS, _WHAT))

CLASS_ZCRYPT: Layout[DeviceNodes] = Layout(
    (
        Attr(
            name="create",
            mode=0o600,
            doc="Write a name to make a node; an empty line for `zcrypt_` and a number.",
            store=lambda nodes, text: _drop(nodes.create(node_name(text))),
            errors={
                EEXIST: "there is one of this name",
                ENOSPC: "there are 256",
                EINVAL: "`.` or `..`",
            },
        ),
        Attr(
            name="destroy",
            mode=0o600,
            doc="Write the name of a node to remove it.",
            store=lambda nodes, text: nodes.destroy(node_name(text)),
            errors={ENOENT: "there is none of this name"},
        ),
        Links(
            names=lambda nodes: nodes.zcrypt,
            get=lambda nodes, name: nodes.zcrypt[name].path if name in nodes.zcrypt else None,
            label="NAME",
        ),
    )
)


def _drop(_made: object) -> None:
    """Return None."""


def _misc_names(nodes: DeviceNodes) -> list[str]:
    return [device.name for module, device in nodes.misc.items() if module in nodes.loaded]


def _misc(nodes: DeviceNodes, name: str) -> NodeDevice | None:
    for module, device in nodes.misc.items():
        if device.name == name and module in nodes.loaded:
            return device
    return None


def _misc_path(nodes: DeviceNodes, name: str) -> str | None:
    device = _misc(nodes, name)
    return None if device is None else device.path


CLASS_MISC: Layout[DeviceNodes] = Layout((Links(names=_misc_names, get=_misc_path),))


class _Keys(NamedTuple):
    """What the files of pkey need."""

    nodes: DeviceNodes
    makers: KeyMakers


# A key is new at each read, so a part of it would be of no use (pkey_api.c, v6.1).
_WHOLE_ONLY = {EINVAL: "a read of a part"}
_NO_CARD = {ENODEV: "no card of the host can make one"}
_NO_MASTER_KEY = {EIO: "its domain has no master key"}


def _key_kind(size: int) -> Kind:
    return replace(SYSFS, name="sysfs-key", size=size, part=EINVAL)


def _key_errors(family: Family) -> dict[int, str]:
    if family.make is None:
        return _WHOLE_ONLY
    return _WHOLE_ONLY | _NO_CARD | ({} if family.asked else _NO_MASTER_KEY)


def _key_row(family: Family, name: str, bits: int, tokens: int) -> Attr[_Keys]:
    def show(keys: _Keys) -> str:
        made = tokens if family.make is None else family.make(keys.makers, family.name, tokens)
        now = keys.nodes.kernel.clock.now_ns
        return family.key(bits, made, now).decode("latin-1")

    size = family.size * tokens
    who = "a protected key" if family.make is None else f"a secure key of {family.cards}"
    return Attr(
        name=name,
        mode=0o444,
        doc=f"{size} bytes: {who}, another one at each moment.",
        show=show,
        errors=_key_errors(family),
        kind=_key_kind(size),
    )


def _missing_row(missing: MissingFunction) -> Attr[_Keys]:
    def show(keys: _Keys) -> str:
        for _ in range(TRIES):
            keys.nodes.complain("pkey", NO_FUNCTION)
        raise KernelError(ENODEV, f"the processor has no function for {missing.name}")

    return Attr(
        name=missing.name,
        mode=0o444,
        doc=f"{missing.size} bytes: a protected key, which the processors of these machines cannot"
        " make.",
        show=show,
        errors={**_WHOLE_ONLY, ENODEV: "the processor has no such function"},
        kind=_key_kind(missing.size),
        needs=NodeFeature.KEY_HANDLERS,
    )


def _key_folder(
    family: Family, nodes: Callable[[], DeviceNodes], makers: KeyMakers
) -> Dir[NodeDevice]:
    rows = [_key_row(family, *file) for file in family.files()]
    if family.make is None:
        rows += map(_missing_row, MISSING_FUNCTIONS)
    return Dir(
        name=family.name,
        layout=Layout(tuple(rows)),
        of=lambda device: _Keys(nodes(), makers) if device.name == "pkey" else None,
        needs=family.needs,
        unless=family.unless,
    )


def mounts(
    nodes: Callable[[], DeviceNodes], devices: Devices, makers: KeyMakers
) -> tuple[Mount, ...]:
    """Return where the files appear. `makers`: ask the cards of the host for keys."""
    own = node_rows(devices)
    folders = tuple(_key_folder(family, nodes, makers) for family in FAMILIES)
    misc: Layout[NodeDevice] = Layout((*own, *folders))
    node: Layout[ZcryptNode] = Layout((*own, *MASK_ROWS))
    return (
        Mount("sys/class/misc", CLASS_MISC, nodes),
        Mount("sys/class/zcrypt", CLASS_ZCRYPT, lambda: _with_zcrypt(nodes())),
        Mount(
            "sys/devices/virtual/misc",
            Layout((Children(names=_misc_names, get=_misc, layout=misc),)),
            nodes,
        ),
        Mount(
            "sys/devices/virtual/zcrypt",
            Layout(
                (
                    Children(
                        names=lambda nodes: nodes.zcrypt,
                        get=lambda nodes, name: nodes.zcrypt.get(name),
                        layout=node,
                        label="NAME",
                    ),
                )
            ),
            lambda: nodes() if nodes().zcrypt else None,
        ),
    )


def _with_zcrypt(nodes: DeviceNodes) -> DeviceNodes | None:
    return nodes if "zcrypt" in nodes.loaded else None

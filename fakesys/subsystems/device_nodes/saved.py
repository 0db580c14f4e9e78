"""The nodes of zcrypt in a snapshot; misc devices follow from the modules that are loaded."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fakesys.core.saved import (
    U8,
    ByteText,
    Mask,
    Saved,
    byte_text,
    check,
    check_unique,
    mask_of,
    mask_text,
    text_of,
)
from fakesys.subsystems.device_nodes.model import LONGEST_NAME, MASKS, DeviceNodes, ZcryptNode


class SavedNode(Saved, frozen=True):
    """A node: its name, minor number, and masks in the order of `MASKS`."""

    name: ByteText
    minor: U8
    masks: tuple[Mask, Mask, Mask, Mask]


class SavedNodes(Saved, frozen=True):
    """The nodes, the oldest first."""

    zcrypt: Annotated[tuple[SavedNode, ...], Meta(max_length=256)]


def save(nodes: DeviceNodes) -> SavedNodes:
    """Return what a snapshot holds of the nodes."""
    return SavedNodes(zcrypt=tuple(map(_save_node, nodes.zcrypt.values())))


def _save_node(node: ZcryptNode) -> SavedNode:
    first, second, third, fourth = (mask_text(node.masks[name]) for name in MASKS)
    masks = (first, second, third, fourth)
    return SavedNode(name=byte_text(node.name), minor=node.number[1], masks=masks)


def restore(saved: SavedNodes, nodes: DeviceNodes, loaded: set[str]) -> None:
    """Have these nodes. `loaded`: modules whose misc devices are there. Raises BadSnapshotError."""
    nodes.loaded = loaded & set(nodes.misc)
    check(not saved.zcrypt or "zcrypt" in loaded, "there are nodes without zcrypt")
    check_unique([node.name for node in saved.zcrypt], "the name of a node")
    check_unique([node.minor for node in saved.zcrypt], "the minor number of a node")
    for each in saved.zcrypt:
        proper = 0 < len(each.name) <= LONGEST_NAME and each.name not in (".", "..")
        check(proper and not set("/\0") & set(each.name), "a node has no proper name")
        name = text_of(each.name)
        node = nodes.zcrypt[name] = ZcryptNode(nodes, name, each.minor)
        node.masks = dict(zip(MASKS, map(mask_of, each.masks), strict=True))

"""Extended attributes: only the `trusted` name space of sysfs files takes any."""

from __future__ import annotations

from collections.abc import Iterable
from errno import ENODATA, EOPNOTSUPP

from fakesys.core.errors import KernelError
from fakesys.tree.node import Node


class ExtendedAttributes:
    """What setxattr(2) left, by inode number: those are never used twice."""

    def __init__(self) -> None:
        self._values: dict[int, dict[str, bytes]] = {}

    def get(self, node: Node, name: str) -> bytes:
        """A value. Raises EOPNOTSUPP, ENODATA."""
        if not node.kind.xattrs or name.startswith("system."):
            raise KernelError(EOPNOTSUPP, "no such extended attributes here")
        value = self._values.get(node.ino, {}).get(name)
        if value is None:
            raise KernelError(ENODATA, f"{node.path} has no {name}")
        return value

    def set(self, node: Node, name: str, value: bytes) -> None:
        """Keep a value. Raises EOPNOTSUPP."""
        _require_trusted(node, name)
        self._values.setdefault(node.ino, {})[name] = value

    def names(self, node: Node) -> Iterable[str]:
        """What was set."""
        return self._values.get(node.ino, {})

    def remove(self, node: Node, name: str) -> None:
        """Forget a value. Raises EOPNOTSUPP, ENODATA."""
        _require_trusted(node, name)
        if self._values.get(node.ino, {}).pop(name, None) is None:
            raise KernelError(ENODATA, f"{node.path} has no {name}")


def _require_trusted(node: Node, name: str) -> None:
    if not (node.kind.xattrs and name.startswith("trusted.")):
        raise KernelError(EOPNOTSUPP, "only the trusted name space takes attributes")

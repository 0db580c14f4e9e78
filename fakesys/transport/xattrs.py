"""Extended attributes, kept per node as kernfs does.

Files of sysfs take any name in the name spaces `trusted` and `security` (fs/kernfs/inode.c, v6.1).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from errno import EEXIST, EINVAL, ENODATA, EOPNOTSUPP

from fakesys.core.errors import KernelError
from fakesys.tree.node import Node

TRUSTED = "trusted."
# fs/kernfs/inode.c:kernfs_xattr_handlers.
NAME_SPACES = (TRUSTED, "security.", "user.")


class ExtendedAttributes:
    """Values set by setxattr(2), by inode number; the tree never uses an inode number twice."""

    def __init__(self) -> None:
        self._values: dict[int, dict[str, bytes]] = {}

    def __bool__(self) -> bool:
        """Return whether any attribute was ever set."""
        return bool(self._values)

    def get(self, node: Node, name: str) -> bytes:
        """Return a value. Raises EOPNOTSUPP, EINVAL, ENODATA."""
        _check_name(node, name)
        value = self._values.get(node.ino, {}).get(name)
        if value is None:
            raise KernelError(ENODATA, f"{node.path} has no {name}")
        return value

    def set(self, node: Node, name: str, value: bytes, flags: int = 0) -> None:
        """Keep a value. Raises EOPNOTSUPP, EINVAL, and as `flags` demand EEXIST or ENODATA."""
        _require_settable(node, name)
        there = name in self._values.get(node.ino, {})
        if flags & os.XATTR_CREATE and there:
            raise KernelError(EEXIST, f"{node.path} has {name}")
        if flags & os.XATTR_REPLACE and not there:
            raise KernelError(ENODATA, f"{node.path} has no {name}")
        self._values.setdefault(node.ino, {})[name] = value

    def names(self, node: Node, uid: int) -> Iterable[str]:
        """Return the names that are set; those of `trusted` for root only."""
        names = sorted(self._values.get(node.ino, {}))
        return names if uid == 0 else [name for name in names if not name.startswith(TRUSTED)]

    def remove(self, node: Node, name: str) -> None:
        """Remove a value. Raises EOPNOTSUPP, EINVAL, ENODATA."""
        _require_settable(node, name)
        if self._values.get(node.ino, {}).pop(name, None) is None:
            raise KernelError(ENODATA, f"{node.path} has no {name}")


def _check_name(node: Node, name: str) -> None:
    """Like fs/xattr.c:xattr_resolve_name (v6.1)."""
    if not (node.kind.xattrs and name.startswith(NAME_SPACES)):
        raise KernelError(EOPNOTSUPP, "no such extended attributes here")
    if name in NAME_SPACES:
        raise KernelError(EINVAL, "a name space and no name in it")


def _require_settable(node: Node, name: str) -> None:
    _check_name(node, name)
    if name.startswith("user."):
        raise KernelError(EOPNOTSUPP, "of the kernfs file systems only cgroups take these")

"""debugfs on a kernel that is locked down (Secure Boot).

Measured on a locked-down 6.18; fs/debugfs/file.c:debugfs_locked_down (v6.1).
"""

from __future__ import annotations

import os
from errno import EPERM

from fakesys.core.errors import KernelError
from fakesys.tree.kinds import DEBUGFS, DEBUGFS_SEQ
from fakesys.tree.node import File, Node

LOCKED = frozenset({DEBUGFS.name, DEBUGFS_SEQ.name})


def refuse_open(node: File, flags: int) -> None:
    """Refuse to open a debugfs file for writing, or one with any bit beyond 0444. Raises EPERM."""
    if node.kind.name not in LOCKED:
        return
    # Access mode 3 does not open for writing: such a descriptor only takes ioctls.
    for_writing = flags & os.O_ACCMODE in (os.O_WRONLY, os.O_RDWR)
    if for_writing or node.mode & 0o7777 & ~0o444:
        raise KernelError(EPERM, f"{node.path}: debugfs is locked down")


def refuse_change(node: Node) -> None:
    """Refuse chmod and chown in debugfs. Raises EPERM. Like fs/debugfs/inode.c:debugfs_setattr."""
    if node.kind.name in LOCKED:
        raise KernelError(EPERM, f"{node.path}: debugfs is locked down")

"""debugfs on a kernel that is locked down (Secure Boot).

Measured on a locked-down 6.18; fs/debugfs/file.c:debugfs_locked_down (v6.1).
"""

from __future__ import annotations

import os
from errno import EPERM

from fakesys.core.errors import KernelError
from fakesys.tree.kinds import DEBUGFS, DEBUGFS_SEQ
from fakesys.tree.node import File

LOCKED = frozenset({DEBUGFS.name, DEBUGFS_SEQ.name})


def refuse_when_locked_down(node: File, flags: int) -> None:
    """EPERM for a debugfs file with any bit beyond 0444, and for any open for writing."""
    if node.kind.name not in LOCKED:
        return
    for_writing = flags & os.O_ACCMODE != os.O_RDONLY
    if for_writing or node.mode & 0o7777 & ~0o444:
        raise KernelError(EPERM, f"{node.path}: debugfs is locked down")

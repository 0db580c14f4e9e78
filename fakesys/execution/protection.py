"""Make the host's own part of the private view read-only.

It comprises everything that is an interface of the kernel rather than a file on a disk: `/sys`,
what is writable in `/proc` outside of the directories of processes, and further mounts of such
types. Ordinary files remain writable: a test suite has to write its results.

Precondition of every function: the process is in a private mount namespace.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fakesys.execution.base.syscalls import StepError, bind, read_only
from fakesys.transport.mountinfo import mount_lines

SYS = Path("/sys")
PROC = Path("/proc")
# debugfs and tracefs are missing: wherever they are mounted, the simulated ones are shown.
KERNEL_TYPES = frozenset(
    (
        "binder",
        "binfmt_misc",
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "efivarfs",
        "fusectl",
        "nfsd",
        "proc",
        "pstore",
        "resctrl",
        "rpc_pipefs",
        "securityfs",
        "selinuxfs",
        "smackfs",
        "sysfs",
    )
)


def protect_host() -> None:
    """Refuse writes to the host's part. Raises StepError.

    To be called before anything simulated is shown: binds of read-only mounts are read-only too.
    """
    read_only(SYS)
    for path in _writable_in_proc():
        bind(path, path)
        read_only(path)
    # The last line of a mount point is that of the mount on top.
    shown = {point: fstype for point, fstype, _, _ in mount_lines()}
    for point, fstype in shown.items():
        elsewhere = not (point.is_relative_to(SYS) or point.is_relative_to(PROC))
        if fstype in KERNEL_TYPES and elsewhere:
            # One below a directory that another mount covers is out of reach.
            with suppress(StepError):
                read_only(point)


def _writable_in_proc() -> Iterator[Path]:
    """Yield the directories and the writable files of `/proc` that belong to no process."""
    for entry in os.scandir(PROC):
        if entry.name.isdigit() or entry.is_symlink():
            continue
        if entry.is_dir() or entry.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
            yield Path(entry.path)

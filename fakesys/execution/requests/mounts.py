"""Mounts of debugfs, tracefs and sysfs by the command: it gets the simulated ones.

The kernel refuses these types in a user namespace. The relay binds the simulated directory instead,
in the namespaces and with the rights of the caller, so that this opens nothing to a command that it
could not do itself.
"""

from __future__ import annotations

import os
from errno import EIO, ENOSYS, EPERM
from pathlib import Path

from fakesys.execution.base import syscalls
from fakesys.execution.base.places import FAKE, SYS
from fakesys.execution.base.syscalls import CLONE_NEWNS, CLONE_NEWUSER, MS_BIND, MS_MOVE, MS_REC
from fakesys.execution.requests.seccomp import Answer, Call
from fakesys.transport import mount_calls

MS_REMOUNT = 0x20
PROPAGATION = 0x1E_0000
CAP_SYS_ADMIN = 21
LONGEST_TYPE, LONGEST_PATH = 16, 4096
SIMULATED = {
    "debugfs": FAKE / "sys/kernel/debug",
    "tracefs": FAKE / "sys/kernel/tracing",
    "sysfs": SYS,
}


def open_type(call: Call) -> Answer | None:
    """Refuse fsopen(2) of these types: mount(8) then uses mount(2)."""
    return Answer(ENOSYS) if call.text(0, LONGEST_TYPE) in SIMULATED else None


def mount(call: Call) -> Answer | None:
    """Do mount(2) of these types."""
    other = MS_REMOUNT | MS_BIND | MS_MOVE | PROPAGATION
    if call.arguments[3] & other or not call.arguments[2]:
        return None
    source = SIMULATED.get(call.text(2, LONGEST_TYPE))
    return None if source is None else Answer(_show(call, source))


def _show(call: Call, source: Path) -> int:
    """Bind `source` where the caller wants it, by a child in its namespaces; return the errno."""
    child = os.fork()
    if child == 0:
        error = EIO
        try:
            _bind_as(call, source)
            error = 0
        except OSError as refused:
            error = refused.errno or EIO
        finally:
            os._exit(error)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _bind_as(call: Call, source: Path) -> None:
    process = Path(f"/proc/{call.pid}")
    target = Path(call.text(1, LONGEST_PATH))
    if not call.may(CAP_SYS_ADMIN):
        raise OSError(EPERM, os.strerror(EPERM))
    root, folder = (os.open(process / name, os.O_PATH | os.O_DIRECTORY) for name in ("root", "cwd"))
    user, mounts = process / "ns/user", process / "ns/mnt"
    descriptor = os.open(mounts, os.O_RDONLY)
    syscalls.setns(user, CLONE_NEWUSER)
    syscalls.setns(Path(f"/proc/self/fd/{descriptor}"), CLONE_NEWNS)
    os.chdir("/")
    os.fchdir(root)
    os.chroot(".")
    os.fchdir(folder)
    mount_calls.mount(str(source), target, "", MS_BIND | MS_REC, "")

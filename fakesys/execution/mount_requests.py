"""Mounts of debugfs, tracefs and sysfs by the command: it gets the simulated ones.

The kernel refuses these types in a user namespace. A filter of seccomp hands the calls to the
relay, which binds the simulated directory instead, in the namespaces and with the rights of the
caller, so that this opens nothing to a command that it could not do itself. All other calls go on
to the kernel. Where there is no such filter, the kernel's refusal remains.

Follows seccomp(2), seccomp_unotify(2).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from contextlib import suppress
from errno import EIO, ENOSYS, EPERM
from pathlib import Path
from typing import NamedTuple

from fakesys.execution import syscalls
from fakesys.execution.places import FAKE, SYS
from fakesys.execution.syscalls import CLONE_NEWNS, CLONE_NEWUSER, MS_BIND, MS_MOVE, MS_REC
from fakesys.transport import mount_calls

SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_NEW_LISTENER = 8
SECCOMP_RET_USER_NOTIF = 0x7FC0_0000
SECCOMP_RET_ALLOW = 0x7FFF_0000
SECCOMP_USER_NOTIF_FLAG_CONTINUE = 1
SECCOMP_IOCTL_NOTIF_RECV = 0xC050_2100
SECCOMP_IOCTL_NOTIF_SEND = 0xC018_2101
# struct seccomp_notif: id, pid, flags; then number, architecture, instruction, arguments.
NOTIFICATION = struct.Struct("=QIIiIQ6Q")
# struct seccomp_notif_resp: id, value, error, flags.
RESPONSE = struct.Struct("=QqiI")
# struct sock_filter: code, jumps, constant.
INSTRUCTION = struct.Struct("=HBBI")
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
# Offsets in struct seccomp_data.
NUMBER, ARCHITECTURE = 0, 4
SYS_FSOPEN = 430
MS_REMOUNT = 0x20
PROPAGATION = 0x1E_0000
CAP_SYS_ADMIN = 21
LONGEST_TYPE, LONGEST_PATH = 16, 4096
SIMULATED = {
    "debugfs": FAKE / "sys/kernel/debug",
    "tracefs": FAKE / "sys/kernel/tracing",
    "sysfs": SYS,
}


class Architecture(NamedTuple):
    """Its number for seccomp, and two numbers of system calls."""

    audit: int
    seccomp: int
    mount: int


ARCHITECTURES = {
    "x86_64": Architecture(0xC000_003E, 317, 165),
    "aarch64": Architecture(0xC000_00B7, 277, 40),
    "riscv64": Architecture(0xC000_00F3, 277, 40),
    "s390x": Architecture(0x8000_0016, 348, 21),
    "ppc64le": Architecture(0xC000_0015, 358, 21),
}


class Call(NamedTuple):
    """A call that waits for an answer."""

    identity: int
    pid: int
    number: int
    arguments: tuple[int, ...]

    def text(self, argument: int, longest: int) -> str:
        """Return the string to which an argument points. Raises OSError."""
        address = self.arguments[argument]
        # Short strings may lie just before memory that does not exist: not beyond the page.
        limit = min(longest, 4096 - address % 4096)
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
            piece = os.pread(memory.fileno(), limit, address)
            if b"\0" not in piece and limit < longest:
                piece += os.pread(memory.fileno(), longest - limit, address + limit)
        return os.fsdecode(piece.partition(b"\0")[0])


def watch() -> int | None:
    """Begin to hand calls of this process and its children over; return where they arrive.

    Return None on other architectures, and where a filter does so already, in a view in a view.
    """
    machine = ARCHITECTURES.get(os.uname().machine)
    if machine is None:
        return None
    program = ctypes.create_string_buffer(_filter(machine))
    length = len(program.raw) // INSTRUCTION.size
    head = ctypes.create_string_buffer(struct.pack("@HP", length, ctypes.addressof(program)))
    descriptor = ctypes.CDLL(None, use_errno=True).syscall(
        ctypes.c_long(machine.seccomp),
        ctypes.c_uint(SECCOMP_SET_MODE_FILTER),
        ctypes.c_uint(SECCOMP_FILTER_FLAG_NEW_LISTENER),
        head,
    )
    return None if descriptor < 0 else int(descriptor)


def _filter(machine: Architecture) -> bytes:
    """Return the program: mount and fsopen of this architecture are handed over."""
    lines = (
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_IF_EQUAL, 0, 3, machine.audit),
        (LOAD, 0, 0, NUMBER),
        (JUMP_IF_EQUAL, 2, 0, machine.mount),
        (JUMP_IF_EQUAL, 1, 0, SYS_FSOPEN),
        (RETURN, 0, 0, SECCOMP_RET_ALLOW),
        (RETURN, 0, 0, SECCOMP_RET_USER_NOTIF),
    )
    return b"".join(INSTRUCTION.pack(*line) for line in lines)


def answer(listener: int) -> None:
    """Answer one call. One whose process has gone meanwhile is forgotten."""
    buffer = bytearray(NOTIFICATION.size)
    with suppress(FileNotFoundError):
        fcntl.ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, buffer)
        identity, pid, _, number, _, _, *arguments = NOTIFICATION.unpack(buffer)
        error = _result(Call(identity, pid, number, tuple(arguments)))
        flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE if error is None else 0
        response = RESPONSE.pack(identity, 0, -(error or 0), flags)
        fcntl.ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, response)


def _result(call: Call) -> int | None:
    """Return the errno of a call, 0 when it was done, None when the kernel is to do it."""
    try:
        if call.number == SYS_FSOPEN:
            # mount(8) then uses mount(2).
            return ENOSYS if call.text(0, LONGEST_TYPE) in SIMULATED else None
        other = MS_REMOUNT | MS_BIND | MS_MOVE | PROPAGATION
        if call.arguments[3] & other or not call.arguments[2]:
            return None
        source = SIMULATED.get(call.text(2, LONGEST_TYPE))
        return None if source is None else _show(call, source)
    except OSError:
        return None


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
    if not _may_mount(process):
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


def _may_mount(process: Path) -> bool:
    """Return whether the process has CAP_SYS_ADMIN in its user namespace."""
    for line in (process / "status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> CAP_SYS_ADMIN & 1)
    return False

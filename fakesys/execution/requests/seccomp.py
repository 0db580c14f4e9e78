"""Receive system calls of other processes from the kernel, and answer them."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fakesys.transport.mount_calls import libc

SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_NEW_LISTENER = 8
SECCOMP_RET_USER_NOTIF = 0x7FC0_0000
SECCOMP_RET_ALLOW = 0x7FFF_0000
SECCOMP_USER_NOTIF_FLAG_CONTINUE = 1
SECCOMP_IOCTL_NOTIF_RECV = 0xC050_2100
SECCOMP_IOCTL_NOTIF_SEND = 0xC018_2101
SECCOMP_IOCTL_NOTIF_ID_VALID = 0x4008_2102
# struct seccomp_notif: id, pid, flags; then number, architecture, instruction, arguments.
NOTIFICATION = struct.Struct("=QIIiIQ6Q")
# struct seccomp_notif_resp: id, value, error, flags.
RESPONSE = struct.Struct("=QqiI")
# struct sock_filter: code, jumps, constant.
INSTRUCTION = struct.Struct("=HBBI")
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
# Offsets in struct seccomp_data.
NUMBER, ARCHITECTURE = 0, 4


class Architecture(NamedTuple):
    """Its number for seccomp, and numbers of system calls."""

    audit: int
    seccomp: int
    mount: int
    init_module: int
    delete_module: int
    finit_module: int
    syslog: int
    fsopen: int = 430


ARCHITECTURES = {
    "x86_64": Architecture(0xC000_003E, 317, 165, 175, 176, 313, 103),
    "aarch64": Architecture(0xC000_00B7, 277, 40, 105, 106, 273, 116),
    "riscv64": Architecture(0xC000_00F3, 277, 40, 105, 106, 273, 116),
    "s390x": Architecture(0x8000_0016, 348, 21, 128, 129, 344, 103),
    "ppc64le": Architecture(0xC000_0015, 358, 21, 128, 129, 353, 103),
}


class Answer(NamedTuple):
    """What a call returns: an errno, or if it is 0 the value."""

    error: int = 0
    value: int = 0


class Call(NamedTuple):
    """A call that waits for an answer."""

    identity: int
    pid: int
    number: int
    arguments: tuple[int, ...]
    listener: int

    def text(self, argument: int, longest: int) -> str:
        """Return the string to which an argument points. Raises OSError."""
        address = self.arguments[argument]
        # Short strings may lie just before memory that does not exist: not beyond the page.
        limit = min(longest, 4096 - address % 4096)
        piece = self.memory(address, limit)
        if b"\0" not in piece and limit < longest:
            piece += self.memory(address + limit, longest - limit)
        return os.fsdecode(piece.partition(b"\0")[0])

    def memory(self, address: int, size: int) -> bytes:
        """Return memory of the caller. Raises OSError."""
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
            return os.pread(memory.fileno(), size, address)

    def write_memory(self, address: int, data: bytes) -> None:
        """Change memory of the caller. Raises OSError."""
        with open(f"/proc/{self.pid}/mem", "r+b", buffering=0) as memory:
            # It still waits: so the number is not that of another process by now.
            identity = struct.pack("=Q", self.identity)
            fcntl.ioctl(self.listener, SECCOMP_IOCTL_NOTIF_ID_VALID, identity)
            os.pwrite(memory.fileno(), data, address)

    def may(self, capability: int) -> bool:
        """Return whether the caller has this capability in its user namespace. Raises OSError."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> capability & 1)
        return False


# Each for the number of a system call; None: the kernel is to do it. May raise OSError, as None.
Handlers = Mapping[int, Callable[[Call], Answer | None]]


def architecture() -> Architecture | None:
    """Return that of this machine, if there is a filter for it."""
    return ARCHITECTURES.get(os.uname().machine)


def watch() -> int | None:
    """Begin to hand calls of this process and its children over; return where they arrive.

    Return None on other architectures, and where a filter does so already, in a view in a view.
    """
    machine = architecture()
    if machine is None:
        return None
    program = ctypes.create_string_buffer(_filter(machine))
    length = len(program.raw) // INSTRUCTION.size
    head = ctypes.create_string_buffer(struct.pack("@HP", length, ctypes.addressof(program)))
    descriptor = libc().syscall(
        ctypes.c_long(machine.seccomp),
        ctypes.c_uint(SECCOMP_SET_MODE_FILTER),
        ctypes.c_uint(SECCOMP_FILTER_FLAG_NEW_LISTENER),
        head,
    )
    return None if descriptor < 0 else int(descriptor)


def _filter(machine: Architecture) -> bytes:
    """Return the program: these calls of this architecture are handed over."""
    audit, _, *numbers = machine
    lines = [
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_IF_EQUAL, 0, len(numbers) + 1, audit),
        (LOAD, 0, 0, NUMBER),
        *((JUMP_IF_EQUAL, len(numbers) - place, 0, number) for place, number in enumerate(numbers)),
        (RETURN, 0, 0, SECCOMP_RET_ALLOW),
        (RETURN, 0, 0, SECCOMP_RET_USER_NOTIF),
    ]
    return b"".join(INSTRUCTION.pack(*line) for line in lines)


def answer(listener: int, handlers: Handlers) -> None:
    """Answer one call. One whose process has gone meanwhile is forgotten."""
    buffer = bytearray(NOTIFICATION.size)
    with suppress(FileNotFoundError):
        fcntl.ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, buffer)
        identity, pid, _, number, _, _, *arguments = NOTIFICATION.unpack(buffer)
        result = _result(handlers, Call(identity, pid, number, tuple(arguments), listener))
        flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE if result is None else 0
        error, value = result or Answer()
        response = RESPONSE.pack(identity, value, -error, flags)
        fcntl.ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, response)


def _result(handlers: Handlers, call: Call) -> Answer | None:
    handler = handlers.get(call.number)
    try:
        return None if handler is None else handler(call)
    except OSError:
        return None

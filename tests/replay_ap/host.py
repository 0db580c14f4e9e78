"""System calls of a program on the simulated /sys, and commands to the machine below it."""

from __future__ import annotations

import os
from collections.abc import Callable
from errno import EEXIST
from typing import NamedTuple

from fakesys.core.errors import ERRNO_NAMES, Blocked, KernelError, Underway
from fakesys.machine.machine import Machine
from fakesys.tree.attr import Handle
from fakesys.tree.node import Directory, File, Node, Symlink

CONTROL = "sys/kernel/debug/fakesys"
READ_SIZE = 1 << 16


class Answer(NamedTuple):
    """An errno by name, "0" for none, and bytes."""

    errno: str
    data: bytes = b""


def answer(call: Callable[[], bytes | None]) -> Answer:
    """What a call ends with; Blocked is passed on."""
    try:
        return Answer("0", call() or b"")
    except KernelError as refusal:
        return Answer(ERRNO_NAMES[refusal.errno or 0])


class Held:
    """A descriptor: an open file and its position."""

    def __init__(self, host: Host, path: str, flags: int) -> None:
        self._host = host
        self._node = host.file(path)
        self._handle: Handle = host.machine.fs.open(self._node, flags)
        self._position = 0

    def read(self) -> bytes:
        """The next bytes of the file."""
        fs = self._host.machine.fs
        data = fs.read(self._node, self._handle, self._position, READ_SIZE)
        self._position += len(data)
        return data

    def write(self, data: bytes) -> int:
        """Write once; the bytes taken."""
        fs = self._host.machine.fs
        taken = fs.write(self._node, self._handle, data, self._position) if data else 0
        self._position += taken
        fs.settle()
        return taken

    def rewind(self) -> None:
        """Go back to the beginning."""
        self._position = 0

    def close(self) -> None:
        """Close it."""
        self._handle.release()


class Writer:
    """A process that writes once, and waits where the call waits."""

    def __init__(self, host: Host, path: str, data: bytes) -> None:
        self._host, self._data = host, data
        self._held: Held | None = None
        self._blocked: Blocked | None = None
        self._ready = True
        self.ended: str | None = None
        opened = answer(lambda: self._open(path))
        if opened.errno == "0":
            self.go_on()
        else:
            self.ended = opened.errno

    def go_on(self) -> None:
        """Repeat the call if it was woken, as a transport does."""
        if self.ended is not None or not self._ready:
            return
        try:
            self.ended = answer(self._write).errno
        except Blocked as blocked:
            self._ready, self._blocked = False, blocked
            blocked.waiters.add(self, self._wake)

    def _open(self, path: str) -> None:
        self._held = Held(self._host, path, os.O_WRONLY)

    def _write(self) -> None:
        assert self._held is not None
        try:
            self._held.write(self._data)
        finally:
            self._host.machine.fs.settle()

    def signal(self) -> None:
        """Get a signal, with a handler or a deadly one, as the transport passes it on."""
        if isinstance(self._blocked, Underway):
            self._blocked.interrupted()
        elif self._blocked is not None:
            self.ended = "EINTR"

    def _wake(self) -> None:
        self._ready = True


class Host:
    """The calls of a program that has the simulated machine at its root."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def node(self, path: str, *, follow: bool = True) -> Node:
        """What is at a path below /sys. Raises KernelError."""
        return self.machine.fs.resolve(f"sys/{path}", follow=follow)

    def file(self, path: str) -> File:
        """The file at a path below /sys. Raises KernelError."""
        node = self.node(path)
        if isinstance(node, Directory):
            self.machine.fs.open(node, os.O_WRONLY)
        assert isinstance(node, File)
        return node

    def read(self, path: str) -> Answer:
        """Read to the end."""

        def call() -> bytes:
            held = Held(self, path, os.O_RDONLY)
            try:
                data = b""
                while piece := held.read():
                    data += piece
                return data
            finally:
                held.close()

        return answer(call)

    def write(self, path: str, data: bytes) -> tuple[str, int]:
        """Write once; errno and the bytes taken."""
        taken = 0

        def call() -> None:
            nonlocal taken
            held = Held(self, path, os.O_WRONLY)
            try:
                taken = held.write(data)
            finally:
                held.close()
                self.machine.fs.settle()

        return answer(call).errno, taken

    def tell(self, file: str, text: str) -> str:
        """Write to a control file of the AP part; the errno."""
        return self.write(f"kernel/debug/fakesys/ap/{file}", text.encode() + b"\n")[0]

    def names(self, path: str) -> list[str]:
        """The names in a directory, with `/` and `@` behind directories and links."""
        node = self.node(path)
        if not isinstance(node, Directory):
            self.machine.fs.lookup(node, "x")
            raise AssertionError
        marks = {Directory: "/", Symlink: "@"}
        return sorted(name + marks.get(type(child), "") for name, child in node.entries())

    def target(self, path: str) -> bytes:
        """The text of a link."""
        node = self.node(path, follow=False)
        assert isinstance(node, Symlink)
        return node.target.encode()

    def status(self, path: str) -> bytes:
        """Kind, mode and size."""
        node = self.node(path, follow=False)
        if isinstance(node, Symlink):
            return b"l 0777 0"
        kind = "d" if isinstance(node, Directory) else "f"
        size = node.kind_.size if isinstance(node, File) else 0
        return f"{kind} {node.mode & 0o7777:04o} {size}".encode()

    def change(self, verb: str, path: str) -> bytes | None:
        """Do mkdir, rmdir, unlink or creat, which sysfs refuses."""
        fs = self.machine.fs
        folder, _, name = path.rpartition("/")
        parent = self.node(folder)
        if verb == "mk":
            fs.mkdir(parent, name)
        elif verb == "rmdir":
            fs.rmdir(parent, name)
        elif verb == "rm":
            raise fs.unlink(parent, name)
        else:
            refusal = fs.create(parent, name)
            # creat(2) of a name that is there opens it.
            if refusal.errno != EEXIST:
                raise refusal
            Held(self, path, os.O_WRONLY).close()
        return None

    def guest_masks(self, name: str) -> str:
        """The masks in the control block of a guest."""
        found = []
        for mask in ("apm", "aqm", "adm"):
            text = self.read(f"kernel/debug/fakesys/ap/guests/{name}/{mask}").data
            found.append(f"{mask} {text.decode().strip()}")
        return " ".join(found)

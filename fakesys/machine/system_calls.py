"""System calls of this process on the tree of a machine, and what the calls of all pass through."""

from __future__ import annotations

import os
from collections.abc import Callable
from errno import EAGAIN, EIO, EISDIR, ENOTDIR
from typing import Any, TypeVar

from fakesys.core.errors import Blocked, KernelError
from fakesys.subsystems.control.model import Strike
from fakesys.tree.filesystem import FileSystem, Recorder
from fakesys.tree.node import Directory, File

READ_SIZE = 1 << 20
# The calls on the tree that can be put something around.
INTERCEPTED = ("open", "opendir", "read", "write")
# Why a call that cannot be answered yet is refused.
WOULD_WAIT = "on a mount this call would wait"

T = TypeVar("T")
Around = Callable[[str, Callable[..., Any]], Callable[..., Any]]
"""Takes the name of a call and the call, of which the first argument is the node; returns another
one to be called instead."""


class SystemCalls:
    """The calls of a program in this process; they never wait. All raise KernelError.

    `bug` is told of internal errors, to which the answer is EIO.
    """

    def __init__(self, fs: FileSystem, bug: Callable[[BaseException], None]) -> None:
        self._fs = fs
        self._bug = bug

    def read(self, path: str) -> bytes:
        """Return all that a file has; of a stream, what is there now."""
        return self._answered(lambda: self._read(self._file(path)))

    def write(self, path: str, data: bytes, flags: int) -> int:
        """Open with O_WRONLY and `flags`, write once, close; return the number of bytes taken."""
        return self._answered(lambda: self._write(self._file(path), data, os.O_WRONLY | flags))

    def mkdir(self, path: str) -> None:
        """Make a directory."""
        folder, _, name = path.rpartition("/")
        self._answered(lambda: self._fs.mkdir(self._fs.resolve(folder), name))

    def rmdir(self, path: str) -> None:
        """Remove a directory."""
        folder, _, name = path.rpartition("/")
        self._answered(lambda: self._fs.rmdir(self._fs.resolve(folder), name))

    def listdir(self, path: str) -> list[str]:
        """Return the names in a directory. Raises ENOTDIR."""
        node = self._fs.resolve(path)
        if not isinstance(node, Directory):
            raise KernelError(ENOTDIR, f"{path} is not a directory")
        return list(node.names())

    def _file(self, path: str) -> File:
        node = self._fs.resolve(path)
        if not isinstance(node, File):
            raise KernelError(EISDIR, f"{path} is not a file")
        return node

    def _read(self, node: File) -> bytes:
        handle = self._fs.open(node, os.O_RDONLY)
        data = bytearray()
        try:
            while piece := self._fs.read(node, handle, len(data), READ_SIZE, nonblock=True):
                data += piece
        except KernelError as refusal:
            # A stream has no end: its text is what is there now.
            if refusal.errno != EAGAIN:
                raise
        finally:
            handle.release()
        return bytes(data)

    def _write(self, node: File, data: bytes, flags: int) -> int:
        handle = self._fs.open(node, flags)
        try:
            return self._fs.write(node, handle, data, nonblock=True)
        finally:
            handle.release()

    def _answered(self, call: Callable[[], T]) -> T:
        """Return the result of a call; every other end of it becomes a KernelError."""
        try:
            return call()
        except KernelError:
            raise
        except Blocked:
            raise KernelError(EAGAIN, WOULD_WAIT) from None
        except Exception as error:
            self._bug(error)
            raise KernelError(EIO, "internal error, see fakesys/bugs") from error
        finally:
            if not self._fs.served:
                self._fs.settle()


class CallHooks:
    """What every system call passes: lockdown, armed faults, recordings. Unset hooks cost nothing.

    `control` sets them, in its own words (`subsystems/control/model.py:Calls`).
    """

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs

    def lock_down(self, locked: bool) -> None:
        """Let debugfs answer as on a locked-down kernel, or as usual."""
        self._fs.locked_down = locked

    def gate(self, strike: Strike | None) -> None:
        """Call `strike` before each read and write; None: call nothing."""

        def pass_gate(operation: str, node: File) -> None:
            if strike is not None:
                strike(operation, node.path, node.ino)

        self._fs.gate = None if strike is None else pass_gate

    def record(self, recorder: Recorder | None) -> None:
        """Tell `recorder` of each call that may change the machine; None: tell nothing."""
        self._fs.recorder = recorder

    def intercept(self, around: Around | None) -> None:
        """Put something around the calls INTERCEPTED of clients; None: nothing any more."""
        own = vars(self._fs)
        for name in INTERCEPTED:
            own.pop(name, None)
        if around is not None:
            own.update({name: around(name, getattr(self._fs, name)) for name in INTERCEPTED})

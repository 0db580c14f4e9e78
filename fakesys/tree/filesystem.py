"""The system calls on the tree, for every transport and for `Machine.read`.

Every errno is raised here or below as KernelError; a transport only maps it.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from errno import EACCES, EEXIST, EINVAL, EISDIR, ELOOP, ENOENT, ENOTDIR, ENXIO, EPERM
from os import O_ACCMODE, O_DIRECT, O_RDONLY, O_TRUNC, O_WRONLY
from typing import Protocol

from fakesys.core.errors import KernelError, Underway
from fakesys.core.kernel import Begun
from fakesys.core.scheduling.resched import is_repeated
from fakesys.tree import lockdown
from fakesys.tree.attr import Handle, PagedHandle
from fakesys.tree.binder import Binder, Stale
from fakesys.tree.kinds import PAGE, Splice
from fakesys.tree.node import DeviceNode, Directory, File, Node, Symlink
from fakesys.tree.openfile import OpenFile

NAME_MAX = 255

# Called with "read" or "write" before the model is; may raise KernelError or Blocked.
Gate = Callable[[str, File], None]
# Called after each write with its result: None or the refusal.
Report = Callable[[File, bytes, KernelError | None], None]


# Ends every call that runs in slices, but the one that calls this, with a refusal.
EndCalls = Callable[[KernelError], None]


def no_calls(_refusal: KernelError) -> None:
    """End nothing: no call runs in slices."""


class Recorder(Protocol):
    """Observer of every operation that can change the machine."""

    def begin(self) -> Begun:
        """Return what the record of a request needs that can change the machine and begins."""

    def wrote(
        self,
        begun: Begun,
        path: str,
        text: bytes,
        error: KernelError | None,
        *,
        truncatable: bool,
    ) -> None:
        """Record a write: `text` is what was taken, or what was refused with `error`.

        `begun`: what `begin` returned. `truncatable`: the file reacts to O_TRUNC.
        """

    def truncated(self, path: str) -> None:
        """Record an open with O_TRUNC of a file that reacts to it."""

    def made(self, begun: Begun, word: str, path: str, error: KernelError | None) -> None:
        """Record a `mkdir` or `rmdir`, done or refused with `error`."""


class FileSystem:
    """Look-up, open, read, write, and the refusals of everything else.

    `gate` is called before reads and writes, `report` after writes; `recorder` observes what can
    change the machine. `locked_down`: debugfs as on a locked-down kernel. `served`: a transport
    calls `settle` after each request and reports what it returns to clients. `end_calls` ends what
    runs in slices, but the present call, with a refusal: call it before models are replaced.
    """

    def __init__(self, binder: Binder) -> None:
        self.binder = binder
        self.gate: Gate | None = None
        self.report: Report | None = None
        self.recorder: Recorder | None = None
        self.locked_down = False
        self.served = False
        self.end_calls: EndCalls = no_calls
        # Writes that have begun and wait for their end.
        self._underway: dict[Handle, Underway] = {}

    @property
    def root(self) -> Directory:
        """The directory that is the mount point."""
        return self.binder.root

    def lookup(self, directory: Node, name: str) -> Node:
        """Return the node of a name. Raises ENOENT, ENOTDIR, the kind's errno for a long name."""
        if not isinstance(directory, Directory):
            raise KernelError(ENOTDIR, f"{directory.path} is not a directory")
        if len(name) > NAME_MAX:
            raise KernelError(directory.kind.long_name, f"a name of {len(name)} bytes")
        node = directory.lookup(name)
        if node is None:
            raise KernelError(ENOENT, f"{directory.path}/{name} does not exist")
        return node

    def resolve(self, path: str, *, follow: bool = True) -> Node:
        """Return the node at a path from the mount's root. Raises ENOENT, ENOTDIR, ELOOP."""
        node: Node = self.root
        parts = [part for part in path.split("/") if part not in ("", ".")]
        parts.reverse()
        links = 0
        while parts:
            name = parts.pop()
            if name == "..":
                node = node.parent or node
                continue
            node = self.lookup(node, name)
            if isinstance(node, Symlink) and (parts or follow):
                links += 1
                if links > 40:
                    raise KernelError(ELOOP, f"too many links in {path}")
                parts.extend(reversed(node.target.split("/")))
                node = node.parent or node
        return node

    def open(self, node: Node, flags: int) -> Handle:
        """Open a file. Raises EISDIR, EACCES, EINVAL, or what the file itself refuses with.

        A device has no driver behind it: ENXIO. Transports never get that far.
        """
        if not isinstance(node, File):
            if isinstance(node, DeviceNode):
                raise KernelError(ENXIO, f"{node.path} has no driver")
            raise KernelError(EISDIR, f"{node.path} is not a file")
        if node.gone:
            raise KernelError(node.kind_.gone, f"{node.path} is gone")
        if node.kind_.mode_binds_root:
            check_mode(node, flags)
        if self.locked_down:
            lockdown.refuse_open(node, flags)
        row = node.row
        handle: Handle = OpenFile(node) if row.open is None else row.open(node.model, flags)
        if flags & (O_TRUNC | O_DIRECT):
            self._apply_rare_flags(node, handle, flags)
        return handle

    def opendir(self, node: Node) -> Directory:
        """Open a directory. Raises ENOTDIR."""
        if not isinstance(node, Directory):
            raise KernelError(ENOTDIR, f"{node.path} is not a directory")
        return node

    def _apply_rare_flags(self, node: File, handle: Handle, flags: int) -> None:
        """Handle O_TRUNC and O_DIRECT after the file's own open() has accepted the flags."""
        truncate = node.row.truncate
        if flags & O_TRUNC and truncate is not None and flags & O_ACCMODE != O_RDONLY:
            if self.recorder is not None:
                self.recorder.truncated(node.path)
            truncate(node.model)
        # fs/open.c:do_dentry_open looks at this after the file's own open().
        if flags & O_DIRECT:
            handle.release()
            raise KernelError(EINVAL, "O_DIRECT is not offered")
        if flags & O_TRUNC:
            node.truncate_open(0)

    def read(
        self, node: File, handle: Handle, offset: int, size: int, *, nonblock: bool = False
    ) -> bytes:
        """Read up to `size` bytes. Raises the kind's errno when the model of the file is gone."""
        if node.gone and not node.kind_.rest_after_gone:
            raise KernelError(node.kind_.gone, f"{node.path} is gone")
        # The text is made by a read that begins at 0.
        if self.gate is not None and offset == 0 and not is_repeated():
            self.gate("read", node)
        return handle.read(offset, size, nonblock=nonblock)

    def splice(self, node: File, handle: Handle, offset: int, *, nonblock: bool = False) -> bytes:
        """Return a page of a file for splice(2). Raises EINVAL for kinds that refuse it."""
        if node.kind_.splice is Splice.TEXT:
            return self.read(node, handle, offset, PAGE, nonblock=nonblock)
        if not isinstance(handle, PagedHandle):
            raise KernelError(EINVAL, f"{node.path} has no splice_read")
        if node.gone:
            raise KernelError(node.kind_.gone, f"{node.path} is gone")
        return handle.page(offset, nonblock=nonblock)

    def write(
        self, node: File, handle: Handle, data: bytes, offset: int = 0, *, nonblock: bool = False
    ) -> int:
        """Do one write(2); report its result and return the number of bytes taken."""
        begun = None if self.recorder is None else self.recorder.begin()
        try:
            taken = self._write(node, handle, data, offset, nonblock=nonblock)
        except KernelError as refusal:
            if self.report is not None:
                self.report(node, data, refusal)
            if begun is not None:
                self._record_write(begun, node, data, refusal)
            raise
        if self.report is not None:
            self.report(node, data, None)
        if begun is not None:
            self._record_write(begun, node, data[:taken], None)
        return taken

    def _write(
        self, node: File, handle: Handle, data: bytes, offset: int, *, nonblock: bool
    ) -> int:
        """Call the model; if this write has begun before, go on with it."""
        underway = self._underway.pop(handle, None) if self._underway else None
        try:
            if underway is not None:
                underway.go_on()
                return len(data)
            if node.gone:
                raise KernelError(node.kind_.gone, f"{node.path} is gone")
            if self.gate is not None and not is_repeated():
                self.gate("write", node)
            return handle.write(data, offset, nonblock=nonblock)
        except Underway as wait:
            self._underway[handle] = wait
            raise

    def _record_write(
        self, begun: Begun, node: File, data: bytes, error: KernelError | None
    ) -> None:
        # The write may have ended the last recording.
        recorder = self.recorder
        if recorder is not None:
            recorder.wrote(begun, node.path, data, error, truncatable=_truncatable(node))

    def forget_begun(self) -> None:
        """Forget the writes that wait for an end in a machine that is replaced."""
        self._underway.clear()

    def settle(self) -> Stale:
        """Bring the tree in line with the models; return what a transport must report."""
        return self.binder.settle()

    def chmod(self, node: Node, permissions: int) -> None:
        """Set the permission bits for the life of the node. Raises EPERM when locked down."""
        if self.locked_down:
            lockdown.refuse_change(node)
        node.mode = stat.S_IFMT(node.mode) | (permissions & 0o7777)
        node.touch()

    def chown(self, node: Node, uid: int | None, gid: int | None) -> None:
        """Set user and group, None to keep one, as `chmod` does. Raises EPERM when locked down."""
        if self.locked_down and not uid is gid is None:
            lockdown.refuse_change(node)
        node.uid = node.uid if uid is None else uid
        node.gid = node.gid if gid is None else gid
        node.touch()

    def create(self, directory: Node, name: str) -> KernelError:
        """Return the refusal of a new regular file: EEXIST, EACCES."""
        return self._refuse_new(directory, name, EACCES)

    def mkdir(self, directory: Node, name: str) -> None:
        """Make a directory. Raises EPERM except where the file system lets users make them."""
        self._recorded("mkdir", directory, name, self._mkdir)

    def rmdir(self, directory: Node, name: str) -> None:
        """Remove a directory. Raises EPERM except where the file system lets users do so."""
        self._recorded("rmdir", directory, name, self._rmdir)

    def _recorded(
        self, word: str, directory: Node, name: str, act: Callable[[Node, str], None]
    ) -> None:
        recorder = self.recorder
        if recorder is None:
            act(directory, name)
            return
        begun = recorder.begin()
        path = f"{directory.path}/{name}"
        try:
            act(directory, name)
        except KernelError as refusal:
            recorder.made(begun, word, path, refusal)
            raise
        recorder.made(begun, word, path, None)

    def _mkdir(self, directory: Node, name: str) -> None:
        if isinstance(directory, Directory) and directory.layout.mkdir is not None:
            if directory.lookup(name) is not None:
                raise KernelError(EEXIST, f"{directory.path}/{name} exists")
            directory.layout.mkdir(directory.model, name)
            return
        raise self._refuse_new(directory, name, EPERM)

    def _rmdir(self, directory: Node, name: str) -> None:
        node = self.lookup(directory, name)
        if not isinstance(node, Directory):
            raise KernelError(ENOTDIR, f"{node.path} is not a directory")
        if isinstance(directory, Directory) and directory.layout.rmdir is not None:
            directory.layout.rmdir(directory.model, name)
            return
        raise KernelError(EPERM, f"{node.path} cannot be removed by rmdir")

    def make_other(self, directory: Node, name: str) -> KernelError:
        """Return the refusal of a fifo, device or link: EEXIST, EPERM."""
        return self._refuse_new(directory, name, EPERM)

    def unlink(self, directory: Node, name: str) -> KernelError:
        """Return the refusal of unlink(2): ENOENT, EISDIR, EPERM."""
        node = self.lookup(directory, name)
        if isinstance(node, Directory):
            return KernelError(EISDIR, f"{node.path} is a directory")
        return KernelError(EPERM, f"{node.path} cannot be removed")

    def rename(self, directory: Node, name: str, *, with_flags: bool = False) -> KernelError:
        """Return the refusal of rename(2): ENOENT, EPERM; with flags of renameat2(2) the kind's."""
        node = self.lookup(directory, name)
        if with_flags:
            return KernelError(directory.kind.rename_flags, "rename(2) knows no flags here")
        return KernelError(EPERM, f"{node.path} cannot be renamed")

    def _refuse_new(self, directory: Node, name: str, errno: int) -> KernelError:
        if isinstance(directory, Directory) and directory.lookup(name) is not None:
            return KernelError(EEXIST, f"{directory.path}/{name} exists")
        return KernelError(errno, f"nothing can be made in {directory.path}")


def check_mode(node: File, flags: int) -> None:
    """Refuse access for which the file has no read or write bit at all, to root too.

    Raises EACCES. Like fs/kernfs/file.c:kernfs_fop_open with KERNFS_ROOT_EXTRA_OPEN_PERM_CHECK
    (v6.1). The kernel checks users and groups itself (mount option default_permissions).
    """
    access = flags & O_ACCMODE
    if access != O_WRONLY and access != O_ACCMODE and not node.mode & 0o444:
        raise KernelError(EACCES, f"{node.path} is write-only")
    if access != O_RDONLY and access != O_ACCMODE and not node.mode & 0o222:
        raise KernelError(EACCES, f"{node.path} is read-only")


def _truncatable(node: File) -> bool:
    """Whether a file reacts to O_TRUNC."""
    return node.row.truncate is not None

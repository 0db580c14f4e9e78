"""The operations that fusepy calls, each in a thread of libfuse.

They take the arguments apart and run one call of `PathCalls`, `OpenFiles` or `OpenDirectories` on
the trio thread. Paths come as one character per byte (Latin-1), because fusepy would refuse a name
that is not valid UTF-8.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from errno import EIO
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar

from fakesys.core.errors import KernelError
from fakesys.transport.conversions import client_errno, decode, encode
from fakesys.transport.fusepy.open_files import OpenDirectories, OpenFiles
from fakesys.transport.fusepy.paths import PathCalls

T = TypeVar("T")
P = ParamSpec("P")


class RunOnTrio(Protocol):
    """Runs a call on the trio thread and returns its result; waits where the call blocks."""

    def __call__(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the call. Raises its KernelError, EINTR after a signal, ENODEV after the end."""


class Calls(NamedTuple):
    """What the operations run on the trio thread."""

    paths: PathCalls
    files: OpenFiles
    directories: OpenDirectories

    def close_all(self) -> None:
        """Release every handle: the mount is gone."""
        self.files.close_all()
        self.directories.close_all()


class Operations:
    """The object that fusepy calls; its methods have the names that fusepy looks for.

    Every failure leaves as FuseOSError with an errno: fusepy would turn any other exception into
    EINVAL, which looks like a refusal. `started` is called by INIT; `bug` takes internal errors.
    """

    use_ns = True
    # Open files are known by number, so libfuse need not keep their paths.
    flag_nullpath_ok = 1
    flag_nopath = 1
    flag_utime_omit_ok = 1

    def __init__(
        self,
        fuse: Any,
        calls: Calls,
        *,
        run: RunOnTrio,
        started: Callable[[], None],
        bug: Callable[[BaseException], None],
    ) -> None:
        self._fuse = fuse
        self._paths, self._files, self._directories = calls
        self._run = run
        self._started = started
        self._bug = bug

    def __call__(self, name: str, *arguments: Any) -> Any:
        try:
            return getattr(self, name)(*arguments)
        except KernelError as refusal:
            number = client_errno(refusal)
        except BaseException as error:
            with suppress(KernelError):
                self._bug(error)
            number = EIO
        raise self._fuse.FuseOSError(number)

    def init(self, _path: str) -> None:
        self._started()

    def getattr(self, path: str | None, fi: Any = None) -> Mapping[str, int]:
        if fi is not None:
            return self._run(self._files.status, fi.fh)
        return self._run(self._paths.status, _name(path))

    def readlink(self, path: str) -> str:
        return _latin(self._run(self._paths.readlink, _name(path)))

    def statfs(self, _path: str) -> Mapping[str, int]:
        return self._run(self._paths.statfs)

    def chmod(self, path: str, mode: int) -> None:
        self._run(self._paths.chmod, _name(path), mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        self._run(self._paths.chown, _name(path), uid, gid)

    def utimens(self, path: str, times: tuple[int, int]) -> None:
        self._run(self._paths.set_times, _name(path), *times)

    def truncate(self, path: str | None, size: int, fi: Any = None) -> None:
        if fi is not None:
            self._run(self._files.truncate, fi.fh, size)
        else:
            self._run(self._paths.truncate, _name(path), size)

    def create(self, path: str, _mode: int, _fi: Any) -> None:
        self._run(self._paths.create, _name(path))

    def mknod(self, path: str, mode: int, _device: int) -> None:
        make = self._paths.create if stat.S_ISREG(mode) else self._paths.make_other
        self._run(make, _name(path))

    def symlink(self, path: str, _target: str) -> None:
        self._run(self._paths.make_other, _name(path))

    def link(self, path: str, _source: str) -> None:
        self._run(self._paths.make_other, _name(path))

    def mkdir(self, path: str, _mode: int) -> None:
        self._run(self._paths.mkdir, _name(path))

    def rmdir(self, path: str) -> None:
        self._run(self._paths.rmdir, _name(path))

    def unlink(self, path: str) -> None:
        self._run(self._paths.unlink, _name(path))

    def rename(self, old: str, _new: str) -> None:
        self._run(self._paths.rename, _name(old))

    def open(self, path: str, fi: Any) -> None:
        opened = self._run(self._files.open, _name(path), fi.flags)
        fi.fh = opened.number
        fi.direct_io = 1
        fi.nonseekable = not opened.seekable

    def read(self, _path: None, size: int, offset: int, fi: Any) -> bytes:
        return self._run(self._files.read, fi.fh, size, offset, fi.flags)

    def write(self, _path: None, data: bytes, offset: int, fi: Any) -> int:
        return self._run(self._files.write, fi.fh, data, offset, fi.flags)

    def fsync(self, _path: None, _datasync: int, fi: Any) -> None:
        self._run(self._files.fsync, fi.fh)

    def release(self, _path: None, fi: Any) -> None:
        self._run(self._files.release, fi.fh)

    def opendir(self, path: str) -> int:
        return self._run(self._directories.open, _name(path))

    def readdir(self, _path: None, number: int) -> list[tuple[str, Mapping[str, int], int]]:
        entries = self._run(self._directories.entries, number)
        return [(_latin(name), status, 0) for name, status in entries]

    def fsyncdir(self, _path: None, _datasync: int, number: int) -> None:
        self._run(self._directories.fsync, number)

    def releasedir(self, _path: None, number: int) -> None:
        self._run(self._directories.release, number)

    def getxattr(self, path: str, name: str) -> bytes:
        return self._run(self._paths.getxattr, _name(path), _name(name))

    def setxattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        self._run(self._paths.setxattr, _name(path), _name(name), value, flags)

    def listxattr(self, path: str) -> list[str]:
        uid, _, _ = self._fuse.fuse_get_context()
        names = self._run(self._paths.listxattr, _name(path), uid)
        return [_latin(name) for name in names]

    def removexattr(self, path: str, name: str) -> None:
        self._run(self._paths.removexattr, _name(path), _name(name))


def _name(latin: str | None) -> str:
    """Return a name or path as the tree spells it."""
    assert latin is not None
    return decode(latin.encode("latin-1"))


def _latin(name: str) -> str:
    return encode(name).decode("latin-1")

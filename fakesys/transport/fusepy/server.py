"""The same tree through fusepy and libfuse 2: a second opinion, not the default.

The only module that knows fusepy; imported only when it is asked for. libfuse calls from threads
of its own; each call crosses over to the trio thread, which owns the models. Differences to the
native transport are listed in docs/limits.md.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from errno import EINTR, EIO, ENODEV
from pathlib import Path
from typing import IO, Any, ParamSpec, Protocol, TypeVar

import trio

from fakesys.core.errors import Blocked, KernelError, Waiters
from fakesys.core.kernel import Caller
from fakesys.transport.fuse.pacing import Pacer
from fakesys.transport.fuse.replies import client_errno, decode, encode
from fakesys.transport.fuse.session import ServedMachine
from fakesys.transport.fusepy.paths import Paths
from fakesys.transport.mounting import SOURCE_PREFIX, MountError

_log = logging.getLogger(__name__)
# How often a waiting request looks whether a signal ended it: libfuse tells nobody.
LOOK_SECONDS = 0.01
STDERR = 2
T = TypeVar("T")
P = ParamSpec("P")

# Nothing is cached, because nothing can be told: libfuse 2 has no invalidation by name.
# `intr`: interrupts are passed on. `use_ino`: our inode numbers. `hard_remove`: no hidden files.
OPTIONS: Mapping[str, object] = {
    "foreground": True,
    "subtype": "fakesys",
    "default_permissions": True,
    "nonempty": True,
    "intr": True,
    "use_ino": True,
    "hard_remove": True,
    "nosuid": True,
    "nodev": True,
    "noexec": True,
    "atomic_o_trunc": True,
    "big_writes": True,
    "entry_timeout": 0,
    "attr_timeout": 0,
    "negative_timeout": 0,
}


def load() -> Any:
    """The module of fusepy. Raises MountError naming the package that is missing."""
    try:
        import fuse
    except ModuleNotFoundError:
        raise MountError("--transport fusepy needs fusepy: pip install fusepy") from None
    except OSError:
        # fusepy looks for the library while it is imported.
        raise MountError(
            "--transport fusepy needs libfuse 2: install the package libfuse2 (newer: libfuse2t64)"
        ) from None
    fuse._libfuse.fuse_exited.argtypes = [ctypes.c_void_p]
    return fuse


@dataclass(eq=False)
class _Wait:
    """A request that must be repeated after something has happened."""

    waiters: Waiters
    woken: threading.Event = field(default_factory=threading.Event)


class Server:
    """Serves one mount until it is gone; mounts when it runs."""

    def __init__(
        self,
        machine: ServedMachine,
        point: Path,
        instance: str,
        *,
        allow_other: bool = False,
        owner: tuple[int, int] = (0, 0),
    ) -> None:
        self._fuse = load()
        self._machine = machine
        self._binder = machine.fs.binder
        self._point = point
        self._options = {**OPTIONS, "fsname": SOURCE_PREFIX + instance, "allow_other": allow_other}
        self._paths = Paths(machine.fs, owner)
        self._pacer = Pacer(machine, self.settle)
        self._token: trio.lowlevel.TrioToken | None = None
        self._started: Callable[[], None] = lambda: None
        self._ended = False
        self._kernel = machine.kernel
        self._waiting: set[_Wait] = set()
        self._told = _Words()
        self.served = 0

    def settle(self) -> None:
        """Something happened without a request: drop what is gone. No client caches anything."""
        if self._kernel is not self._machine.kernel:
            # Whoever waits for something of the machine before would wait for ever.
            self._kernel = self._machine.kernel
            for wait in self._waiting:
                wait.woken.set()
        if self._binder.unsettled:
            self._machine.fs.settle()

    async def run(self, started: Callable[[], None]) -> None:
        """Mount and serve; `started` is called once the kernel has said hello.

        Raises MountError with what libfuse said. Cancelled, it leaves threads of libfuse behind:
        they end with the process.
        """
        self._token = trio.lowlevel.current_trio_token()
        self._started = started
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pacer.run)
                await trio.to_thread.run_sync(self._main, abandon_on_cancel=True)
                nursery.cancel_scope.cancel()
        finally:
            self._ended = True
            self._paths.close_all()

    def _main(self) -> None:
        """Everything that libfuse does, in a thread of its own."""
        calls = _Calls(
            self._fuse, self._paths, ask=self._ask, hello=self._hello, bug=self._bug_outside
        )
        options = dict(self._options)
        # One character per byte: fusepy would refuse a name that is no valid UTF-8.
        point = os.fsencode(self._point).decode("latin-1")
        self._told.listen()
        try:
            self._fuse.FUSE(calls, point, raw_fi=True, encoding="latin-1", **options)
        except RuntimeError:
            said = self._told.stop()
            if said is not None:
                raise MountError(said) from None
            _log.warning("libfuse ended with an error")
        finally:
            self._told.stop()

    def _bug_outside(self, error: BaseException) -> None:
        """An error before or after the crossing."""
        self._cross(self._bug, error)

    def _hello(self) -> None:
        """INIT was asked: the mount is there."""
        assert self._token is not None
        self._told.stop()
        self._token.run_sync_soon(self._started)

    def _ask(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call on the trio thread, again whenever what it waits for may be there."""
        caller = self._caller()
        request = functools.partial(call, *args, **kwargs)
        while True:
            answer = self._cross(self._step, caller, request)
            if not isinstance(answer, _Wait):
                result: T = answer
                return result
            try:
                self._wait(answer)
            finally:
                self._cross(self._forget, answer)

    def _forget(self, wait: _Wait) -> None:
        wait.waiters.discard(wait)
        self._waiting.discard(wait)

    def _caller(self) -> Caller:
        uid, gid, pid = self._fuse.fuse_get_context()
        return Caller(pid, uid, gid)

    def _cross(self, call: Callable[..., Any], *arguments: object) -> Any:
        try:
            return trio.from_thread.run_sync(call, *arguments, trio_token=self._token)
        except trio.RunFinishedError:
            raise KernelError(ENODEV, "the mount is going") from None

    def _step(self, caller: Caller, call: Callable[[], T]) -> T | _Wait:
        """One request, on the trio thread."""
        if self._ended:
            raise KernelError(ENODEV, "the mount is going")
        self.served += 1
        kernel = self._machine.kernel
        kernel.caller = caller
        try:
            if kernel.on_request is not None:
                kernel.on_request(caller)
            return call()
        except Blocked as blocked:
            wait = _Wait(blocked.waiters)
            blocked.waiters.add(wait, wait.woken.set)
            self._waiting.add(wait)
            return wait
        except KernelError:
            raise
        except BaseException as error:
            self._bug(error)
            raise KernelError(EIO, "internal error") from None
        finally:
            self.settle()
            self._pacer.look()

    def _bug(self, error: BaseException) -> None:
        _log.error("internal error", exc_info=error)
        self._machine.bug(error)

    def _wait(self, wait: _Wait) -> None:
        """Until woken. Raises EINTR after a signal, ENODEV when the mount is gone."""
        library = self._fuse._libfuse
        connection = library.fuse_get_context().contents.fuse
        while not wait.woken.wait(LOOK_SECONDS):
            gone = self._ended or library.fuse_exited(connection)
            if gone or library.fuse_interrupted():
                raise KernelError(ENODEV if gone else EINTR, "a waiting call was ended")


class _Words:
    """What libfuse prints on standard error while it mounts: the only reason that it gives."""

    def __init__(self) -> None:
        self._kept = -1
        self._file: IO[bytes] | None = None

    def listen(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self._kept = os.dup(STDERR)
        os.dup2(self._file.fileno(), STDERR)

    def stop(self) -> str | None:
        """Give standard error back; the last line, or None when this was called before."""
        file, self._file = self._file, None
        if file is None:
            return None
        os.dup2(self._kept, STDERR)
        os.close(self._kept)
        with file:
            file.seek(0)
            lines = file.read().decode(errors="replace").strip().splitlines()
        return lines[-1].partition(": ")[2] if lines else "libfuse could not mount"


class _Ask(Protocol):
    """Runs a call on the trio thread."""

    def __call__(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...


class _Calls:
    """What fusepy calls, in threads of libfuse: takes its arguments apart and asks `ask`.

    Every failure leaves as an errno: of anything else fusepy would make EINVAL, an ordinary
    refusal. Methods have the names that fusepy looks for.
    """

    use_ns = True
    # Open files are known by number: their paths may be gone.
    flag_nullpath_ok = 1
    flag_nopath = 1
    flag_utime_omit_ok = 1

    def __init__(
        self,
        fuse: Any,
        paths: Paths,
        *,
        ask: _Ask,
        hello: Callable[[], None],
        bug: Callable[[BaseException], None],
    ) -> None:
        self._fuse = fuse
        self._paths = paths
        self._ask = ask
        self._hello = hello
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
        self._hello()

    def getattr(self, path: str | None, fi: Any = None) -> Mapping[str, int]:
        if fi is not None:
            return self._ask(self._paths.status_of, fi.fh)
        return self._ask(self._paths.status, _name(path))

    def readlink(self, path: str) -> str:
        return _latin(self._ask(self._paths.readlink, _name(path)))

    def statfs(self, _path: str) -> Mapping[str, int]:
        return self._ask(self._paths.statfs)

    def chmod(self, path: str, mode: int) -> None:
        self._ask(self._paths.chmod, _name(path), mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        self._ask(self._paths.chown, _name(path), uid, gid)

    def utimens(self, path: str, times: tuple[int, int]) -> None:
        self._ask(self._paths.set_times, _name(path), *times)

    def truncate(self, path: str | None, size: int, fi: Any = None) -> None:
        if fi is not None:
            self._ask(self._paths.truncate_open, fi.fh, size)
        else:
            self._ask(self._paths.truncate, _name(path), size)

    def create(self, path: str, _mode: int, _fi: Any) -> None:
        self._ask(self._paths.create, _name(path))

    def mknod(self, path: str, mode: int, _device: int) -> None:
        make = self._paths.create if stat.S_ISREG(mode) else self._paths.make_other
        self._ask(make, _name(path))

    def symlink(self, path: str, _target: str) -> None:
        self._ask(self._paths.make_other, _name(path))

    def link(self, path: str, _source: str) -> None:
        self._ask(self._paths.make_other, _name(path))

    def mkdir(self, path: str, _mode: int) -> None:
        self._ask(self._paths.mkdir, _name(path))

    def rmdir(self, path: str) -> None:
        self._ask(self._paths.rmdir, _name(path))

    def unlink(self, path: str) -> None:
        self._ask(self._paths.unlink, _name(path))

    def rename(self, old: str, _new: str) -> None:
        self._ask(self._paths.rename, _name(old))

    def open(self, path: str, fi: Any) -> None:
        opened = self._ask(self._paths.open, _name(path), fi.flags)
        fi.fh = opened.number
        fi.direct_io = 1
        fi.nonseekable = not opened.seekable

    def read(self, _path: None, size: int, offset: int, fi: Any) -> bytes:
        return self._ask(self._paths.read, fi.fh, size, offset, fi.flags)

    def write(self, _path: None, data: bytes, offset: int, fi: Any) -> int:
        return self._ask(self._paths.write, fi.fh, data, offset, fi.flags)

    def fsync(self, _path: None, _datasync: int, fi: Any) -> None:
        self._ask(self._paths.fsync, fi.fh)

    def release(self, _path: None, fi: Any) -> None:
        self._ask(self._paths.release, fi.fh)

    def opendir(self, path: str) -> int:
        return self._ask(self._paths.opendir, _name(path))

    def readdir(self, _path: None, number: int) -> list[tuple[str, Mapping[str, int], int]]:
        entries = self._ask(self._paths.readdir, number)
        return [(_latin(name), status, 0) for name, status in entries]

    def fsyncdir(self, _path: None, _datasync: int, number: int) -> None:
        self._ask(self._paths.fsyncdir, number)

    def releasedir(self, _path: None, number: int) -> None:
        self._ask(self._paths.releasedir, number)

    def getxattr(self, path: str, name: str) -> bytes:
        return self._ask(self._paths.getxattr, _name(path), _name(name))

    def setxattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        self._ask(self._paths.setxattr, _name(path), _name(name), value, flags)

    def listxattr(self, path: str) -> list[str]:
        uid, _, _ = self._fuse.fuse_get_context()
        names = self._ask(self._paths.listxattr, _name(path), uid)
        return [_latin(name) for name in names]

    def removexattr(self, path: str, name: str) -> None:
        self._ask(self._paths.removexattr, _name(path), _name(name))


def _name(latin: str | None) -> str:
    """A name or path as the tree has it; fusepy was told to make a character of each byte."""
    assert latin is not None
    return decode(latin.encode("latin-1"))


def _latin(name: str) -> str:
    return encode(name).decode("latin-1")

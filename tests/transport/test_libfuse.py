"""The way through fusepy with a fusepy of our own: what crosses, what is mapped, what ends."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from fakesys.core.errors import KernelError
from fakesys.machine.machine import Machine
from fakesys.transport.fusepy import library
from fakesys.transport.fusepy.server import Server
from fakesys.transport.mounting import MountError

RW = "/sys/devices/virtual/selftest/selftest0/rw"
STREAM = "/sys/kernel/debug/fakesys/uevents_pipe"
Script = Callable[["Client"], object]


class FuseOSError(OSError):
    """As fusepy's."""

    def __init__(self, number: int) -> None:
        super().__init__(number, os.strerror(number))


class FakeFuse:
    """The module `fuse`: its main loop is a script that makes requests."""

    FuseOSError = FuseOSError

    def __init__(self, script: Script) -> None:
        self.script = script
        self.interrupted = self.exited = False
        self.options: dict[str, object] = {}
        self.point = ""
        self.mounts: Callable[[], None] = lambda: None
        self._libfuse = SimpleNamespace(
            fuse_interrupted=lambda: self.interrupted,
            fuse_exited=lambda _connection: self.exited,
            fuse_get_context=lambda: SimpleNamespace(contents=SimpleNamespace(fuse=1)),
        )

    def fuse_get_context(self) -> tuple[int, int, int]:
        return 11, 12, 13

    def FUSE(self, calls: Any, point: str, **options: object) -> None:
        self.point, self.options = point, options
        self.mounts()
        calls("init", "/")
        self.script(Client(self, calls))


class Client:
    """A process that makes system calls."""

    def __init__(self, fuse: FakeFuse, calls: Any) -> None:
        self.fuse = fuse
        self.ask = calls

    def open(self, path: str, flags: int = os.O_RDONLY) -> SimpleNamespace:
        """An open file, as libfuse describes it."""
        info = SimpleNamespace(flags=flags, fh=0, direct_io=0, nonseekable=0)
        assert self.ask("open", path, info) is None
        return info

    def refusal(self, name: str, *arguments: object) -> str:
        """The errno's name with which a call is refused."""
        with pytest.raises(FuseOSError) as error:
            self.ask(name, *arguments)
        return errno.errorcode[error.value.errno or 0]


class Bench:
    """Runs a script against a machine; the script's own failures are the test's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.machine = Machine(scenario="selftest")
        self.started = 0
        self.server: Server | None = None

    def run(self, script: Script, *, point: Path = Path("/mnt"), **hooks: object) -> FakeFuse:
        failures: list[BaseException] = []

        def guarded(client: Client) -> None:
            try:
                script(client)
            except BaseException as error:
                failures.append(error)

        fuse = FakeFuse(guarded)
        vars(fuse).update(hooks)
        self._monkeypatch.setattr(library, "load", lambda: fuse)
        self.server = Server(self.machine, point, "abc", owner=(5, 6))
        trio.run(self.server.run, self._start)
        if failures:
            raise failures[0]
        return fuse

    def _start(self) -> None:
        self.started += 1


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_calls_cross_to_the_models_with_their_caller(bench: Bench) -> None:
    def script(client: Client) -> None:
        info = client.open(RW, os.O_RDWR)
        assert (info.fh, info.direct_io, info.nonseekable) == (1, 1, False)
        assert client.ask("read", None, 100, 0, info) == b"1500\n"
        assert client.ask("write", None, b"1400\n", 0, info) == 5
        assert client.ask("getattr", None, info)["st_size"] == 4096
        client.ask("truncate", None, 3, info)
        client.ask("fsync", None, 0, info)
        client.ask("release", None, info)

    bench.run(script)
    assert bench.machine.read(RW) == "1400\n"
    assert bench.machine.kernel.caller == (13, 11, 12)
    assert bench.started == 1
    assert bench.server is not None
    assert bench.server.served == 7


def test_nothing_is_cached_and_interrupts_are_passed_on(bench: Bench) -> None:
    fuse = bench.run(lambda _: None, point=Path("/tmp/\udcff"))
    timeouts = {name: value for name, value in fuse.options.items() if "timeout" in name}
    assert set(timeouts) == {"entry_timeout", "attr_timeout", "negative_timeout"}
    assert set(timeouts.values()) == {0}
    assert fuse.options["intr"] is True
    assert (fuse.options["fsname"], fuse.options["subtype"]) == ("fakesys-abc", "fakesys")
    # fusepy encodes the mount point as it is told to decode names: no byte is lost.
    assert fuse.point.encode(str(fuse.options["encoding"])) == b"/tmp/\xff"


def test_every_call_on_names(bench: Bench) -> None:
    device = RW.removesuffix("/rw")
    new = f"{device}/new"

    def script(client: Client) -> None:
        assert client.ask("getattr", RW)["st_uid"] == 5
        assert client.ask("readlink", f"{device}/subsystem").endswith("bus/selftest")
        assert client.ask("statfs", "/")["f_namemax"] == 255
        client.ask("chmod", RW, 0o600)
        client.ask("chown", RW, -1, 9)
        client.ask("utimens", RW, (1, 2))
        client.ask("truncate", RW, 3)
        status = client.ask("getattr", RW)
        assert (status["st_mode"] & 0o777, status["st_gid"], status["st_mtime"]) == (0o600, 9, 2)
        number = client.ask("opendir", "/sys/bus/selftest/devices")
        entries = client.ask("readdir", None, number)
        assert [(name, offset) for name, _, offset in entries][2:] == [("selftest0", 0)]
        assert client.refusal("fsyncdir", None, 0, number) == "EINVAL"
        client.ask("releasedir", None, number)
        refused: dict[tuple[Any, ...], str] = {
            ("create", new, 0o600, None): "EACCES",
            ("mknod", new, 0o100600, 0): "EACCES",
            ("mknod", new, 0o010600, 0): "EPERM",
            ("symlink", new, "x"): "EPERM",
            ("link", new, RW): "EPERM",
            ("mkdir", new, 0o700): "EPERM",
            ("rmdir", f"{device}/power"): "EPERM",
            ("unlink", RW): "EPERM",
            ("rename", RW, new): "EPERM",
        }
        assert {call: client.refusal(*call) for call in refused} == refused
        client.ask("setxattr", RW, "security.x", b"1", 0)
        assert client.ask("getxattr", RW, "security.x") == b"1"
        client.ask("setxattr", RW, "trusted.x", b"2", 0)
        # This caller is not root.
        assert client.ask("listxattr", RW) == ["security.x"]
        client.ask("removexattr", RW, "security.x")
        assert client.refusal("getxattr", RW, "security.x") == "ENODATA"

    bench.run(script)


def test_a_name_that_is_no_utf8_is_merely_not_there(bench: Bench) -> None:
    bench.run(lambda client: client.refusal("getattr", "/\xff") == "ENOENT")
    assert bench.machine.control.bugs == []


def test_an_internal_error_is_eio_and_kept(bench: Bench) -> None:
    def broken(_caller: object) -> None:
        raise OSError(errno.EBUSY, "as if a model had meant it")

    def script(client: Client) -> None:
        bench.machine.kernel.on_request = broken
        assert client.refusal("getattr", RW) == "EIO"
        bench.machine.kernel.on_request = None
        assert client.ask("getattr", RW)["st_mode"]
        # Before the crossing.
        assert client.refusal("getattr", 5) == "EIO"

    bench.run(script)
    bugs = bench.machine.control.bugs
    assert len(bugs) == 2
    assert "as if a model had meant it" in bugs[0]
    assert "AttributeError" in bugs[1]


def test_an_errno_that_the_kernel_does_not_take_is_eio(bench: Bench) -> None:
    def refuse(_caller: object) -> None:
        raise KernelError(524, "ENOTSUPP")

    def script(client: Client) -> None:
        bench.machine.kernel.on_request = refuse
        assert client.refusal("getattr", RW) == "EIO"

    bench.run(script)
    assert bench.machine.control.bugs == []


def drained(client: Client) -> SimpleNamespace:
    """The stream of uevents, at its end."""
    info = client.open(STREAM)
    info.flags = os.O_NONBLOCK
    assert client.ask("read", None, 1 << 20, 0, info)
    assert client.refusal("read", None, 1 << 20, 0, info) == "EAGAIN"
    info.flags = 0
    return info


def test_a_waiting_read_is_woken_by_a_write(bench: Bench) -> None:
    def script(client: Client) -> None:
        info = drained(client)
        got: list[bytes] = []
        reader = threading.Thread(
            target=lambda: got.append(client.ask("read", None, 4096, 0, info))
        )
        reader.start()
        uevent = client.open(RW.removesuffix("rw") + "uevent", os.O_WRONLY)
        client.ask("write", None, b"change\n", 0, uevent)
        reader.join(5)
        assert got[0].startswith(b"ACTION=change\n")

    bench.run(script)


@pytest.mark.parametrize(("flag", "name"), [("interrupted", "EINTR"), ("exited", "ENODEV")])
def test_a_waiting_read_ends_by_a_signal_and_with_the_mount(
    bench: Bench, flag: str, name: str
) -> None:
    def script(client: Client) -> None:
        info = drained(client)
        vars(client.fuse)[flag] = True
        assert client.refusal("read", None, 4096, 0, info) == name

    bench.run(script)
    assert bench.machine.control.bugs == []


def test_cancelled_it_lets_waiting_reads_go(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[str] = []
    waiting = threading.Event()

    def script(client: Client) -> None:
        info = drained(client)
        waiting.set()
        refused.append(client.refusal("read", None, 4096, 0, info))

    fuse = FakeFuse(script)
    monkeypatch.setattr(library, "load", lambda: fuse)
    server = Server(bench.machine, Path("/mnt"), "abc")

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run, lambda: None)
            assert await trio.to_thread.run_sync(waiting.wait, 5)
            nursery.cancel_scope.cancel()

    trio.run(main)
    deadline = time.monotonic() + 5
    while not refused and time.monotonic() < deadline:
        time.sleep(0.005)
    assert refused == ["ENODEV"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (b"noise\nfusermount3: mount failed: Operation not permitted\n", "mount failed: Op.*ed$"),
        (b"", "libfuse could not mount"),
    ],
)
def test_a_mount_that_fails_says_what_libfuse_said(
    bench: Bench, words: bytes, message: str
) -> None:
    def fail() -> None:
        os.write(2, words)
        raise RuntimeError(1)

    before = os.fstat(2)
    with pytest.RaisesGroup(pytest.RaisesExc(MountError, match=message)):
        bench.run(lambda _: None, mounts=fail)
    assert bench.started == 0
    assert os.path.samestat(before, os.fstat(2))


def test_an_error_of_libfuse_after_the_start_is_a_warning(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(FakeFuse):
        def FUSE(self, calls: Any, point: str, **options: object) -> None:
            calls("init", "/")
            raise RuntimeError(1)

    monkeypatch.setattr(library, "load", lambda: Failing(lambda _: None))
    trio.run(Server(bench.machine, Path("/mnt"), "abc").run, lambda: None)
    assert "libfuse ended with an error" in caplog.text


def test_timers_run_and_drop_what_they_end(bench: Bench) -> None:
    def script(client: Client) -> None:
        clock = client.open("/sys/kernel/debug/fakesys/clock/advance", os.O_WRONLY)
        assert client.ask("write", None, b"5\n", 0, clock) == 2
        assert bench.machine.clock.now >= 5

    bench.run(script)


class TestLoading:
    """What a machine may lack."""

    @pytest.fixture(autouse=True)
    def not_loaded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "fuse", raising=False)

    def test_without_the_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("FUSE_LIBRARY_PATH", raising=False)
        monkeypatch.setattr("ctypes.util.find_library", lambda _name: None)
        with pytest.raises(MountError, match="install the package libfuse2"):
            library.load()

    def test_without_fusepy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "fuse", None)
        with pytest.raises(MountError, match="pip install fusepy"):
            library.load()

"""`mount`, `umount`, `status` in this process: which options arrive, what is printed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakesys.cli import machine_options
from fakesys.daemon import background
from fakesys.daemon import service as daemon
from fakesys.daemon.background import Ready
from fakesys.daemon.launch import Daemon
from fakesys.daemon.service import Service
from fakesys.machine.machine import Machine
from fakesys.transport import mounting
from fakesys.transport.fusepy import library
from fakesys.transport.mounting import MountError
from fakesys.transport.processes import Process
from tests.cli.test_offline import Result, fakesys
from tests.mounts import Mount, mounted

needs_fuse = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="/dev/fuse is not usable here"
)


class Started:
    """What a daemon would have served."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Machine, Service]] = []
        self.error: Exception | None = None

    def start(self, prepare: Callable[[], Callable[[Ready], None]]) -> int:
        prepare()(lambda: None)
        return 1

    def serve(self, machine: Machine, service: Service, _ready: Ready) -> None:
        self._note("start", machine, service)

    def run(self, machine: Machine, service: Service) -> None:
        self._note("run", machine, service)

    def _note(self, name: str, machine: Machine, service: Service) -> None:
        if self.error is not None:
            raise self.error
        self.calls.append((name, machine, service))

    @property
    def service(self) -> Service:
        return self.calls[-1][2]

    @property
    def machine(self) -> Machine:
        return self.calls[-1][1]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """Commands that mount nothing."""
    started = Started()
    monkeypatch.setattr(background, "start", started.start)
    monkeypatch.setattr(daemon, "serve_in_background", started.serve)
    monkeypatch.setattr(daemon, "run", started.run)
    return started


def mount(point: Path, *options: str) -> Result:
    return fakesys("mount", str(point), "--scenario", "selftest", *options)


def test_in_the_background_the_point_is_printed(started: Started, tmp_path: Path) -> None:
    assert mount(tmp_path) == (0, f"{tmp_path}\n", "")
    assert started.calls[0][0] == "start"
    service = started.service
    assert (service.point, service.transport, service.log_level) == (tmp_path, "native", "WARNING")
    assert (service.log_file, service.ready_fd, service.lives_with) == (None, None, None)
    assert service.by_epoch
    assert service.allow_other is (os.geteuid() == 0)
    assert started.machine.profile_name == "seed"


def test_in_the_foreground_nothing_is(started: Started, tmp_path: Path) -> None:
    assert mount(tmp_path, "--foreground") == (0, "", "")
    assert started.calls[0][0] == "run"


def test_links_to_the_point_are_followed_except_the_last(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real/mnt").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    assert mount(Path("link/mnt")) == (0, "link/mnt\n", "")
    assert started.service.point == tmp_path / "real/mnt"


def test_dots_are_the_folders_that_they_name(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert mount(Path()) == (0, ".\n", "")
    assert started.service.point == tmp_path / "below"
    assert mount(Path("..")) == (0, "..\n", "")
    assert started.service.point == tmp_path


def test_every_option_arrives(started: Started, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    log = tmp_path / "log"
    words = (
        *("--profile", "6.18", "--seed", "5", "--clock-rate", "2.5", "--preset", "empty"),
        *("--log-level", "info", "--log-file", str(log), "--allow-other", "--lockdown"),
        *("--ready-fd", str(writer), "--lives-with", str(reader), "--names", "entry"),
    )
    try:
        assert mount(tmp_path, *words).returncode == 0
    finally:
        os.close(reader)
        os.close(writer)
    service, machine = started.service, started.machine
    assert (service.log_level, service.log_file) == ("INFO", log)
    assert (service.ready_fd, service.lives_with) == (writer, reader)
    assert (service.allow_other, service.by_epoch) == (True, False)
    assert (machine.profile_name, machine.control.seed, machine.clock.rate) == ("6.18", 5, 2.5)
    assert machine.control.lockdown
    assert machine.listdir("sys/bus/ap/devices") == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--clock-rate", "nan"), "nan is not finite"),
        (("--clock-rate", "-1"), "not in the range"),
        (("--log-level", "LOUD"), "'LOUD' is not one of"),
        (("--log-file", "/absent/log"), "/absent/log: No such file"),
        (("--ready-fd", "999"), "999 is no open descriptor"),
        (("--transport", "smoke"), "'smoke' is not one of"),
        (("--profile", "2.4"), "'2.4' is no profile"),
        (("--preset", "huge"), "'huge'"),
    ],
)
def test_a_wrong_value_is_named_and_nothing_starts(
    started: Started, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    result = mount(tmp_path, *words)
    assert (result.returncode, result.stdout) == (2, "")
    [line] = result.stderr.splitlines()
    assert message in line
    assert started.calls == []


def test_a_descriptor_must_be_open_in_the_right_direction(started: Started, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    try:
        wrong = mount(tmp_path, "--ready-fd", str(reader))
        assert f"descriptor {reader} cannot be written" in wrong.stderr
        wrong = mount(tmp_path, "--lives-with", str(writer))
        assert f"descriptor {writer} cannot be read" in wrong.stderr
    finally:
        os.close(reader)
        os.close(writer)
    assert started.calls == []


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MountError("cannot mount: why"), "fakesys: cannot mount: why\n"),
        (PermissionError(13, "Permission denied"), "fakesys: Permission denied\n"),
    ],
)
def test_a_daemon_that_cannot_start_is_one_line(
    started: Started, tmp_path: Path, error: Exception, line: str
) -> None:
    started.error = error
    for option in ((), ("--foreground",)):
        assert mount(tmp_path, *option) == (1, "", line)


@pytest.mark.parametrize(
    ("name", "message"), [("absent", "does not exist"), ("file", "is not a directory")]
)
def test_a_wrong_point(started: Started, tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").touch()
    result = mount(tmp_path / name)
    assert (result.returncode, result.stdout) == (1, "")
    assert message in result.stderr
    assert started.calls == []


def test_fusepy_is_looked_for_before_anything_starts(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load() -> Any:
        raise MountError("install the package libfuse2")

    monkeypatch.setattr(library, "load", load)
    result = mount(tmp_path, "--transport", "fusepy")
    assert result == (1, "", "fakesys: install the package libfuse2\n")
    assert started.calls == []
    monkeypatch.setattr(library, "load", lambda: None)
    assert mount(tmp_path, "--transport", "fusepy").returncode == 0
    assert started.service.transport == "fusepy"


def test_machine_of_words_makes_the_same_machine() -> None:
    words = ["--scenario", "selftest", "--profile", "6.1", "--clock-rate", "0", "--lockdown"]
    machine = machine_options.machine_of_words(words)
    assert (machine.profile_name, machine.clock.rate) == ("6.1", 0)
    assert machine.control.lockdown
    with pytest.raises(ValueError, match=r"'2\.4' is no profile"):
        machine_options.machine_of_words(["--profile", "2.4"])


@pytest.fixture
def served(tmp_path: Path, own_records: None) -> Iterator[Mount]:
    """A real mount, the only one of this user."""
    with mounted(tmp_path) as mount:
        yield mount


@needs_fuse
def test_status_of_a_mount(served: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    result = fakesys("status", "--json")
    assert result.returncode == 0
    [state] = json.loads(result.stdout)
    assert state["requests"] > 0
    assert {key: state[key] for key in ("point", "pid", "transport", "bugs", "stale")} == {
        "point": str(served.root),
        "pid": served.pid,
        "transport": "native",
        "bugs": 0,
        "stale": False,
    }
    assert str(served.root) in fakesys("status").stdout
    # A daemon that does not answer is not asked for more.
    monkeypatch.setattr(mounting, "answers", lambda _point: False)
    result = fakesys("status", "--json")
    [state] = json.loads(result.stdout)
    assert (result.returncode, state["stale"], state["requests"]) == (1, True, None)
    result = fakesys("status")
    assert result.returncode == 1
    assert " - " in result.stdout


@needs_fuse
def test_a_second_mount_is_refused(served: Mount, started: Started) -> None:
    result = mount(served.root)
    assert (result.returncode, result.stdout) == (1, "")
    assert "has a fakesys mount already; unmount it first: fakesys umount" in result.stderr
    assert started.calls == []


@needs_fuse
def test_umount_of_what_is_in_use_and_of_nothing(served: Mount, tmp_path: Path) -> None:
    with (served.root / "sys/kernel/debug/selftest/rw").open():
        for words in ((str(served.root),), ("--all",)):
            result = fakesys("umount", *words)
            assert result.returncode == 1
            assert f"is in use by {mine()} (pid {os.getpid()}: " in result.stderr
            assert "; end it, or detach with --lazy" in result.stderr
    result = fakesys("umount", str(tmp_path))
    advice = "`fakesys status` lists the mounts of this user"
    assert result == (1, "", f"fakesys: {tmp_path} has no fakesys mount; {advice}\n")
    assert fakesys("umount", "--all", str(tmp_path)).returncode == 2


@needs_fuse
def test_a_holder_with_an_odd_name_is_named_in_one_line(served: Mount) -> None:
    comm = Path("/proc/self/comm")
    before = mine()
    comm.write_text("odd\nname")
    try:
        with (served.root / "sys/kernel/debug/selftest/rw").open():
            result = fakesys("umount", str(served.root))
    finally:
        comm.write_text(before)
    assert f"is in use by odd?name (pid {os.getpid()}: " in result.stderr
    assert result.stderr.count("\n") == 1


def mine() -> str:
    """The short name of this process."""
    return Path("/proc/self/comm").read_text().strip()


@pytest.fixture
def ours(point: Path, tmp_path: Path) -> Iterator[Path]:
    """A mount that the test itself is to end."""
    with Daemon(point, ["--scenario", "selftest"], log=tmp_path / "log") as daemon:
        yield daemon.point


@needs_fuse
def test_umount_ends_mount_daemon_and_record(ours: Path) -> None:
    assert fakesys("umount", "--all") == (0, "", "")
    assert mounting.find(ours) is None
    assert fakesys("status") == (0, "no mounts\n", "")


@needs_fuse
def test_a_daemon_that_is_kept_alive_is_told_to_end(
    ours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    gone = Process.wait_gone

    def wait(process: Process, seconds: float) -> bool:
        waited.append(seconds)
        # As when a copy of the mount in another namespace keeps it alive for a while.
        return len(waited) > 1 and gone(process, seconds)

    monkeypatch.setattr(Process, "wait_gone", wait)
    assert fakesys("umount", str(ours)) == (0, "", "")
    assert len(waited) > 2


@needs_fuse
def test_a_daemon_that_does_not_end_is_named(ours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Process, "wait_gone", lambda _process, _seconds: False)
    result = fakesys("umount", str(ours))
    assert result.returncode == 1
    assert f"the daemon of {ours} (pid " in result.stderr
    assert result.stderr.endswith("does not end; kill it\n")


@needs_fuse
def test_a_lazy_umount_does_not_wait(ours: Path) -> None:
    with (ours / "sys/kernel/debug/selftest/rw").open() as file:
        assert fakesys("umount", "--lazy", str(ours)) == (0, "", "")
        assert mounting.find(ours) is None
        assert file.read() == "65536\n"


@needs_fuse
def test_unmounting_may_be_refused(ours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_point: Path, **_: bool) -> None:
        raise MountError("not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(mounting, "unmount", refuse)
        assert fakesys("umount", str(ours)) == (1, "", "fakesys: not permitted\n")
    assert mounting.find(ours) is not None

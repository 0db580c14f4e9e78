"""What a daemon does between mounting and leaving, served in this very process.

The test's own thread is the daemon; a second thread plays the outside world. It never holds a file
of the mount while it starts a program: the copy of its descriptor in the child would be closed by
a request to this very process, which waits for the child.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakesys.daemon import registry
from fakesys.daemon import service as daemon
from fakesys.daemon.launch import Daemon
from fakesys.daemon.service import Service
from fakesys.machine.machine import Machine
from fakesys.machine.scenario import load
from fakesys.transport import mounting
from fakesys.transport.mounting import MountError
from tests.mounts import wait_until

pytestmark = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="/dev/fuse is not usable here"
)
Act = Callable[[Path], object]


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What a daemon froze belongs to the tests again."""
    yield
    gc.unfreeze()


def serve(
    point: Path,
    act: Act,
    *,
    scenario: str | Path = "selftest",
    transport: str = "native",
    lives_with: int | None = None,
) -> None:
    """Serve until `act`, called once the mount is ready, has ended it."""
    reader, writer = os.pipe()
    failures: list[BaseException] = []

    def outside() -> None:
        try:
            with os.fdopen(reader, "rb") as ready:
                assert ready.read() == b"ready\n"
            act(point)
        except BaseException as error:
            failures.append(error)
            mounting.unmount(point, lazy=True)

    world = threading.Thread(target=outside)
    world.start()
    service = Service(point=point, transport=transport, ready_fd=writer, lives_with=lives_with)
    daemon.run(Machine(scenario=load(scenario)), service)
    world.join(10)
    if failures:
        raise failures[0]


def test_it_serves_until_it_is_unmounted_and_forgets_its_record(point: Path) -> None:
    def act(point: Path) -> None:
        [record] = registry.entries()
        assert (record.point, record.pid, record.transport) == (str(point), os.getpid(), "native")
        assert (point / "sys/kernel/debug/selftest/rw").read_text() == "65536\n"
        assert int((point / "sys/kernel/debug/fakesys/requests").read_text()) > 1
        mounting.unmount(point)

    serve(point, act)
    assert list(registry.entries()) == []
    assert mounting.find(point) is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_unmount(point: Path, number: signal.Signals) -> None:
    serve(point, lambda _: os.kill(os.getpid(), number))
    assert mounting.find(point) is None


def test_a_signal_while_a_file_is_open_detaches(point: Path, tmp_path: Path) -> None:
    # A process of its own: an unmount by fusermount3 copies the descriptors of the daemon.
    with Daemon(point, ["--scenario", "selftest"], log=tmp_path / "log") as daemon:
        held = os.open(point / "sys/kernel/debug/selftest/rw", os.O_RDONLY)
        os.kill(daemon.pid, signal.SIGTERM)
        wait_until(lambda: daemon.poll() == 0, 60)
        assert mounting.find(point) is None
        with pytest.raises(OSError, match=r"not connected|abort"):
            os.close(held)


def test_it_leaves_with_the_process_whose_descriptor_it_has(point: Path) -> None:
    reader, writer = os.pipe()
    serve(point, lambda _: os.close(writer), lives_with=reader)
    os.close(reader)
    assert mounting.find(point) is None


def test_an_aborted_connection_leaves_no_mount(point: Path) -> None:
    def act(point: Path) -> None:
        found = mounting.find(point)
        assert found is not None
        mounting.abort(found)

    serve(point, act)
    assert mounting.find(point) is None


def test_another_mount_on_the_point_is_left_alone(
    point: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = mounting.Mounted(point, "fakesys-other", 0)
    unmounted: list[Path] = []
    with monkeypatch.context() as patch:
        patch.setattr(mounting, "find", lambda _point: other)
        patch.setattr(mounting, "unmount", lambda point, **_: unmounted.append(point))
        daemon._clear(point, "mine")
        assert unmounted == []
        daemon._clear(point, "other")
        assert unmounted == [point]


def test_the_timeline_of_a_scenario_runs_by_the_clock(
    point: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "late.toml"
    path.write_text(
        'selftest = true\n[[at]]\nseconds = 0.01\nwrite = "sys/kernel/debug/selftest/rw"\n'
        'text = "7"\n'
    )
    caplog.set_level(logging.INFO)

    def act(point: Path) -> None:
        rw = point / "sys/kernel/debug/selftest/rw"
        wait_until(lambda: rw.read_text() == "7\n")
        mounting.unmount(point)

    serve(point, act, scenario=path)
    assert "sys/kernel/debug/selftest/rw '7'" in caplog.text


def test_a_point_that_cannot_be_mounted(point: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        MountError, match=r"cannot mount on /absent|failed to access mountpoint /absent"
    ):
        daemon.run(Machine(scenario="selftest"), Service(point=Path("/absent")))
    monkeypatch.setattr(mounting, "DEVICE", "/dev/absent")
    with pytest.raises(MountError, match="/dev/absent does not exist: load the fuse module"):
        daemon.run(Machine(scenario="selftest"), Service(point=point))
    assert list(registry.entries()) == []


def test_the_mount_error_in_a_group_is_what_is_said() -> None:
    error = MountError("why")
    find = daemon._mount_error_in
    assert find(ExceptionGroup("", [ExceptionGroup("", [error])])) is error
    assert find(BaseExceptionGroup("", [error, KeyboardInterrupt()])) is None
    assert find(ExceptionGroup("", [ValueError()])) is None


def test_an_unmount_that_is_refused_is_logged(
    point: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_point: Path, **_: bool) -> None:
        raise MountError("not permitted")

    monkeypatch.setattr(mounting, "unmount", refuse)
    assert not daemon._unmount(point)
    assert "not permitted" in caplog.text

"""What Python programs may use: `fakesys.Machine`, `fakesys.mount` and their errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import fakesys
from fakesys.daemon.launch import Daemon, option_words
from fakesys.transport import mounting
from tests.mounts import wait_until

needs_fuse = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="/dev/fuse is not usable here"
)
RW = "sys/kernel/debug/selftest/rw"


def python(source: str) -> str:
    """What a program prints, which must succeed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_imports_nothing_else() -> None:
    loaded = python("""
import sys, fakesys
print(*(name for name in sys.modules if name.split(".")[0] in ("fakesys", "trio", "fuse")))
""")
    assert loaded.split() == ["fakesys"]


def test_neither_machine_nor_mount_imports_trio_or_fusepy() -> None:
    loaded = python("""
import sys, fakesys
fakesys.Machine, fakesys.mount, fakesys.MountError, fakesys.KernelError
print(*({"trio", "fuse", "psutil", "click"} & set(sys.modules)))
""")
    assert loaded == "\n"


def test_public_names_are_listed_and_others_are_no_attributes() -> None:
    assert {"KernelError", "Machine", "MountError", "__version__", "mount"} <= set(dir(fakesys))
    assert set(fakesys.__all__) <= set(dir(fakesys))
    with pytest.raises(AttributeError, match="no attribute 'nonesuch'"):
        fakesys.nonesuch  # type: ignore[attr-defined]  # noqa: B018


def test_a_machine_is_read_written_and_moved_in_time() -> None:
    machine = fakesys.Machine(profile="6.18", scenario="selftest", seed=3)
    assert machine.write(RW, "1\n") == 2
    assert machine.read(RW) == "1\n"
    with pytest.raises(fakesys.KernelError, match="EINVAL"):
        machine.write(RW, "x")
    machine.clock.advance(1.5)
    assert machine.clock.now == 1.5
    assert "rw" in machine.listdir("sys/kernel/debug/selftest")


@needs_fuse
def test_mount_makes_a_folder_and_takes_it_away() -> None:
    with fakesys.mount(scenario="selftest", profile="6.1", seed=4, clock_rate=0) as root:
        assert os.path.ismount(root)
        assert (root / RW).read_text() == "65536\n"
        assert (root / "sys/kernel/debug/fakesys/seed").read_text() == "4\n"
    assert not root.exists()


@needs_fuse
def test_mount_takes_a_point_and_leaves_the_folder(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with fakesys.mount(str(tmp_path), scenario="selftest", log_file=log) as root:
        assert root == tmp_path
        assert os.path.ismount(root)
    assert not os.path.ismount(tmp_path)
    assert log.read_text() == ""


@needs_fuse
def test_the_mount_goes_with_open_files_and_an_exception(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ZeroDivisionError), fakesys.mount(scenario="selftest") as root:  # noqa: PT012
        held = os.open(root / RW, os.O_RDONLY)
        raise ZeroDivisionError
    assert not root.exists()
    # The connection is gone, and the kernel says so.
    with pytest.raises(OSError, match="not connected"):
        os.close(held)
    assert capsys.readouterr().err == ""


@needs_fuse
def test_mounting_inside_a_mounting_block_is_fine_elsewhere_and_refused_there() -> None:
    with fakesys.mount(scenario="selftest") as first:
        with fakesys.mount(scenario="selftest") as second:
            (second / RW).write_text("1")
            assert (first / RW).read_text() == "65536\n"
        with pytest.raises(fakesys.MountError, match="has a fakesys mount already"):
            fakesys.mount(first).__enter__()
        assert (first / RW).read_text() == "65536\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "2.4"}, "'2.4' is no profile"),
        ({"scenario": "nonesuch"}, "'nonesuch' is no scenario"),
        ({"clock_rate": -1.0}, "Invalid value for '--clock-rate'"),
        ({"transport": "smoke"}, "Invalid value for '--transport'"),
        ({"log_level": "LOUD"}, "Invalid value for '--log-level'"),
    ],
)
def test_a_wrong_option_is_a_value_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], message: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ValueError, match=message), fakesys.mount(**options):  # type: ignore[arg-type]
        raise AssertionError
    assert list(tmp_path.iterdir()) == []


def test_a_point_that_does_not_exist_is_a_mount_error(tmp_path: Path) -> None:
    with pytest.raises(fakesys.MountError, match="does not exist"):
        fakesys.mount(tmp_path / "absent").__enter__()


@needs_fuse
def test_a_process_that_is_killed_leaves_no_mount(tmp_path: Path) -> None:
    source = f"""
import fakesys, time
with fakesys.mount({str(tmp_path)!r}, scenario="selftest"):
    print("mounted", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"mounted\n"
        (daemon,) = psutil.Process(process.pid).children()
        process.kill()
    wait_until(lambda: not os.path.ismount(tmp_path))
    wait_until(lambda: not daemon.is_running() or daemon.status() == psutil.STATUS_ZOMBIE)


@needs_fuse
def test_a_daemon_that_dies_leaves_no_stale_mount(tmp_path: Path) -> None:
    with Daemon(tmp_path, ["--scenario", "selftest"], log=tmp_path.parent / "log") as daemon:
        os.kill(daemon.pid, signal.SIGKILL)
        wait_until(lambda: not mounting.answers(tmp_path))
        assert mounting.find(tmp_path) is not None
    assert mounting.find(tmp_path) is None
    assert daemon.poll() == -signal.SIGKILL
    daemon.stop()
    assert daemon.said() == ""


@needs_fuse
def test_a_daemon_that_does_not_answer_is_killed_and_its_readers_are_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fakesys.daemon.launch.END_SECONDS", 0.3)
    with Daemon(tmp_path, ["--scenario", "selftest"], log=tmp_path.parent / "log") as daemon:
        os.kill(daemon.pid, signal.SIGSTOP)
        with subprocess.Popen(["cat", str(tmp_path / RW)], stderr=subprocess.DEVNULL) as reader:
            time.sleep(0.05)
            daemon.stop()
            assert reader.wait(5) == 1
    assert daemon.poll() == -signal.SIGKILL
    assert mounting.find(tmp_path) is None


def test_option_words() -> None:
    options = {"clock_rate": 2.0, "lockdown": True, "allow_other": False, "seed": None, "n": 0}
    assert option_words(options) == ["--clock-rate", "2.0", "--lockdown", "--n", "0"]


def test_a_daemon_that_was_never_started() -> None:
    daemon = Daemon(Path("/nowhere"))
    assert (daemon.pid, daemon.poll(), daemon.said()) == (0, None, "")
    daemon.stop()


@needs_fuse
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes mount namespaces")
def test_a_copy_of_the_mount_in_another_namespace_does_not_keep_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fakesys.daemon.launch.END_SECONDS", 2.0)
    with Daemon(tmp_path, ["--scenario", "selftest"], log=tmp_path.parent / "log") as daemon:
        script = "echo copied; read wait"
        with subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "copied\n"
            daemon.stop()
            other.communicate("\n", timeout=10)
    assert daemon.poll() == 0
    assert mounting.find(tmp_path) is None

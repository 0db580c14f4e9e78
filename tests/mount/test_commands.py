"""`fakesys mount`, `umount`, `status` as a user meets them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fakesys.transport import mounting
from tests.mounts import Mount, fakesys, mounted, wait_until


@pytest.fixture
def point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A mount point, free again afterwards; records are kept apart from the user's own."""
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    point = tmp_path / "mnt"
    point.mkdir()
    yield point
    while mounting.find(point) is not None:
        subprocess.run(["umount", "-l", str(point)], timeout=10, check=True)


def daemon_pid(point: Path) -> int:
    """The process behind a mount, as `status` says."""
    states = json.loads(fakesys("status", "--json").stdout)
    return next(int(state["pid"]) for state in states if state["point"] == str(point))


def test_mount_returns_when_files_answer_and_umount_ends_the_daemon(point: Path) -> None:
    done = fakesys("mount", str(point), "--scenario", "selftest")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{point}\n", "")
    assert (point / "sys/kernel/debug/selftest/rw").read_text() == "65536\n"
    pid = daemon_pid(point)
    assert psutil.Process(pid).cwd() == "/"
    done = fakesys("umount", str(point))
    assert (done.returncode, done.stderr) == (0, "")
    assert not os.path.ismount(point)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert list((point.parent / "run/fakesys").iterdir()) == []


def test_the_default_mount_point_is_the_folder_mountpoint(
    point: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(point.parent)
    done = fakesys("mount", "--scenario", "selftest")
    assert done.returncode == 1
    assert "mountpoint does not exist" in done.stderr
    point.rename(point.parent / "mountpoint")
    done = fakesys("mount", "--scenario", "selftest")
    assert (done.returncode, done.stdout) == (0, "mountpoint\n")
    assert fakesys("umount").returncode == 0
    (point.parent / "mountpoint").rename(point)


def test_a_second_mount_on_the_same_point_is_refused(point: Path) -> None:
    assert fakesys("mount", str(point), "--scenario", "selftest").returncode == 0
    done = fakesys("mount", str(point), "--scenario", "selftest")
    assert done.returncode == 1
    assert "has a fakesys mount already" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert fakesys("umount", str(point)).returncode == 0


def test_a_stale_mount_is_shown_and_then_cleared_by_the_next_mount(point: Path) -> None:
    assert fakesys("mount", str(point), "--scenario", "selftest").returncode == 0
    pid = daemon_pid(point)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not mounting.answers(point))
    done = fakesys("status", "--json")
    assert done.returncode == 1
    assert [state["stale"] for state in json.loads(done.stdout)] == [True]
    assert fakesys("mount", str(point), "--scenario", "selftest").returncode == 0
    assert (point / "sys/kernel/debug/selftest/rw").read_text() == "65536\n"
    assert fakesys("umount", str(point)).returncode == 0
    assert mounting.find(point) is None


def test_umount_of_a_busy_mount_names_who_holds_it(point: Path) -> None:
    assert fakesys("mount", str(point), "--scenario", "selftest").returncode == 0
    held = point / "sys/kernel/debug/selftest/rw"
    with held.open() as file:
        done = fakesys("umount", str(point))
        assert done.returncode == 1
        assert f"pid {os.getpid()}: {held}" in done.stderr
        assert file.read() == "65536\n"
        done = fakesys("umount", "--lazy", str(point))
        assert (done.returncode, done.stderr) == (0, "")
        assert not os.path.ismount(point)


def test_umount_all_takes_every_mount_of_this_user(point: Path) -> None:
    assert fakesys("mount", str(point), "--scenario", "selftest").returncode == 0
    assert fakesys("umount", "--all", str(point)).returncode == 2
    assert fakesys("umount", "--all").returncode == 0
    assert mounting.find(point) is None
    assert fakesys("status").stdout == "no mounts\n"


def test_umount_without_a_mount_is_refused(point: Path) -> None:
    done = fakesys("umount", str(point))
    assert (done.returncode, done.stderr) == (1, f"fakesys: {point} has no fakesys mount\n")


def test_status_counts_requests_and_bugs(point: Path) -> None:
    assert fakesys("mount", str(point), "--scenario", "selftest").returncode == 0
    (state,) = json.loads(fakesys("status", "--json").stdout)
    assert state["point"] == str(point)
    assert (state["profile"], state["scenario"], state["bugs"]) == ("seed", "selftest", 0)
    assert state["requests"] > 0
    assert str(point) in fakesys("status").stdout.replace("\n", "")
    assert fakesys("umount", str(point)).returncode == 0


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--scenario", "no-such"], 2, "'no-such' is no scenario"),
        (["--profile", "2.4"], 2, "2.4"),
        (["--seed", "x"], 2, "'x' is not a valid integer"),
        (["--clock-rate", "-1"], 2, "-1"),
        (["--transport", "smoke"], 2, "smoke"),
        (["--transport", "fusepy"], 1, "fusepy"),
        (["--log-level", "LOUD"], 2, "LOUD"),
        (["--no-such-option"], 2, "--no-such-option"),
    ],
)
def test_a_wrong_option_is_one_line_and_nothing_is_mounted(
    point: Path, options: list[str], status: int, message: str
) -> None:
    done = fakesys("mount", str(point), *options)
    assert done.returncode == status
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert mounting.find(point) is None


def test_a_wrong_mount_point_is_one_line(point: Path) -> None:
    done = fakesys("mount", str(point / "absent"))
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "does not exist" in done.stderr
    file = point / "file"
    file.touch()
    done = fakesys("mount", str(file))
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "is not a directory" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_unmounts_cleanly(point: Path, number: signal.Signals) -> None:
    assert fakesys("mount", str(point), "--scenario", "selftest").returncode == 0
    pid = daemon_pid(point)
    os.kill(pid, number)
    wait_until(lambda: not os.path.ismount(point))
    assert fakesys("status").stdout == "no mounts\n"


def test_a_signal_unmounts_lazily_what_is_in_use_and_the_daemon_leaves(point: Path) -> None:
    assert fakesys("mount", str(point), "--scenario", "selftest").returncode == 0
    pid = daemon_pid(point)
    with (point / "sys/kernel/debug/selftest/rw").open("rb", buffering=0) as file:
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not os.path.ismount(point))
        wait_until(
            lambda: (
                not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
            )
        )
        with pytest.raises(OSError, match=r"not connected|aborted"):
            file.read(1)


def test_the_mount_is_listed_as_fuse_fakesys_with_its_instance(shared_mount: Mount) -> None:
    found = mounting.find(shared_mount.root)
    assert found is not None
    assert found.instance
    line = next(
        line
        for line in Path("/proc/mounts").read_text().splitlines()
        if line.split(" ")[1] == str(shared_mount.root)
    )
    source, _, fstype, options = line.split(" ")[:4]
    assert (source, fstype) == (f"fakesys-{found.instance}", "fuse.fakesys")
    assert "default_permissions" in options.split(",")


def test_the_clock_of_a_mount_follows_real_time_at_its_rate(tmp_path: Path) -> None:
    with mounted(tmp_path, "--clock-rate", "100") as mount:
        before = float((mount.control / "clock/now").read_text())
        time.sleep(0.1)
        passed = float((mount.control / "clock/now").read_text()) - before
        assert 9.0 < passed < 100.0

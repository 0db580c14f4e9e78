"""`fakesys mount`, `umount`, `status` as a user meets them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from fakesys.transport import mounting
from tests.mounts import Mount, fakesys, mounted, wait_until


@pytest.fixture
def served(transport: str) -> tuple[str, ...]:
    """Options of a small machine, for each transport."""
    return ("--scenario", "selftest", "--transport", transport)


def daemon_pid(point: Path) -> int:
    """The process behind a mount, as `status` says."""
    states = json.loads(fakesys("status", "--json").stdout)
    return next(int(state["pid"]) for state in states if state["point"] == str(point))


def test_mount_returns_when_files_answer_and_umount_ends_the_daemon(
    point: Path, served: tuple[str, ...]
) -> None:
    done = fakesys("mount", str(point), *served)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{point}\n", "")
    assert (point / "sys/kernel/debug/selftest/rw").read_text() == "65536\n"
    pid = daemon_pid(point)
    assert psutil.Process(pid).cwd() == "/"
    done = fakesys("umount", str(point))
    assert (done.returncode, done.stderr) == (0, "")
    assert not os.path.ismount(point)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert list((point.parent / "run/fakesys").iterdir()) == []


def test_a_guest_has_booted_when_the_mount_answers(point: Path) -> None:
    words = ("--preset", "linux-boot vcpus=17", "--preset", "empty")
    assert fakesys("mount", str(point), *words).returncode == 0
    kvm = point / "sys/kernel/debug/kvm"
    guests = [path for path in kvm.iterdir() if "-" in path.name]
    assert [path.name for path in guests] == [f"{daemon_pid(point)}-10"]
    assert (guests[0] / "exits").read_text() == f"{146 + 7 * 16}\n"
    assert list((point / "sys/bus/ap/devices").iterdir()) == []
    assert fakesys("umount", str(point)).returncode == 0


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


def test_a_second_mount_on_the_same_point_is_refused(point: Path, served: tuple[str, ...]) -> None:
    assert fakesys("mount", str(point), *served).returncode == 0
    done = fakesys("mount", str(point), *served)
    assert done.returncode == 1
    assert "has a fakesys mount already" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert fakesys("umount", str(point)).returncode == 0


def test_a_stale_mount_is_shown_and_then_cleared_by_the_next_mount(
    point: Path, served: tuple[str, ...]
) -> None:
    assert fakesys("mount", str(point), *served).returncode == 0
    pid = daemon_pid(point)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not mounting.answers(point))
    done = fakesys("status", "--json")
    assert done.returncode == 1
    assert [state["stale"] for state in json.loads(done.stdout)] == [True]
    assert fakesys("mount", str(point), *served).returncode == 0
    assert (point / "sys/kernel/debug/selftest/rw").read_text() == "65536\n"
    assert fakesys("umount", str(point)).returncode == 0
    assert mounting.find(point) is None


def test_umount_of_a_busy_mount_names_who_holds_it(point: Path, served: tuple[str, ...]) -> None:
    assert fakesys("mount", str(point), *served).returncode == 0
    held = point / "sys/kernel/debug/selftest/rw"
    with held.open() as file:
        done = fakesys("umount", str(point))
        assert done.returncode == 1
        assert f"pid {os.getpid()}: {held}" in done.stderr
        assert file.read() == "65536\n"
        done = fakesys("umount", "--lazy", str(point))
        assert (done.returncode, done.stderr) == (0, "")
        assert not os.path.ismount(point)


def test_umount_all_takes_every_mount_of_this_user(point: Path, served: tuple[str, ...]) -> None:
    assert fakesys("mount", str(point), *served).returncode == 0
    assert fakesys("umount", "--all", str(point)).returncode == 2
    assert fakesys("umount", "--all").returncode == 0
    assert mounting.find(point) is None
    assert fakesys("status").stdout == "no mounts\n"


def test_umount_without_a_mount_is_refused(point: Path) -> None:
    done = fakesys("umount", str(point))
    assert done.returncode == 1
    assert done.stderr.startswith(f"fakesys: {point} has no fakesys mount; ")


def test_status_counts_requests_and_bugs(
    point: Path, served: tuple[str, ...], transport: str
) -> None:
    assert fakesys("mount", str(point), *served).returncode == 0
    (state,) = json.loads(fakesys("status", "--json").stdout)
    assert state["point"] == str(point)
    assert (state["profile"], state["scenario"], state["bugs"]) == ("seed", "selftest", 0)
    assert state["transport"] == transport
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
        (["--clock-rate", "nan"], 2, "nan is not finite"),
        (["--clock-rate", "inf"], 2, "inf is not finite"),
        (["--transport", "smoke"], 2, "smoke"),
        (["--log-level", "LOUD"], 2, "LOUD"),
        (["--log-file", "/proc/absent/log"], 2, "/proc/absent/log: No such file"),
        (["--log-file", "/"], 2, "'/' is a directory"),
        (["--ready-fd", "77"], 2, "77 is no open descriptor"),
        (["--ready-fd", "-1"], 2, "-1 is no open descriptor"),
        (["--ready-fd", "99999999999999999999"], 2, "is no open descriptor"),
        (["--ready-fd", "0"], 2, "descriptor 0 cannot be written"),
        (["--ready-fd", "x"], 2, "'x' is not a valid integer"),
        (["--preset", "huge"], 2, "'huge' is"),
        (["--preset", "linux-boot vcpus=999"], 2, "more than 288 vCPUs"),
        (["--preset", "linux-boot"], 2, "vcpus= is missing"),
        (["--lockdown=1"], 2, "--lockdown"),
        (["extra"], 2, "extra"),
        (["--no-such-option"], 2, "--no-such-option"),
    ],
)
def test_a_wrong_option_is_one_line_and_nothing_is_mounted(
    point: Path, options: list[str], status: int, message: str
) -> None:
    with open(os.devnull) as nothing:
        done = fakesys("mount", str(point), *options, stdin=nothing)
    assert done.returncode == status, done.stderr
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unmounts_cleanly(
    point: Path, served: tuple[str, ...], number: signal.Signals
) -> None:
    assert fakesys("mount", str(point), *served).returncode == 0
    pid = daemon_pid(point)
    os.kill(pid, number)
    wait_until(lambda: not os.path.ismount(point))
    assert fakesys("status").stdout == "no mounts\n"


def test_a_signal_unmounts_lazily_what_is_in_use_and_the_daemon_leaves(
    point: Path, served: tuple[str, ...]
) -> None:
    assert fakesys("mount", str(point), *served).returncode == 0
    pid = daemon_pid(point)
    with (point / "sys/kernel/debug/selftest/rw").open("rb", buffering=0) as file:
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not os.path.ismount(point))
        wait_until(
            lambda: (
                not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
            )
        )
        with pytest.raises(OSError, match=r"not connected|abort"):
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


def test_the_clock_of_a_mount_follows_real_time_at_its_rate(tmp_path: Path, transport: str) -> None:
    with mounted(tmp_path, "--clock-rate", "100", transport=transport) as mount:
        now = mount.control / "clock/now"
        times = [time.monotonic()]
        before = float(now.read_text())
        times.append(time.monotonic())
        time.sleep(0.1)
        times.append(time.monotonic())
        passed = float(now.read_text()) - before
        times.append(time.monotonic())
    # Between the two readings of the clock, however slow the host is.
    assert 100 * (times[2] - times[1]) <= passed + 0.001
    assert passed - 0.001 <= 100 * (times[3] - times[0])


def test_without_libfuse_one_line_names_the_package(
    point: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSE_LIBRARY_PATH", "/nowhere/libfuse.so.2")
    for foreground in ((), ("--foreground",)):
        done = fakesys("mount", str(point), "--transport", "fusepy", *foreground)
        assert (done.returncode, done.stdout) == (1, "")
        [line] = done.stderr.splitlines()
        assert line.startswith("fakesys: --transport fusepy needs libfuse 2: install")
        assert "libfuse2" in line
        assert mounting.find(point) is None


def test_umount_clears_a_stale_mount(point: Path, served: tuple[str, ...]) -> None:
    assert fakesys("mount", str(point), *served).returncode == 0
    os.kill(daemon_pid(point), signal.SIGKILL)
    wait_until(lambda: not mounting.answers(point))
    done = fakesys("umount", str(point))
    assert (done.returncode, done.stderr) == (0, "")
    assert mounting.find(point) is None
    assert fakesys("status").stdout == "no mounts\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a tmpfs")
def test_mounting_is_refused_while_a_dead_mount_of_others_is_there(point: Path) -> None:
    # Only our own kind is cleared: a tmpfs may be mounted over as anywhere else.
    subprocess.run(["mount", "-t", "tmpfs", "none", str(point)], check=True, timeout=10)
    try:
        assert fakesys("mount", str(point), "--scenario", "selftest").returncode == 0
        assert fakesys("umount", str(point)).returncode == 0
        assert os.path.ismount(point)
    finally:
        subprocess.run(["umount", str(point)], check=True, timeout=10)


def test_ready_fd_hears_of_a_background_mount_too(point: Path, served: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as pipe:
        done = fakesys("mount", str(point), *served, "--ready-fd", str(writer), keep=(writer,))
        os.close(writer)
        assert done.returncode == 0
        assert pipe.read() == b"ready\n"
    assert fakesys("umount", str(point)).returncode == 0


def test_log_file_and_level(point: Path, served: tuple[str, ...]) -> None:
    log = point.parent / "own.log"
    done = fakesys("mount", str(point), *served, "--log-file", str(log), "--log-level", "debug")
    assert done.returncode == 0
    assert log.exists()
    assert fakesys("umount", str(point)).returncode == 0
    assert list((point.parent / "run/fakesys").iterdir()) == []


def test_lockdown_and_rate_hold_after_a_reset(tmp_path: Path, transport: str) -> None:
    options = ("--lockdown", "--clock-rate", "0.5", "--seed", "9")
    with mounted(tmp_path, *options, transport=transport) as mount:
        for _ in range(2):
            with pytest.raises(PermissionError):
                (mount.root / "sys/kernel/debug/selftest/rw").read_text()
            assert (mount.control / "lockdown").read_text() == "1\n"
            assert (mount.control / "clock/rate").read_text() == "0.5\n"
            assert (mount.control / "seed").read_text() == "9\n"
            mount.command("reset")


def test_a_foreground_mount_that_cannot_be_says_why(point: Path, transport: str) -> None:
    done = fakesys("mount", str(point / "absent"), "--foreground", "--transport", transport)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "does not exist" in done.stderr

"""The private world of `fakesys exec`: what is joined, what stays, what is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.execution.helpers import exec_command, fakesys_exec, shell
from tests.mounts import fakesys, mounted, wait_until

DEVICE = "/sys/devices/virtual/selftest/selftest0"
CONTROL = "/sys/kernel/debug/fakesys"


def host_view() -> tuple[object, ...]:
    """What of the host could have been changed."""
    folders = ("/run", "/run/lock", "/etc/mdevctl.d", "/etc/udev/rules.d", "/sys/bus")
    return (
        Path("/proc/self/mountinfo").read_text(),
        *(sorted(os.listdir(folder)) if os.path.isdir(folder) else None for folder in folders),
    )


def processes_with(text: str) -> list[int]:
    """Processes whose command line contains `text`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if text in line:
                found.append(int(entry.name))
    return found


def test_the_fake_and_the_machine_are_joined(prefix: tuple[str, ...]) -> None:
    out = shell(
        f"cat {DEVICE}/rw; echo 1400 > {DEVICE}/rw; cat {DEVICE}/rw; cat {CONTROL}/version;"
        "ls -d /sys/bus/cpu /sys/devices/system/cpu /sys/class/net /sys/bus/selftest",
        prefix=prefix,
    ).split()
    assert out[:2] == ["1500", "1400"]
    assert out[3:] == [
        "/sys/bus/cpu",
        "/sys/bus/selftest",
        "/sys/class/net",
        "/sys/devices/system/cpu",
    ]


def test_links_of_both_sides_lead_into_sys() -> None:
    out = shell(
        "readlink -f /sys/bus/selftest/devices/selftest0; readlink -f /sys/bus/cpu/devices/cpu0"
    ).split()
    assert out == [DEVICE, "/sys/devices/system/cpu/cpu0"]


def test_refused_writes_have_their_errno(prefix: tuple[str, ...]) -> None:
    done = fakesys_exec("sh", "-c", f"echo garbage | tee {DEVICE}/rw", prefix=prefix)
    assert done.returncode == 1
    assert "Invalid argument" in done.stderr


def test_the_host_is_as_before(prefix: tuple[str, ...]) -> None:
    before = host_view()
    shell(
        "touch /run/x /run/lock/y; [ ! -d /etc/mdevctl.d ] || touch /etc/mdevctl.d/z;"
        "[ ! -d /etc/udev/rules.d ] || touch /etc/udev/rules.d/z",
        prefix=prefix,
    )
    wait_until(lambda: host_view() == before)


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_the_exit_status_is_passed_on(status: int) -> None:
    assert fakesys_exec("sh", "-c", f"exit {status}").returncode == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGPIPE])
def test_death_by_signal_is_passed_on(number: signal.Signals) -> None:
    assert fakesys_exec("sh", "-c", f"kill -{number.value} $$").returncode == -number


def test_signals_reach_the_command() -> None:
    script = "trap 'exit 17' TERM; echo ready; while :; do sleep 0.01; done"
    with subprocess.Popen(exec_command("sh", "-c", script), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.wait(10) == 17


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["exec", "--", "/no/such/program"], 127, "No such file"),
        (["exec", "--", "/etc/passwd"], 126, "Permission denied"),
        (["exec", "--scenario", "nonsense", "--", "true"], 125, "nonsense"),
        (["exec", "--profile", "2.4", "--", "true"], 125, "2.4"),
        (["exec", "--mount", "/", "--", "true"], 125, "no fakesys mount"),
        (["exec", "--nonsense", "--", "true"], 125, "--nonsense"),
        (["exec"], 125, "COMMAND"),
    ],
)
def test_own_failures_are_one_line_and_a_status(
    arguments: list[str], status: int, words: str
) -> None:
    done = fakesys(*arguments)
    assert done.returncode == status
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_environment_and_places() -> None:
    out = shell(
        "echo $SYSTEMD_DEVICE_VERIFY_SYSFS $TRACEFS_PATH $FAKESYS_MOUNT;"
        "cat $FAKESYS_MOUNT/sys/kernel/debug/fakesys/bugs; ls -A /run/udev /run/lock;"
        "grep -Ecw 'svm|vmx' /proc/cpuinfo || grep -c ^flags /proc/cpuinfo || true"
    ).splitlines()
    assert out[:2] == ["0 /sys/kernel/tracing /run/fakesys/mount", "0"]
    assert out[2:5] == ["/run/lock:", "", "/run/udev:"]
    assert out[5] == out[-1]


def test_mdevctl_finds_its_folders_empty() -> None:
    if not os.path.isdir("/etc/mdevctl.d"):
        pytest.skip("mdevctl is not installed: no /etc/mdevctl.d")
    out = shell("ls /etc/mdevctl.d; ls /etc/mdevctl.d/scripts.d").split()
    assert out == ["scripts.d", "callouts", "notifiers"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount debugfs")
def test_lists_of_mounts_name_debugfs_and_tracefs() -> None:
    mounts = shell("cat /proc/mounts").splitlines()
    places = {(line.split()[1], line.split()[2]) for line in mounts}
    assert ("/sys/kernel/debug", "debugfs") in places
    assert ("/sys", "sysfs") in places


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount debugfs")
def test_debugfs_elsewhere_shows_the_fake_too(tmp_path: Path) -> None:
    inner = f"cat {tmp_path}/fakesys/version"
    command = " ".join(exec_command("sh", "-c", f"'{inner}'"))
    script = f"mount -t debugfs none {tmp_path} && exec {command}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == fakesys_exec("cat", f"{CONTROL}/version").stdout


def test_an_existing_mount_is_shown(tmp_path: Path) -> None:
    with mounted(tmp_path) as mount:
        (mount.device / "rw").write_text("1234")
        options = ("--mount", str(mount.root))
        assert shell(f"cat {DEVICE}/rw; echo 77 > {DEVICE}/rw", options=options) == "1234\n"
        assert (mount.device / "rw").read_text() == "77\n"


def test_a_relative_mount_below_run(tmp_path: Path) -> None:
    if not os.access("/run", os.W_OK):
        pytest.skip("/run is not writable")
    folder = Path(f"/run/fakesys-test-{os.getpid()}")
    folder.mkdir()
    try:
        with mounted(folder) as mount:
            done = subprocess.run(
                [sys.executable, "-m", "fakesys", "exec", "--mount", "mnt", "--", "id", "-u"],
                cwd=mount.root.parent,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
    finally:
        (folder / "mnt").rmdir()
        (folder / "daemon.log").unlink()
        folder.rmdir()


def test_nothing_is_left_after_kill(tmp_path: Path, prefix: tuple[str, ...]) -> None:
    before = host_view()
    mark = f"fakesys-test-{os.getpid()}-{time.monotonic_ns()}"
    # The scenario's path marks the daemon's command line too.
    scenario = Path("/tmp", f"{mark}.toml")
    scenario.write_text("selftest = true\n")
    scenario.chmod(0o644)
    script = "echo ready; sleep 60"
    command = exec_command("sh", "-c", script, scenario=str(scenario))
    try:
        with subprocess.Popen([*prefix, *command], stdout=subprocess.PIPE, cwd="/") as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            assert processes_with(mark)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            process.kill()
            for child in children.split():
                os.kill(int(child), signal.SIGKILL)
        wait_until(lambda: not processes_with(mark))
    finally:
        scenario.unlink()
    assert host_view() == before


def test_the_command_has_no_child_that_it_did_not_start() -> None:
    script = "import os\ntry:\n os.waitpid(-1, 0)\nexcept ChildProcessError:\n print('none')"
    done = fakesys_exec(sys.executable, "-c", script)
    assert done.stdout == "none\n"


def test_no_descriptor_is_handed_on() -> None:
    assert shell("ls /proc/self/fd").split() == ["0", "1", "2", "3"]


def test_many_at_once_do_not_meet() -> None:
    def script(number: int) -> str:
        return (
            f"echo {number} > {DEVICE}/rw; echo {number}.rules > /run/own; sleep 0.2;"
            f"cat {DEVICE}/rw /run/own"
        )

    running = [
        subprocess.Popen(
            exec_command("sh", "-ec", script(number)), stdout=subprocess.PIPE, text=True
        )
        for number in range(20)
    ]
    answers = [process.communicate(timeout=60)[0] for process in running]
    assert answers == [f"{number}\n{number}.rules\n" for number in range(20)]


def test_start_takes_less_than_a_second() -> None:
    def once() -> float:
        begin = time.monotonic()
        assert fakesys_exec("true").returncode == 0
        return time.monotonic() - begin

    # 0.6 s on an idle machine; the best of three, because this one may be busy.
    assert min(once() for _ in range(3)) < 1.0

"""The private world of `fakesys exec`: what is joined, what stays, what is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fakesys.execution.base import places
from fakesys.transport.fusepy import library
from fakesys.transport.mountinfo import mount_lines
from fakesys.transport.mounting import MountError
from tests.execution.helpers import (
    exec_command,
    fakesys_exec,
    killed_at_the_end,
    ordinary_user,
    shell,
)
from tests.mounts import COMMAND, fakesys, mounted, wait_until

DEVICE = "/sys/devices/virtual/selftest/selftest0"
CONTROL = "/sys/kernel/debug/fakesys"
# On these `fakesys exec` mounts something, in its private view.
MOUNT_POINTS = (
    "/",
    "/sys",
    "/sys/kernel/debug",
    "/sys/kernel/tracing",
    "/run",
    "/etc/mdevctl.d",
    "/etc/udev/rules.d",
    "/proc/cpuinfo",
    *map(str, places.KERNEL_SETTINGS),
)
# Below these directories it, or the command of a test, makes these files there.
NAMES = {
    "/run": ("fakesys", "x"),
    "/run/lock": ("y",),
    "/run/udev": ("control",),
    "/etc/mdevctl.d": ("scripts.d", "z"),
    "/etc/udev/rules.d": ("z",),
    "/sys/bus": ("ap", "matrix", "mdev", "selftest"),
    "/sys/class": ("mdev_bus", "selftest"),
}


def host_view() -> tuple[object, ...]:
    """What `fakesys exec` could have changed of the host; other programs may change the rest."""
    mounts = [
        line
        for line in mount_lines()
        if str(line.point) in MOUNT_POINTS or line.point.is_relative_to("/run/fakesys")
    ]
    paths = [Path(folder, name) for folder, names in NAMES.items() for name in names]
    return mounts, [path for path in paths if path.exists()]


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
    wait_until(lambda: host_view() == before, 20)


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_the_exit_status_is_passed_on(status: int) -> None:
    assert fakesys_exec("sh", "-c", f"exit {status}").returncode == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGPIPE])
def test_death_by_signal_is_passed_on(number: signal.Signals) -> None:
    assert fakesys_exec("sh", "-c", f"kill -{number.value} $$").returncode == -number


@pytest.mark.parametrize("options", [(), ("--net",)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_the_command(number: signal.Signals, options: tuple[str, ...]) -> None:
    name = number.name.removeprefix("SIG")
    script = f"trap 'exit 17' {name}; echo ready; while :; do sleep 0.01; done"
    command = exec_command("sh", "-c", script, options=options)
    with killed_at_the_end(subprocess.Popen(command, stdout=subprocess.PIPE)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.wait(60) == 17


def test_ctrl_c_ends_the_command_and_not_the_machine_under_it() -> None:
    """A terminal signals the whole process group; the daemon must outlive the command's own end."""
    script = f"trap 'cat {DEVICE}/rw; exit 130' INT; echo ready; while :; do sleep 0.01; done"
    started = subprocess.Popen(
        exec_command("sh", "-c", script, options=("--net",)),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with killed_at_the_end(started) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stdout.read() == "1500\n"


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


@pytest.mark.parametrize("name", ["ftrace_enabled", "kptr_restrict", "sched_rt_runtime_us"])
def test_settings_of_the_kernel_are_copies(prefix: tuple[str, ...], name: str) -> None:
    path = Path("/proc/sys/kernel", name)
    if not path.exists():
        pytest.skip(f"this kernel has no {name}")
    before = path.read_text()
    assert shell(f"cat {path}; echo 7 > {path}; cat {path}", prefix=prefix) == f"{before}7\n"
    assert path.read_text() == before


def test_mdevctl_finds_its_folders_empty() -> None:
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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may cover /proc/cpuinfo for the test")
@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        ("flags\t\t: fpu vme", "flags\t\t: fpu vme svm"),
        ("flags\t\t: fpu vmx", "flags\t\t: fpu vmx"),
    ],
)
def test_a_processor_without_virtualisation_gets_its_flag(
    tmp_path: Path, flags: str, shown: str
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\n{flags}\nprocessor\t: 1\n{flags}\n")
    command = " ".join(exec_command("cat", "/proc/cpuinfo"))
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"mount --bind {cpuinfo} /proc/cpuinfo && exec {command}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"processor\t: 0\n{shown}\nprocessor\t: 1\n{shown}\n"
    assert cpuinfo.read_text().count(flags + "\n") == 2


@pytest.mark.parametrize(
    ("options", "script", "said"),
    [
        (("--profile", "6.18"), f"cat {CONTROL}/profile", "[6.18]"),
        (("--preset", "empty"), "ls /sys/bus/ap/devices | wc -l", "0"),
        (("--preset", "full"), "ls /sys/devices/ap | grep -c card", "256"),
        (("--seed", "77"), f"cat {CONTROL}/seed", "77"),
        (("--clock-rate", "0"), f"cat {CONTROL}/clock/rate", "0"),
        (("--lockdown",), f"cat {CONTROL}/lockdown", "1"),
        (("--allow-other",), "stat -c %u /sys/bus/ap/apmask", "0"),
    ],
)
def test_every_option_of_a_machine(options: tuple[str, ...], script: str, said: str) -> None:
    assert said in shell(script, options=options, scenario="default").split()


def test_through_fusepy() -> None:
    try:
        library.load()
    except MountError as error:
        pytest.skip(str(error))
    script = f"cat {DEVICE}/rw; echo 1400 > {DEVICE}/rw; cat {DEVICE}/rw {CONTROL}/bugs"
    assert shell(script, options=("--transport", "fusepy")) == "1500\n1400\n0\n"


def test_the_log_of_the_daemon_goes_where_it_is_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = ("--log-level", "DEBUG", "--log-file", str(log))
    shell("true", options=options)
    assert log.exists()


def test_a_mount_of_an_ordinary_user(tmp_path: Path) -> None:
    prefix = ordinary_user()
    folder = Path(f"/tmp/fakesys-test-user-{os.getpid()}")
    folder.mkdir()
    folder.chmod(0o777)
    command = [*prefix, *COMMAND]
    try:
        point = folder / "mnt"
        subprocess.run([*prefix, "mkdir", str(point)], check=True)
        made = subprocess.run(
            [*command, "mount", str(point), "--scenario", "selftest"],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
        )
        if "fusermount3 is missing" in made.stderr:
            pytest.skip("ordinary users mount by fusermount3, which is not installed")
        assert made.returncode == 0, made.stderr
        try:
            said = shell(f"cat {DEVICE}/rw", options=("--mount", str(point)), prefix=prefix)
            assert said == "1500\n"
        finally:
            subprocess.run(
                [*command, "umount", str(point)],
                check=True,
                cwd="/",
                env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
                stdout=subprocess.DEVNULL,
            )
    finally:
        shutil.rmtree(folder)


def test_the_machine_of_an_existing_mount_goes_on(tmp_path: Path) -> None:
    """With events on a private network, whose sender ends with the command."""
    with mounted(tmp_path) as mount:
        options = ("--net", "--mount", str(mount.root))
        done = fakesys_exec("sh", "-c", "kill -9 $$", options=options)
        assert done.returncode == -signal.SIGKILL
        wait_until(lambda: not processes_with(f"--net --mount {mount.root}"))
        assert (mount.device / "rw").read_text() == "1500\n"


def test_an_existing_mount_is_shown(tmp_path: Path) -> None:
    with mounted(tmp_path) as mount:
        (mount.device / "rw").write_text("1234")
        options = ("--mount", str(mount.root))
        assert shell(f"cat {DEVICE}/rw; echo 77 > {DEVICE}/rw", options=options) == "1234\n"
        assert (mount.device / "rw").read_text() == "77\n"


LATE = "/sys/module/vfio_ap /sys/bus/matrix /sys/devices/vfio_ap"
# Waits until a command succeeds.
UNTIL = """
wait_for() { for _ in $(seq 200); do "$@" 2>/dev/null && return; sleep 0.02; done; false; }
"""


def test_a_module_that_goes_and_comes_again_is_seen(prefix: tuple[str, ...]) -> None:
    loaded = f"{CONTROL}/ap/vfio_ap_loaded"
    out = shell(
        f"""{UNTIL}
        gone() {{ for path in {LATE}; do [ ! -e $path ] || return 1; done; }}
        echo 0 > {loaded}; wait_for gone; ls /sys/module /sys/bus /sys/devices > /run/names
        if grep -E '^(vfio_ap|matrix)$' /run/names; then exit 1; fi
        echo 1 > {loaded}; wait_for test -e /sys/module/vfio_ap/initstate
        wait_for test -e /sys/devices/vfio_ap/matrix/uevent
        cat /sys/module/vfio_ap/initstate; readlink -f /sys/bus/matrix/devices/matrix
        """,
        scenario="default",
        prefix=prefix,
    )
    assert out.split() == ["live", "/sys/devices/vfio_ap/matrix"]


def test_a_module_that_is_loaded_later_is_seen(tmp_path: Path) -> None:
    with mounted(tmp_path, scenario="default") as mount:
        mount.command("ap/vfio_ap_loaded", "0")
        out = shell(
            f"""{UNTIL}
            ls -d {LATE} || echo none
            echo 1 > {CONTROL}/ap/vfio_ap_loaded
            wait_for test -e /sys/module/vfio_ap/initstate; cat /sys/module/vfio_ap/initstate
            """,
            options=("--mount", str(mount.root)),
        )
    assert out.split() == ["none", "live"]


@pytest.mark.parametrize("options", [(), ("--net",)])
def test_a_reset_gives_a_new_machine_in_the_same_world(options: tuple[str, ...]) -> None:
    out = shell(
        f"""{UNTIL}
        echo -5 > /sys/bus/ap/apmask; echo 5 > /sys/kernel/tracing/buffer_size_kb
        echo 1 > {CONTROL}/reset
        wait_for test -e /sys/bus/ap/apmask
        wait_for test -e /sys/kernel/tracing/trace_clock
        wait_for test -e /sys/devices/ap/card05/online
        wait_for test -d /sys/module/kvm_amd/parameters
        cat /sys/bus/ap/apmask; ls -d {LATE}
        echo -5 > /sys/bus/ap/apmask; ls /sys/bus/ap/drivers/vfio_ap | grep -c '^05'
        """,
        scenario="default",
        options=options,
    ).split()
    assert out[0] == "0x" + "f" * 64
    assert out[1:4] == sorted(LATE.split())
    assert out[4] == "4"


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


@pytest.mark.parametrize("options", [(), ("--net",)])
def test_nothing_is_left_after_kill(options: tuple[str, ...], prefix: tuple[str, ...]) -> None:
    before = host_view()
    mark = f"fakesys-test-{os.getpid()}-{time.monotonic_ns()}"
    # The scenario's path marks the daemon's command line too.
    scenario = Path("/tmp", f"{mark}.toml")
    scenario.write_text("selftest = true\n")
    scenario.chmod(0o644)
    script = "echo ready; sleep 60"
    command = exec_command("sh", "-c", script, scenario=str(scenario), options=options)
    try:
        started = subprocess.Popen([*prefix, *command], stdout=subprocess.PIPE, cwd="/")
        with killed_at_the_end(started) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            assert processes_with(mark)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            process.kill()
            for child in children.split():
                os.kill(int(child), signal.SIGKILL)
        wait_until(lambda: not processes_with(mark), 20)
    finally:
        scenario.unlink()
    wait_until(lambda: host_view() == before, 20)


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


def test_a_scenario_may_be_in_a_folder_that_the_view_replaces() -> None:
    """The machine is made among the files of the host, while these are covered for the command."""
    if not os.access("/run", os.W_OK):
        pytest.skip("/run is not writable")
    file = Path(f"/run/fakesys-test-{os.getpid()}.toml")
    file.write_text('profile = "6.1"\nselftest = true\n')
    try:
        done = fakesys_exec("sh", "-ec", f"cat {CONTROL}/profile; ls /run", scenario=str(file))
    finally:
        file.unlink()
    assert done.returncode == 0, done.stderr
    assert "[6.1]" in done.stdout.splitlines()[0]
    assert file.name not in done.stdout


def test_misc_devices_of_the_host_have_their_directories() -> None:
    if not Path("/sys/class/misc/fuse/dev").exists():
        pytest.skip("the host has no such class")
    assert shell("cat /sys/class/misc/fuse/dev /sys/class/misc/z90crypt/dev").splitlines() == [
        Path("/sys/class/misc/fuse/dev").read_text().strip(),
        "10:125",
    ]

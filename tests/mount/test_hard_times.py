"""Commands in bad surroundings: closed descriptors, full devices, daemons that do not answer or are
gone. Each ends within bounded time, with one line and an exit status.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fakesys.cli import failures
from fakesys.daemon import registry
from fakesys.transport import mounting, processes
from fakesys.transport.processes import Process
from tests.execution.helpers import why_no_world
from tests.mounts import COMMAND, Mount, fakesys, mounted, wait_until

SECONDS = 60.0
CLOSED = [(0,), (1,), (2,), (0, 1), (0, 1, 2)]
CONTROL = "sys/kernel/debug/fakesys"


def closing(
    descriptors: tuple[int, ...], *words: str, cwd: str = "/"
) -> subprocess.CompletedProcess[bytes]:
    """Run a command with some standard descriptors closed."""
    shut = " ".join(f"{number}>&-" for number in descriptors)
    line = f'exec "$@" {shut}'
    return subprocess.run(
        ["sh", "-c", line, "sh", *COMMAND, *words],
        capture_output=True,
        timeout=SECONDS,
        cwd=cwd,
        check=False,
    )


def line_of(done: subprocess.CompletedProcess[str], status: int = 1) -> str:
    """The one line of a command that failed."""
    assert done.returncode == status, done.stdout + done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("fakesys: ")
    return line


@pytest.mark.parametrize("descriptors", CLOSED)
def test_a_mount_with_closed_descriptors(point: Path, descriptors: tuple[int, ...]) -> None:
    words = ("mount", str(point), "--scenario", "selftest")
    assert closing(descriptors, *words).returncode == 0
    assert (point / CONTROL / "bugs").read_text().split()[0] == "0"
    for command in (("status",), ("umount", str(point))):
        done = closing(descriptors, *command)
        assert (done.returncode, done.stderr) == (0, b"")
    assert mounting.find(point) is None


@pytest.mark.skipif(why_no_world() is not None, reason="no private namespaces")
@pytest.mark.parametrize("descriptors", CLOSED)
def test_exec_with_closed_descriptors(descriptors: tuple[int, ...]) -> None:
    script = "cat /sys/devices/virtual/selftest/selftest0/rw > $0; exit 7"
    read, write = os.pipe()
    try:
        shut = " ".join(f"{number}>&-" for number in descriptors)
        line = f'exec "$@" {shut}'
        words = ("exec", "--scenario", "selftest", "--", "sh", "-c", script, f"/dev/fd/{write}")
        done = subprocess.run(
            ["sh", "-c", line, "sh", *COMMAND, *words],
            pass_fds=(write,),
            timeout=SECONDS,
            cwd="/",
            check=False,
        )
        os.set_blocking(read, False)
        assert (done.returncode, os.read(read, 100)) == (7, b"1500\n")
    finally:
        os.close(read)
        os.close(write)


@pytest.mark.parametrize("words", [("status",), ("status", "--json"), ("doc", "limits"), ("run",)])
def test_output_to_a_full_device(own_records: None, words: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    assert line_of(done).endswith("put: No space left on device")


def test_errors_to_a_full_device_have_their_status(own_records: None) -> None:
    with open("/dev/full", "w") as full:
        for words, status in ((("umount", "/"), 1), (("nonesuch",), 2)):
            done = subprocess.run([*COMMAND, *words], stderr=full, timeout=SECONDS, check=False)
            assert done.returncode == status


def test_without_a_runtime_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "absent"))
    done = fakesys("status")
    assert (done.returncode, done.stdout, done.stderr) == (0, "no mounts\n", "")
    assert "absent/fakesys: No such file" in line_of(fakesys("mount", str(point)))
    assert "has no fakesys mount" in line_of(fakesys("umount", str(point)))
    assert mounting.find(point) is None


def test_a_runtime_directory_that_takes_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: Path
) -> None:
    # Linux lets no user, root included, make files in /proc.
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/fakesys").symlink_to("/proc")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "odd"))
    for words in (("status",), ("mount", str(point))):
        assert "belongs to another user" in line_of(fakesys(*words))
    assert mounting.find(point) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
def test_a_full_disk_below_the_runtime_directory(tmp_path: Path) -> None:
    point = tmp_path / "mnt"
    point.mkdir()
    # The log fits, the entry does not: a page for the directory entries, none for contents.
    script = (
        "mount -t tmpfs -o size=4k none $0 && mkdir -m 700 $0/fakesys &&"
        '{ head -c 4096 /dev/zero > $0/filler; shift 0; XDG_RUNTIME_DIR=$0 exec "$@"; }'
    )
    for options in ((), ("--foreground",)):
        done = subprocess.run(
            [
                "unshare",
                "-m",
                "sh",
                "-c",
                script,
                str(tmp_path),
                *COMMAND,
                "mount",
                "/mnt",
                *options,
            ],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert "No space left on device" in line_of(done)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The process does nothing meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture
def silent(tmp_path: Path, own_records: None) -> Iterator[Mount]:
    """A mount whose daemon is alive, but does not answer."""
    with mounted(tmp_path) as mount, stopped(mount.pid):
        yield mount


def test_a_daemon_that_does_not_answer(silent: Mount, tmp_path: Path) -> None:
    root, begin = str(silent.root), time.monotonic()
    file = str(tmp_path / "x")
    for words in (
        ("snapshot", "save", file, "--mount", root),
        ("record", file, "--mount", root, "--", "true"),
        ("show", "kvm", "--mount", root),
    ):
        assert f"{root}: its daemon does not answer" in line_of(fakesys(*words))
    if why_no_world() is None:
        done = fakesys("exec", "--mount", root, "--", "true")
        assert "does not answer" in line_of(done, 125)
    done = fakesys("status", "--json")
    [state] = json.loads(done.stdout)
    assert (done.returncode, state["stale"], state["bugs"]) == (1, True, None)
    # Bounded, not quick: each asks for two seconds.
    assert time.monotonic() - begin < 2 * SECONDS


def test_a_mount_is_not_taken_from_a_daemon_that_is_slow(silent: Mount) -> None:
    before = mounting.find(silent.root)
    for options in ((), ("--foreground",)):
        done = fakesys("mount", str(silent.root), "--scenario", "selftest", *options)
        assert "mount already, whose daemon does not answer" in line_of(done)
    assert mounting.find(silent.root) == before
    assert [entry.pid for entry in registry.entries()] == [silent.pid]


def test_umount_says_that_a_stopped_daemon_does_not_end(
    point: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fakesys("mount", str(point), "--scenario", "selftest").returncode == 0
    [entry] = registry.entries()
    with stopped(entry.pid):
        done = fakesys("umount", str(point))
        assert f"(pid {entry.pid}) does not end; kill it" in line_of(done)
    with entry.process() as daemon:
        assert daemon.wait_gone(SECONDS)


def dead_mount(point: Path) -> registry.MountEntry:
    """Mount, and kill the daemon; return the entry that it has left."""
    assert fakesys("mount", str(point), "--scenario", "selftest").returncode == 0
    [entry] = registry.entries()
    Path(entry.log_file).write_text("the last words\n")
    os.kill(entry.pid, signal.SIGKILL)
    with entry.process() as daemon:
        assert daemon.wait_gone(SECONDS)
    wait_until(lambda: mounting.answer(point) is mounting.Answer.GONE)
    return entry


@contextmanager
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with a mount."""
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            yield process
        finally:
            process.kill()


def test_umount_of_a_dead_mount_spares_the_new_owner_of_the_pid(point: Path) -> None:
    entry = dead_mount(point)
    with stranger() as process:
        # As if the kernel had given it the old pid: same number, another start.
        registry.write(_with_pid(entry, process.pid))
        assert fakesys("umount", str(point)).returncode == 0
        assert process.poll() is None
    assert mounting.find(point) is None
    assert list(registry.folder().iterdir()) == []


def _with_pid(entry: registry.MountEntry, pid: int) -> registry.MountEntry:
    from msgspec.structs import replace

    return replace(entry, pid=pid)


def test_a_mount_removes_what_dead_daemons_have_left(point: Path, tmp_path: Path) -> None:
    entry = dead_mount(point)
    mounting.unmount(point, lazy=True)
    orphan = registry.log_path("0badcafe")
    orphan.write_text("of a daemon that never had an entry\n")
    starting = registry.log_path("00c0ffee")
    with starting.open("w") as log:
        registry.hold(log.fileno())
        assert fakesys("mount", str(point), "--scenario", "selftest").returncode == 0
        [now] = registry.entries()
        assert now.instance != entry.instance
        assert not orphan.exists()
        assert not Path(entry.log_file).exists()
        assert starting.exists()
    assert fakesys("umount", str(point)).returncode == 0


def test_a_process_is_its_pid_and_its_start() -> None:
    with stranger() as process:
        started = processes.start_time(process.pid)
        with Process(process.pid, started) as same, Process(process.pid, started - 1) as other:
            assert (same.wait_gone(0), other.wait_gone(0)) == (False, True)
            other.terminate()
            assert not same.wait_gone(0)
            same.terminate()
            assert same.wait_gone(SECONDS)
            same.terminate()
    assert processes.start_time(process.pid) == 0
    assert processes.start_time(os.getpid()) > 0


BROKEN = """
import sys
from fakesys import cli
def fail(**_): raise {error}
cli.cli.callback = fail
sys.argv = ["fakesys", "run"]
cli.main()
"""


@pytest.mark.parametrize(
    ("error", "line", "traceback"),
    [
        ("KeyError('x')", "internal error: KeyError: 'x' (traceback in ", True),
        ("OSError(5, 'I/O error', '/a')", "/a: I/O error", False),
        ("PermissionError('not yours')", "not yours", False),
        ("RecursionError('two\\nlines')", "internal error: RecursionError: two (traceback", True),
    ],
)
def test_no_traceback_reaches_a_user(
    tmp_path: Path, error: str, line: str, traceback: bool
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BROKEN.format(error=error)],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert line_of(done).startswith(f"fakesys: {line}")
    files = list(tmp_path.iterdir())
    assert len(files) == traceback
    if traceback:
        assert str(files[0]) in done.stderr
        assert "in fail" in files[0].read_text()


def test_a_traceback_that_cannot_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    line = failures.line_about(KeyError("x"))
    assert line == "internal error: KeyError: 'x' (its traceback cannot be kept: " + (
        "No space left on device)"
    )


# Stops in an import that the command needs before anything else.
SLOW_IMPORT = """
import sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            print("importing", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Slow())
"""


@pytest.mark.parametrize("ignored", [False, True])
def test_ctrl_c_while_modules_are_imported(tmp_path: Path, ignored: bool) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_IMPORT)
    path = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", os.getcwd())))
    words = [*COMMAND, "status"]
    command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *words] if ignored else words
    with subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == b"importing\n"
            process.send_signal(signal.SIGINT)
            if ignored:
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.2)
                return
            assert process.wait(SECONDS) == -signal.SIGINT
            assert process.stderr.read() == b""
        finally:
            process.kill()

"""`fakesys snapshot` on real mounts: taken under load, loaded elsewhere, refused, with readers."""

from __future__ import annotations

import json
import os
import re
import select
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.mounts import Mount, fakesys, has_open, mounted

TRACING = "sys/kernel/tracing"
# Reading there waits, takes away, or tells of this very mount.
LEFT_OUT = {
    "trace_pipe",
    "trace_pipe_raw",
    "uevents_pipe",
    "log_pipe",
    "kmsg",
    "snapshot",
    "writes",
    "writers",
}
OWN = {"now", "requests"}
WRITERS = 8
SECONDS = 60.0

# One of the writers: it writes for as long as its standard input is open.
WRITER = """
import os, random, select, sys
root, number = sys.argv[1], int(sys.argv[2])
chance = random.Random(number)
matrix = f"{root}/sys/devices/vfio_ap/matrix"
ctl = f"{root}/sys/kernel/debug/fakesys/kvm/ctl"
tracing = f"{root}/sys/kernel/tracing"
uuid = f"{number}0000000-0000-4000-8000-00000000000%d"
created = f"{matrix}/mdev_supported_types/vfio_ap-passthrough/create"
choices = [
    lambda: (created, uuid % chance.randrange(3)),
    lambda: (f"{matrix}/{uuid % chance.randrange(3)}/assign_adapter", chance.choice("456")),
    lambda: (f"{matrix}/{uuid % chance.randrange(3)}/assign_domain", str(chance.choice((4, 71)))),
    lambda: (f"{matrix}/{uuid % chance.randrange(3)}/remove", "1"),
    lambda: (f"{root}/sys/bus/ap/apmask", chance.choice("+-") + str(chance.choice((4, 5, 6)))),
    lambda: (ctl, f"vm create g{number} pid={4194000 + number}"),
    lambda: (ctl, f"g{number} vcpu add"),
    lambda: (ctl, f"g{number} mem ram size=16M"),
    lambda: (ctl, f"g{number} slot 0 gpa=0 size=16M mem=ram flags={chance.choice((0, 1))}"),
    lambda: (ctl, f"g{number} vcpu 0 access w {chance.randrange(16) << 20} n=40"),
    lambda: (ctl, f"g{number} vcpu 0 ipi dst=1 vec=0x40"),
    lambda: (ctl, f"vm destroy g{number}") if chance.random() < 0.1 else (ctl, "nonsense"),
    lambda: (f"{tracing}/trace_marker", f"writer {number}"),
    lambda: (f"{tracing}/events/kvm/kvm_exit/filter", f"exit_reason != {chance.randrange(90)}"),
    lambda: (f"{tracing}/events/kvm/enable", chance.choice("01")),
    lambda: (f"{tracing}/buffer_size_kb", str(chance.randrange(16, 64))),
]
while not select.select([sys.stdin], [], [], 0)[0]:
    path, text = chance.choice(choices)()
    try:
        with open(path, "w") as file:
            file.write(text + "\\n")
    except OSError:
        pass
"""


@contextmanager
def writers(root: Path, count: int) -> Iterator[None]:
    """So many processes that change everything all the time."""
    command = [sys.executable, "-c", WRITER, str(root)]
    processes = [
        subprocess.Popen([*command, str(number + 1)], stdin=subprocess.PIPE)
        for number in range(count)
    ]
    try:
        yield
    finally:
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS)
            process.kill()
            process.wait()


def everything(root: Path) -> dict[str, object]:
    """Names of each directory, target of each link, mode and text of each readable file."""
    found: dict[str, object] = {}
    for folder, directories, names in os.walk(root):
        here = os.path.relpath(folder, root)
        found[f"{here}/"] = sorted([*directories, *names])
        for name in [*directories, *names]:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                found[f"{here}/{name}"] = os.readlink(path)
            elif name in names:
                found[f"{here}/{name}"] = _file(path, name)
    return found


def _file(path: str, name: str) -> object:
    mode = stat.S_IMODE(os.lstat(path).st_mode)
    if name in LEFT_OUT or name in OWN:
        return oct(mode)
    try:
        with open(path, "rb") as file:
            return oct(mode), file.read()
    except OSError as error:
        return oct(mode), error.errno


def stream(path: Path) -> bytes:
    """What a stream file has now."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    data = b""
    try:
        while piece := os.read(descriptor, 1 << 20):
            data += piece
    except BlockingIOError:
        pass
    finally:
        os.close(descriptor)
    return data


def entries_written(tracing: Path) -> int:
    """How many events the buffer has ever taken, as the header of `trace` says."""
    header = re.search(r"entries-written: \d+/(\d+)", (tracing / "trace").read_text())
    assert header is not None
    return int(header[1])


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Mount, Mount]]:
    """A mount whose time stands still and a fresh one of another kind."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    still = ("--clock-rate", "0")
    with (
        mounted(tmp_path / "one", *still, scenario="default") as one,
        mounted(tmp_path / "other", "--profile", "6.18", scenario="empty") as other,
    ):
        yield one, other


def save(mount: Mount, file: Path) -> dict[str, object]:
    """By the command; what the file holds."""
    done = fakesys("snapshot", "save", str(file), "--mount", str(mount.root))
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(file.read_text())
    return found


def load(mount: Mount, file: Path) -> subprocess.CompletedProcess[str]:
    return fakesys("snapshot", "load", str(file), "--mount", str(mount.root))


def test_a_snapshot_taken_under_load(pair: tuple[Mount, Mount], tmp_path: Path) -> None:
    one, other = pair
    file = tmp_path / "state.json"
    one.command("clock/advance", "5")
    # An instance of its own: what the writers trace may push their markers out of the main buffer.
    (one.root / TRACING / "instances/kept").mkdir()
    (one.root / TRACING / "instances/kept/trace_marker").write_text("kept\n")
    with writers(one.root, WRITERS):
        deadline = time.monotonic() + SECONDS
        while entries_written(one.root / TRACING) < 500:
            assert time.monotonic() < deadline
        saved = save(one, file)
    # The writers went on meanwhile; the file is one moment, whole.
    assert load(other, file).returncode == 0
    assert json.loads((other.control / "state").read_text()) == saved["state"]
    assert load(one, file).returncode == 0
    left, right = everything(one.root), everything(other.root)
    assert left.keys() == right.keys()
    assert [path for path in left if left[path] != right[path]] == []
    assert len(left) > 1500
    assert b": kept\n" in (other.root / TRACING / "instances/kept/trace").read_bytes()
    for name in ("sys/kernel/debug/fakesys/uevents_pipe", "sys/kernel/debug/fakesys/log_pipe",
                 f"{TRACING}/trace_pipe"):  # fmt: skip
        assert stream(one.root / name) == stream(other.root / name)
    # Both go on alike.
    for mount in pair:
        mount.command("clock/advance", "61")
        mount.command("kvm/ctl", "vm create new pid=4194100")
        mount.command("kvm/ctl", "new vcpu add count=2")
    left, right = everything(one.root), everything(other.root)
    assert [path for path in left | right if left.get(path) != right.get(path)] == []


def test_what_the_command_refuses(tmp_path: Path, shared_mount: Mount) -> None:
    file = tmp_path / "x.json"
    # No scan of a bus may count itself meanwhile.
    shared_mount.command("clock/rate", "0")
    save(shared_mount, file)
    data = file.read_bytes()
    before = (shared_mount.control / "state").read_bytes()
    for wrong, reason in (
        (data[: len(data) // 2], "a snapshot that is cut off: its last line is missing"),
        (data[:100], "a snapshot that is cut off"),
        (data.replace(b'"clock"', b'"klock"', 1), "its checksum is wrong"),
        (b"hello\n", "no snapshot of fakesys"),
        (b"", "no snapshot of fakesys"),
    ):
        file.write_bytes(wrong)
        done = load(shared_mount, file)
        assert done.returncode == 1
        assert done.stderr.startswith(f"fakesys: {file}: ")
        assert reason in done.stderr
        assert done.stderr.count("\n") == 1
    assert (shared_mount.control / "state").read_bytes() == before
    shared_mount.command("clock/rate", "1")
    missing = tmp_path / "none" / "x.json"
    for command in ("save", "load"):
        done = fakesys("snapshot", command, str(missing), "--mount", str(shared_mount.root))
        assert (done.returncode, done.stderr) == (
            1,
            f"fakesys: {missing}: No such file or directory\n",
        )
        done = fakesys("snapshot", command, str(file), "--mount", str(tmp_path))
        assert done.returncode == 1 or command == "load"
        done = fakesys("snapshot", command)
        assert done.returncode == 2
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_refusal_of_the_daemon_is_said(tmp_path: Path, shared_mount: Mount) -> None:
    """A file that the command takes, as its head is right, but in which a value is wrong."""
    import hashlib

    file = tmp_path / "x.json"
    save(shared_mount, file)
    text = file.read_bytes().rpartition(b'"sha256"')[0].replace(b'"index":', b'"index":9', 1)
    file.write_bytes(text + f'"sha256":"{hashlib.sha256(text).hexdigest()}"}}\n'.encode())
    done = load(shared_mount, file)
    assert done.returncode == 1
    assert "no usable snapshot" in done.stderr
    assert "Expected `int` <= 624 - at `$.models.kernel.random.index`" in done.stderr


def test_save_to_a_pipe_and_load_with_cat(tmp_path: Path, shared_mount: Mount) -> None:
    done = subprocess.run(
        ["sh", "-c", f"cat {shared_mount.control}/snapshot > x; cat x > $1", "sh",
         str(shared_mount.control / "snapshot")],
        cwd=tmp_path, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    (tmp_path / "cut").write_bytes((tmp_path / "x").read_bytes()[:-20])
    subprocess.run(["cp", "cut", str(shared_mount.control / "snapshot")], cwd=tmp_path, check=True)
    assert "cut off" in (shared_mount.control / "last_error").read_text()


def test_only_the_owner_of_the_mount_may(shared_mount: Mount) -> None:
    status = (shared_mount.control / "snapshot").stat()
    assert stat.S_IMODE(status.st_mode) == 0o600


def test_who_reads_meanwhile(mount: Mount, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    save(mount, file)
    waiting = {
        name: subprocess.Popen(["cat", str(mount.root / name)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
        for name in (f"{TRACING}/trace_pipe", "sys/kernel/debug/fakesys/log_pipe")
    }  # fmt: skip
    try:
        deadline = time.monotonic() + SECONDS
        while not all(has_open(process.pid, name) for name, process in waiting.items()):
            assert time.monotonic() < deadline
        assert load(mount, file).returncode == 0
        pipe = waiting[f"{TRACING}/trace_pipe"]
        _, error = pipe.communicate(timeout=SECONDS)
        assert pipe.returncode == 1
        assert b"Input/output error" in error
        assert waiting["sys/kernel/debug/fakesys/log_pipe"].poll() is None
        # The clients of the new machine are served: time goes on, events come.
        (mount.root / TRACING / "trace_marker").write_text("after\n")
        assert b"after" in stream(mount.root / TRACING / "trace_pipe")
    finally:
        for process in waiting.values():
            process.kill()
            process.communicate(timeout=SECONDS)


def test_time_goes_on_after_a_load(mount: Mount, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    mount.command("clock/advance", "1000")
    save(mount, file)
    mount.command("reset")
    assert float((mount.control / "clock/now").read_text()) < 500
    assert load(mount, file).returncode == 0
    deadline = time.monotonic() + SECONDS
    first = float((mount.control / "clock/now").read_text())
    # Neither the time of this machine nor the sum of both.
    assert 1000 <= first < 1500
    while float((mount.control / "clock/now").read_text()) <= first:
        assert time.monotonic() < deadline
    mount.command("clock/rate", "100")
    now = float((mount.control / "clock/now").read_text())
    while float((mount.control / "clock/now").read_text()) < now + 10:
        assert time.monotonic() < deadline


@pytest.mark.differs_on_fusepy("fusepy has no poll: its files are always ready")
def test_pollers_look_again(mount: Mount, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    save(mount, file)
    descriptor = os.open(mount.root / TRACING / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        assert poller.poll(0) == []
        assert load(mount, file).returncode == 0
        ((_, events),) = poller.poll(SECONDS * 1000)
        assert events & select.POLLERR
    finally:
        os.close(descriptor)

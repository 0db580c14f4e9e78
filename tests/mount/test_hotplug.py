"""What comes and goes is seen by the very next call, in both ways of telling clients."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EIO, ENODEV
from pathlib import Path

import pytest

from tests.long import LONG
from tests.mounts import Mount

# Keeps names and attributes of the device in the kernel's caches, as fast as it can.
WALKER = """
import os, sys
while True:
    for folder, _, names in os.walk(sys.argv[1]):
        for name in names:
            try:
                os.lstat(os.path.join(folder, name))
            except OSError:
                pass
"""


@contextmanager
def walkers(folder: Path, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """So many processes that walk a tree all the time."""
    processes = [
        subprocess.Popen([sys.executable, "-c", WALKER, str(folder)]) for _ in range(count)
    ]
    try:
        yield processes
        assert all(process.poll() is None for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.wait(10)


def there(path: Path) -> bool:
    """One lstat(2)."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


@pytest.mark.parametrize(("rounds", "count"), [(150, 2), (60, 4)] if LONG else [(40, 2), (20, 4)])
def test_the_next_stat_knows_while_others_walk(each_way: Mount, rounds: int, count: int) -> None:
    mount = each_way
    seen = [
        mount.device,
        mount.device / "rw",
        mount.root / "sys/bus/selftest/devices/selftest0",
        mount.root / "sys/kernel/debug/selftest/rw",
    ]
    late = stale = 0
    with walkers(mount.root / "sys/devices", count):
        for _ in range(rounds):
            mount.command("selftest/remove")
            stale += sum(there(path) for path in seen)
            mount.command("selftest/create")
            late += sum(not there(path) for path in seen)
    assert (late, stale) == (0, 0)


def test_link_counts_follow(each_way: Mount) -> None:
    parent = each_way.device.parent
    held = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        before = os.fstat(held).st_nlink
        each_way.command("selftest/remove")
        assert os.fstat(held).st_nlink == before - 1
        assert os.stat(parent).st_nlink == before - 1
        each_way.command("selftest/create")
        assert os.fstat(held).st_nlink == before
    finally:
        os.close(held)


def test_a_held_sysfs_descriptor_is_dead_after_unplug_for_good(each_way: Mount) -> None:
    descriptor = os.open(each_way.device / "rw", os.O_RDWR)
    try:
        each_way.command("selftest/remove")
        for call in (lambda: os.pread(descriptor, 9, 0), lambda: os.write(descriptor, b"1\n")):
            with pytest.raises(OSError) as refusal:
                call()
            assert refusal.value.errno == ENODEV
        each_way.command("selftest/create")
        with pytest.raises(OSError) as refusal:
            os.pread(descriptor, 9, 0)
        assert refusal.value.errno == ENODEV
        assert (each_way.device / "rw").read_text() == "1500\n"
    finally:
        os.close(descriptor)


def test_a_held_debugfs_descriptor_says_eio(each_way: Mount) -> None:
    descriptor = os.open(each_way.root / "sys/kernel/debug/selftest/rw", os.O_RDWR)
    try:
        each_way.command("selftest/remove")
        with pytest.raises(OSError) as refusal:
            os.read(descriptor, 9)
        assert refusal.value.errno == EIO
    finally:
        os.close(descriptor)


@pytest.mark.differs_on_fusepy("libfuse asks by path: fstat(2) finds what has the name now")
@pytest.mark.parametrize(
    ("path", "links"),
    [("sys/devices/virtual/selftest/selftest0/rw", 1), ("sys/kernel/debug/selftest/rw", 0)],
)
def test_status_of_a_held_descriptor_is_that_of_the_old_file(
    each_way: Mount, path: str, links: int
) -> None:
    descriptor = os.open(each_way.root / path, os.O_RDWR)
    try:
        number = os.fstat(descriptor).st_ino
        each_way.command("selftest/remove")
        assert os.fstat(descriptor).st_nlink == links
        each_way.command("selftest/create")
        assert os.fstat(descriptor).st_nlink == links
        assert os.fstat(descriptor).st_ino == number != os.stat(each_way.root / path).st_ino
    finally:
        os.close(descriptor)


def test_a_working_directory_survives_what_happens_elsewhere(each_way: Mount) -> None:
    folder = each_way.root / "sys/bus/selftest/devices"
    script = (
        f"cd {folder} && ls >/dev/null && echo 1 > {each_way.control}/selftest/remove"
        f" && ls && echo 1 > {each_way.control}/selftest/create && ls && /bin/pwd"
    )
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=10)
    assert (done.stdout, done.stderr) == (f"selftest0\n{folder}\n", "")


def test_a_removed_working_directory_is_empty(each_way: Mount) -> None:
    script = (
        f"cd {each_way.device} && ls >/dev/null && echo 1 > {each_way.control}/selftest/remove;"
        "ls | wc -l; cat rw"
    )
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=10)
    assert done.stdout == "0\n"
    assert "No such file or directory" in done.stderr


def test_a_reset_is_seen_at_once(each_way: Mount) -> None:
    (each_way.device / "rw").write_text("1400\n")
    assert (each_way.device / "rw").read_text() == "1400\n"
    each_way.command("reset")
    assert (each_way.device / "rw").read_text() == "1500\n"
    each_way.command("selftest/remove")
    assert not there(each_way.device)

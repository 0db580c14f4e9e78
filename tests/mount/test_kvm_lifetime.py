"""What keeps a VM and its directory, seen through a real mount."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EACCES, EIO, EPERM, ESPIPE
from pathlib import Path

import pytest

from tests.mounts import Mount

SECONDS = 10.0
KVM = "sys/kernel/debug/kvm"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def vm_directory(mount: Mount, name: str, **options: object) -> Path:
    """Make a VM; its directory below debug/kvm."""
    before = set((mount.root / KVM).iterdir())
    words = " ".join(f"{key}={value}" for key, value in options.items())
    mount.command("kvm/ctl", f"vm create {name} {words}")
    (made,) = (entry for entry in (mount.root / KVM).iterdir() if entry not in before)
    return made


@contextmanager
def living_process() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_writer_owns_the_vm(mount: Mount) -> None:
    assert vm_directory(mount, "a").name == f"{os.getpid()}-10"
    assert vm_directory(mount, "b").name == f"{os.getpid()}-11"
    assert vm_directory(mount, "c", pid=4194304, fd=7).name == "4194304-7"


def test_an_open_stat_file_keeps_the_vm(mount: Mount) -> None:
    directory = vm_directory(mount, "a")
    descriptor = os.open(directory / "exits", os.O_RDONLY)
    try:
        mount.command("kvm/ctl", "vm destroy a")
        assert directory.is_dir()
        assert os.read(descriptor, 100) == b"0\n"
    finally:
        os.close(descriptor)
    wait_for(lambda: not directory.exists())
    assert directory.name not in os.listdir(mount.root / KVM)


def test_an_open_vcpu_file_does_not(mount: Mount) -> None:
    directory = vm_directory(mount, "a")
    mount.command("kvm/ctl", "a vcpu add")
    descriptor = os.open(directory / "vcpu0" / "tsc-offset", os.O_RDONLY)
    try:
        mount.command("kvm/ctl", "vm destroy a")
        assert not directory.exists()
        with pytest.raises(OSError) as refusal:
            os.read(descriptor, 100)
        assert refusal.value.errno == EIO
    finally:
        os.close(descriptor)


def test_a_closed_vcpu_keeps_its_directory(mount: Mount) -> None:
    directory = vm_directory(mount, "a")
    mount.command("kvm/ctl", "a vcpu add count=2")
    before = (directory / "vcpu1" / "tsc-offset").read_text()
    mount.command("kvm/ctl", "a vcpu 1 close")
    assert (directory / "vcpu1" / "tsc-offset").read_text() == before


def test_vcpus_keep_a_vm_whose_descriptor_is_closed(mount: Mount) -> None:
    directory = vm_directory(mount, "a")
    mount.command("kvm/ctl", "a vcpu add")
    mount.command("kvm/ctl", "vm close a")
    assert directory.is_dir()
    mount.command("kvm/ctl", "a vcpu 0 close")
    assert not directory.exists()


def test_a_vm_ends_with_its_owner(mount: Mount) -> None:
    with living_process() as owner:
        directory = vm_directory(mount, "a", pid=owner.pid)
        kept = vm_directory(mount, "b")
        mount.command("kvm/ctl", "a vcpu add count=3")
        assert os.listdir(directory)
        owner.kill()
        wait_for(lambda: not directory.exists())
        assert kept.is_dir()
    assert mount.bugs() == 0


def test_an_open_stat_file_outlives_the_owner(mount: Mount) -> None:
    with living_process() as owner:
        directory = vm_directory(mount, "a", pid=owner.pid)
        with (directory / "exits").open() as file:
            owner.kill()
            owner.wait()
            wait_for(lambda: not (mount.control / "kvm/vms/a").exists())
            assert directory.is_dir()
            assert file.read() == "0\n"
        wait_for(lambda: not directory.exists())


def test_the_owner_may_end_after_the_vm(mount: Mount) -> None:
    with living_process() as owner:
        directory = vm_directory(mount, "a", pid=owner.pid)
        mount.command("kvm/ctl", "vm destroy a")
        assert not directory.exists()
        again = vm_directory(mount, "a")
        owner.kill()
        owner.wait()
        assert again.is_dir()
    assert mount.bugs() == 0


def test_stat_files_cannot_be_sought(mount: Mount) -> None:
    descriptor = os.open(mount.root / KVM / "exits", os.O_RDWR)
    try:
        with pytest.raises(OSError) as refusal:
            os.lseek(descriptor, 0, os.SEEK_SET)
        assert refusal.value.errno == ESPIPE
        with pytest.raises(OSError) as refusal:
            os.pread(descriptor, 10, 0)
        assert refusal.value.errno == ESPIPE
        assert os.read(descriptor, 1) == b"0"
        assert os.read(descriptor, 10) == b"\n"
        assert os.read(descriptor, 10) == b""
    finally:
        os.close(descriptor)


def test_nothing_can_be_made_or_removed(mount: Mount) -> None:
    directory = vm_directory(mount, "a")
    for attempt, errno in (
        (lambda: os.mkdir(directory / "new"), EPERM),
        (lambda: os.rmdir(directory), EPERM),
        (lambda: os.unlink(directory / "exits"), EPERM),
        (lambda: os.open(directory / "new", os.O_CREAT | os.O_WRONLY), EACCES),
    ):
        with pytest.raises(OSError) as refusal:
            attempt()
        assert refusal.value.errno == errno


def test_links_count_directories(mount: Mount) -> None:
    directory = vm_directory(mount, "a")
    assert directory.stat().st_nlink == 2
    mount.command("kvm/ctl", "a vcpu add count=3")
    assert directory.stat().st_nlink == 5
    # What root owns belongs to who mounted.
    owner = directory.stat().st_uid
    assert (directory.stat().st_mode & 0o777, owner) == (0o755, os.geteuid())
    assert (directory / "exits").stat().st_size == 0

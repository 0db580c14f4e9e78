"""The calls by path that a library asks for, without a library."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from errno import EACCES, EAGAIN, EEXIST, EINVAL, EISDIR, ENODATA, ENODEV, ENOENT, ENOTDIR, EPERM
from typing import Any

import pytest

from fakesys.core.errors import Blocked, KernelError
from fakesys.machine.machine import Machine
from fakesys.transport.fusepy.open_files import OpenDirectories, OpenFiles
from fakesys.transport.fusepy.paths import UNCHANGED, UTIME_NOW, UTIME_OMIT, PathCalls

DEVICE = "/sys/devices/virtual/selftest/selftest0"
RW = f"{DEVICE}/rw"
SEQ = "/sys/kernel/debug/selftest/seq"
STREAM = "/sys/kernel/debug/fakesys/uevents_pipe"


@pytest.fixture
def machine() -> Machine:
    return Machine(scenario="selftest")


@pytest.fixture
def paths(machine: Machine) -> PathCalls:
    return PathCalls(machine.fs, owner=(7, 8))


@pytest.fixture
def files(machine: Machine) -> OpenFiles:
    return OpenFiles(machine.fs, owner=(7, 8))


@pytest.fixture
def directories(machine: Machine) -> OpenDirectories:
    return OpenDirectories(machine.fs)


def refusal(call: Callable[..., Any], *arguments: object) -> int:
    with pytest.raises(KernelError) as error:
        call(*arguments)
    return error.value.errno or 0


def test_status_is_that_of_the_node_and_root_is_who_mounted(paths: PathCalls) -> None:
    status = paths.status(RW)
    assert status["st_mode"] == stat.S_IFREG | 0o644
    assert (status["st_uid"], status["st_gid"], status["st_size"]) == (7, 8, 4096)
    assert paths.status(DEVICE)["st_nlink"] > 2
    assert stat.S_ISLNK(paths.status(f"{DEVICE}/subsystem")["st_mode"])
    assert refusal(paths.status, f"{DEVICE}/absent") == ENOENT
    assert refusal(paths.status, f"{RW}/x") == ENOTDIR


def test_settings_of_a_node_show_in_its_status(paths: PathCalls) -> None:
    paths.chmod(RW, stat.S_IFREG | 0o600)
    paths.chown(RW, 1, UNCHANGED)
    paths.chown(RW, UNCHANGED, 2)
    paths.set_times(RW, 5, UTIME_OMIT)
    status = paths.status(RW)
    assert (status["st_mode"] & 0o777, status["st_uid"], status["st_gid"]) == (0o600, 1, 2)
    assert status["st_atime"] == 5 < status["st_mtime"]
    before = status["st_mtime"]
    paths.set_times(RW, UTIME_OMIT, UTIME_NOW)
    assert paths.status(RW)["st_atime"] == 5
    assert paths.status(RW)["st_mtime"] >= before


def test_size_sticks_where_the_file_system_keeps_it(paths: PathCalls, files: OpenFiles) -> None:
    paths.truncate(RW, 1)
    assert paths.status(RW)["st_size"] == 4096
    number = files.open(SEQ, os.O_RDWR).number
    files.truncate(number, 9)
    assert paths.status(SEQ)["st_size"] == 9
    assert refusal(paths.truncate, DEVICE, 1) == EISDIR


def test_links(paths: PathCalls) -> None:
    assert paths.readlink(f"{DEVICE}/subsystem") == "../../../../bus/selftest"
    assert refusal(paths.readlink, RW) == EINVAL


def test_a_file_is_read_and_written_by_number(paths: PathCalls, files: OpenFiles) -> None:
    number, seekable = files.open(RW, os.O_RDWR)
    assert seekable
    assert files.read(number, 100, 0, 0) == b"1500\n"
    assert files.write(number, b"1400\n", 5, 0) == 5
    assert files.write(number, b"1401\n", 4096, os.O_APPEND) == 5
    assert files.read(number, 2, 2, 0) == b"01"
    assert files.read(number, 100, 0, 0) == b"1401\n"
    assert refusal(files.write, number, b"abc", 0, 0) == EINVAL
    files.fsync(number)
    files.release(number)
    assert len(files) == 0
    assert not files.open("/sys/kernel/debug/selftest/rw", os.O_RDONLY).seekable
    assert refusal(files.open, DEVICE, os.O_RDONLY) == EISDIR
    assert refusal(files.open, f"{DEVICE}/ro", os.O_WRONLY) == EACCES


def test_who_holds_a_file_keeps_the_old_one(machine: Machine, files: OpenFiles) -> None:
    number = files.open(RW, os.O_RDWR).number
    for step in ("remove", "create"):
        machine.write(f"sys/kernel/debug/fakesys/selftest/{step}", "1")
        assert refusal(files.read, number, 9, 0, 0) == ENODEV
    assert files.read(files.open(RW, os.O_RDONLY).number, 9, 0, 0) == b"1500\n"


def test_where_a_file_ends_is_asked_of_the_open_one(files: OpenFiles) -> None:
    assert files.status(files.open(RW, os.O_RDONLY).number)["st_size"] == 4096
    assert refusal(files.status, files.open(SEQ, os.O_RDONLY).number) == EINVAL


def test_a_stream_blocks_unless_it_is_told_not_to(files: OpenFiles) -> None:
    number = files.open(STREAM, os.O_RDONLY).number
    assert files.read(number, 1 << 20, 0, os.O_NONBLOCK).startswith(b"ACTION=")
    assert refusal(files.read, number, 4096, 0, os.O_NONBLOCK) == EAGAIN
    with pytest.raises(Blocked):
        files.read(number, 4096, 0, 0)


def test_directories_list_what_is_there_now(
    machine: Machine, paths: PathCalls, directories: OpenDirectories
) -> None:
    number = directories.open("/sys/bus/selftest/devices")
    assert [name for name, _ in directories.entries(number)] == [".", "..", "selftest0"]
    entry = dict(directories.entries(number))["selftest0"]
    assert entry["st_ino"] == paths.status("/sys/bus/selftest/devices/selftest0")["st_ino"]
    assert stat.S_ISLNK(entry["st_mode"])
    machine.write("sys/kernel/debug/fakesys/selftest/remove", "1")
    assert [name for name, _ in directories.entries(number)] == [".", ".."]
    assert refusal(directories.fsync, number) == EINVAL
    directories.release(number)
    directories.fsync(directories.open("/sys/kernel/debug"))
    assert refusal(directories.open, "/sys/kernel/debug/fakesys/bugs") == ENOTDIR


def test_names_are_not_to_be_made_or_removed(paths: PathCalls) -> None:
    new = f"{DEVICE}/new"
    assert refusal(paths.create, new) == EACCES
    assert refusal(paths.create, RW) == EEXIST
    assert refusal(paths.make_other, new) == EPERM
    assert refusal(paths.mkdir, new) == EPERM
    assert refusal(paths.rmdir, f"{DEVICE}/power") == EPERM
    assert refusal(paths.rmdir, RW) == ENOTDIR
    assert refusal(paths.unlink, RW) == EPERM
    assert refusal(paths.unlink, DEVICE) == EISDIR
    assert refusal(paths.rename, RW) == EPERM
    assert refusal(paths.rename, new) == ENOENT


def test_instances_of_tracefs_are(paths: PathCalls, directories: OpenDirectories) -> None:
    paths.mkdir("/sys/kernel/tracing/instances/mine")
    assert "trace_pipe" in dict(
        directories.entries(directories.open("/sys/kernel/tracing/instances/mine"))
    )
    paths.rmdir("/sys/kernel/tracing/instances/mine")
    assert refusal(paths.status, "/sys/kernel/tracing/instances/mine") == ENOENT


def test_extended_attributes(paths: PathCalls) -> None:
    paths.setxattr(RW, "trusted.x", b"1")
    assert paths.getxattr(RW, "trusted.x") == b"1"
    assert paths.listxattr(RW) == ["trusted.x"]
    assert paths.listxattr(RW, 1000) == []
    paths.setxattr(RW, "security.x", b"2")
    assert paths.listxattr(RW, 1000) == ["security.x"]
    paths.removexattr(RW, "security.x")
    paths.removexattr(RW, "trusted.x")
    assert refusal(paths.getxattr, RW, "trusted.x") == ENODATA
    assert paths.listxattr(RW) == []


def test_statfs_has_no_blocks_and_names_of_255_bytes(paths: PathCalls) -> None:
    assert paths.statfs() == {"f_bsize": 4096, "f_frsize": 4096, "f_namemax": 255}


def test_handles_are_let_go_when_the_mount_is_gone(
    files: OpenFiles, directories: OpenDirectories
) -> None:
    files.open(RW, os.O_RDONLY)
    directories.open(DEVICE)
    assert (len(files), len(directories)) == (1, 1)
    files.close_all()
    directories.close_all()
    assert (len(files), len(directories)) == (0, 0)

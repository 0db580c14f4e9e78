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
from fakesys.transport.fusepy.paths import UNCHANGED, UTIME_NOW, UTIME_OMIT, Paths

DEVICE = "/sys/devices/virtual/selftest/selftest0"
RW = f"{DEVICE}/rw"
SEQ = "/sys/kernel/debug/selftest/seq"
STREAM = "/sys/kernel/debug/fakesys/uevents"


@pytest.fixture
def machine() -> Machine:
    return Machine(scenario="selftest")


@pytest.fixture
def paths(machine: Machine) -> Paths:
    return Paths(machine.fs, owner=(7, 8))


def refusal(call: Callable[..., Any], *arguments: object) -> int:
    with pytest.raises(KernelError) as error:
        call(*arguments)
    return error.value.errno or 0


def test_status_is_that_of_the_node_and_root_is_who_mounted(paths: Paths) -> None:
    status = paths.status(RW)
    assert status["st_mode"] == stat.S_IFREG | 0o644
    assert (status["st_uid"], status["st_gid"], status["st_size"]) == (7, 8, 4096)
    assert paths.status(DEVICE)["st_nlink"] > 2
    assert stat.S_ISLNK(paths.status(f"{DEVICE}/subsystem")["st_mode"])
    assert refusal(paths.status, f"{DEVICE}/absent") == ENOENT
    assert refusal(paths.status, f"{RW}/x") == ENOTDIR


def test_settings_of_a_node_show_in_its_status(paths: Paths) -> None:
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


def test_size_sticks_where_the_file_system_keeps_it(paths: Paths) -> None:
    paths.truncate(RW, 1)
    assert paths.status(RW)["st_size"] == 4096
    number = paths.open(SEQ, os.O_RDWR).number
    paths.truncate_open(number, 9)
    assert paths.status(SEQ)["st_size"] == 9
    assert refusal(paths.truncate, DEVICE, 1) == EISDIR


def test_links(paths: Paths) -> None:
    assert paths.readlink(f"{DEVICE}/subsystem") == "../../../../bus/selftest"
    assert refusal(paths.readlink, RW) == EINVAL


def test_a_file_is_read_and_written_by_number(paths: Paths) -> None:
    number, seekable = paths.open(RW, os.O_RDWR)
    assert seekable
    assert paths.read(number, 100, 0, 0) == b"1500\n"
    assert paths.write(number, b"1400\n", 5, 0) == 5
    assert paths.write(number, b"1401\n", 4096, os.O_APPEND) == 5
    assert paths.read(number, 2, 2, 0) == b"00"
    assert paths.read(number, 100, 0, 0) == b"1401\n"
    assert refusal(paths.write, number, b"abc", 0, 0) == EINVAL
    paths.fsync(number)
    paths.release(number)
    assert len(paths) == 0
    assert not paths.open("/sys/kernel/debug/selftest/rw", os.O_RDONLY).seekable
    assert refusal(paths.open, DEVICE, os.O_RDONLY) == EISDIR
    assert refusal(paths.open, f"{DEVICE}/ro", os.O_WRONLY) == EACCES


def test_who_holds_a_file_keeps_the_old_one(machine: Machine, paths: Paths) -> None:
    number = paths.open(RW, os.O_RDWR).number
    for step in ("remove", "create"):
        machine.write(f"sys/kernel/debug/fakesys/selftest/{step}", "1")
        assert refusal(paths.read, number, 9, 0, 0) == ENODEV
    assert paths.read(paths.open(RW, os.O_RDONLY).number, 9, 0, 0) == b"1500\n"


def test_where_a_file_ends_is_asked_of_the_open_one(paths: Paths) -> None:
    assert paths.status_of(paths.open(RW, os.O_RDONLY).number)["st_size"] == 4096
    assert refusal(paths.status_of, paths.open(SEQ, os.O_RDONLY).number) == EINVAL


def test_a_stream_blocks_unless_it_is_told_not_to(paths: Paths) -> None:
    number = paths.open(STREAM, os.O_RDONLY).number
    assert paths.read(number, 1 << 20, 0, os.O_NONBLOCK).startswith(b"ACTION=")
    assert refusal(paths.read, number, 4096, 0, os.O_NONBLOCK) == EAGAIN
    with pytest.raises(Blocked):
        paths.read(number, 4096, 0, 0)


def test_directories_list_what_is_there_now(machine: Machine, paths: Paths) -> None:
    number = paths.opendir("/sys/bus/selftest/devices")
    assert [name for name, _ in paths.readdir(number)] == [".", "..", "selftest0"]
    entry = dict(paths.readdir(number))["selftest0"]
    assert entry["st_ino"] == paths.status("/sys/bus/selftest/devices/selftest0")["st_ino"]
    assert stat.S_ISLNK(entry["st_mode"])
    machine.write("sys/kernel/debug/fakesys/selftest/remove", "1")
    assert [name for name, _ in paths.readdir(number)] == [".", ".."]
    assert refusal(paths.fsyncdir, number) == EINVAL
    paths.releasedir(number)
    paths.fsyncdir(paths.opendir("/sys/kernel/debug"))
    assert refusal(paths.opendir, "/sys/kernel/debug/fakesys/bugs") == ENOTDIR


def test_names_are_not_to_be_made_or_removed(paths: Paths) -> None:
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


def test_instances_of_tracefs_are(paths: Paths) -> None:
    paths.mkdir("/sys/kernel/tracing/instances/mine")
    assert "trace_pipe" in dict(paths.readdir(paths.opendir("/sys/kernel/tracing/instances/mine")))
    paths.rmdir("/sys/kernel/tracing/instances/mine")
    assert refusal(paths.status, "/sys/kernel/tracing/instances/mine") == ENOENT


def test_extended_attributes(paths: Paths) -> None:
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


def test_statfs_has_no_blocks_and_names_of_255_bytes(paths: Paths) -> None:
    assert paths.statfs() == {"f_bsize": 4096, "f_frsize": 4096, "f_namemax": 255}


def test_handles_are_let_go_when_the_mount_is_gone(paths: Paths) -> None:
    paths.open(RW, os.O_RDONLY)
    paths.opendir(DEVICE)
    assert len(paths) == 2
    paths.close_all()
    assert len(paths) == 0

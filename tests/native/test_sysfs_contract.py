"""What every sysfs file does, whoever serves it."""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EACCES, EEXIST, EFBIG, EINVAL, ENODATA, ENOENT, ENOTDIR, EOPNOTSUPP, EPERM
from pathlib import Path

import pytest

from tests.native.conftest import Specimens


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """A descriptor that is closed in every case."""
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def refused(number: int) -> Iterator[None]:
    """What is done inside must end with this errno."""
    with pytest.raises(OSError) as caught:
        yield
    assert caught.value.errno == number


def wait_for_the_next_tick() -> None:
    """Inodes take their times from a clock that the timer interrupt moves."""
    coarse = 5
    start = time.clock_gettime_ns(coarse)
    while time.clock_gettime_ns(coarse) == start:
        pass


def test_the_text_is_made_at_the_first_read_not_at_open(number: Path) -> None:
    with opened(number) as descriptor:
        number.write_text("2000\n")
        assert os.read(descriptor, 100) == b"2000\n"


def test_the_rest_of_a_text_is_that_of_its_beginning(number: Path) -> None:
    with opened(number) as descriptor:
        assert os.read(descriptor, 1) == b"1"
        number.write_text("2000\n")
        assert os.read(descriptor, 100) == b"000\n"
        assert os.read(descriptor, 100) == b""


def test_the_text_is_made_again_at_offset_0(number: Path) -> None:
    with opened(number) as descriptor:
        os.read(descriptor, 100)
        number.write_text("2000\n")
        assert os.pread(descriptor, 100, 0) == b"2000\n"
        os.lseek(descriptor, 0, os.SEEK_SET)
        assert os.read(descriptor, 100) == b"2000\n"


@pytest.mark.parametrize("text", [b"2000", b"2000\n", b"0x7d0\n", b"+2000", b"2000\0junk"])
def test_one_write_is_one_value(number: Path, text: bytes) -> None:
    with opened(number, os.O_WRONLY) as descriptor:
        assert os.write(descriptor, text) == len(text)
    assert number.read_text() == "2000\n"


@pytest.mark.parametrize("text", [b"abc\n", b" 2000", b"2000 ", b"2000\n\n", b"2000\n3\n", b"\n"])
def test_what_does_not_parse_changes_nothing(number: Path, text: bytes) -> None:
    with opened(number, os.O_WRONLY) as descriptor:
        with refused(EINVAL):
            os.write(descriptor, text)
        assert number.read_text() == "1000\n"
        # The descriptor is as good as before.
        os.write(descriptor, b"2000\n")
    assert number.read_text() == "2000\n"


def test_a_value_in_two_writes_is_two_values(number: Path) -> None:
    with opened(number, os.O_WRONLY) as descriptor:
        os.write(descriptor, b"2000")
        with refused(EINVAL):
            os.write(descriptor, b"\n")
    assert number.read_text() == "2000\n"


def test_the_offset_of_a_write_does_not_matter(number: Path) -> None:
    with opened(number, os.O_WRONLY | os.O_APPEND) as descriptor:
        os.write(descriptor, b"2000")
    with opened(number, os.O_WRONLY) as descriptor:
        assert os.pwrite(descriptor, b"1500", 77) == 4
    assert number.read_text() == "1500\n"


def test_truncation_is_no_write(number: Path) -> None:
    with opened(number, os.O_WRONLY | os.O_TRUNC | os.O_CREAT):
        pass
    assert number.read_text() == "1000\n"
    assert number.stat().st_size == 4096


def test_mode_bits_bind_root(specimens: Specimens) -> None:
    with refused(EACCES):
        os.open(specimens.read_only, os.O_WRONLY)
    with refused(EACCES):
        os.open(specimens.read_only, os.O_RDWR)
    with refused(EACCES):
        os.open(specimens.write_only, os.O_RDONLY)


def test_o_direct_is_refused_after_the_mode(specimens: Specimens) -> None:
    with refused(EINVAL):
        os.open(specimens.number, os.O_RDWR | os.O_DIRECT)
    with refused(EACCES):
        os.open(specimens.read_only, os.O_RDWR | os.O_DIRECT)


def test_nothing_here_is_executed(number: Path) -> None:
    number.chmod(0o755)
    try:
        assert not os.access(number, os.X_OK)
        with refused(EACCES):
            os.execv(number, ["x"])
        with opened(number) as descriptor, refused(EPERM):
            mmap.mmap(descriptor, 4096, mmap.MAP_PRIVATE, mmap.PROT_EXEC)
    finally:
        number.chmod(0o644)


def test_sizes_modes_and_owners(specimens: Specimens) -> None:
    status = specimens.number.stat()
    assert (status.st_size, status.st_nlink, status.st_uid) == (4096, 1, 0)
    assert stat.S_IMODE(status.st_mode) == 0o644
    assert stat.S_IMODE(specimens.read_only.stat().st_mode) == 0o444
    assert stat.S_IMODE(specimens.write_only.stat().st_mode) == 0o200
    assert specimens.device.stat().st_size == 0


def test_no_size_is_larger_than_two_gigabytes(number: Path) -> None:
    os.truncate(number, (1 << 31) - 1)
    with refused(EFBIG):
        os.truncate(number, 1 << 31)
    assert number.stat().st_size == 4096


def test_mode_and_owner_move_ctime_only(number: Path) -> None:
    changes: tuple[Callable[[], None], ...] = (
        lambda: number.chmod(0o600),
        lambda: number.chmod(0o644),
        lambda: os.chown(number, -1, 1),
        lambda: os.chown(number, -1, 0),
        lambda: os.chown(number, -1, -1),
    )
    for change in changes:
        os.utime(number, ns=(5, 6))
        before = number.stat().st_ctime_ns
        wait_for_the_next_tick()
        change()
        status = number.stat()
        assert (status.st_atime_ns, status.st_mtime_ns) == (5, 6)
        assert status.st_ctime_ns > before


def test_only_truncation_of_an_open_file_moves_mtime(number: Path) -> None:
    os.utime(number, ns=(5, 6))
    os.truncate(number, 0)
    assert number.stat().st_mtime_ns == 6
    with opened(number, os.O_WRONLY) as descriptor:
        os.write(descriptor, b"2000")
        assert number.stat().st_mtime_ns == 6
        os.ftruncate(descriptor, 0)
    assert number.stat().st_mtime_ns > 6
    os.utime(number, ns=(5, 6))
    with opened(number, os.O_RDONLY | os.O_TRUNC):
        pass
    status = number.stat()
    assert status.st_atime_ns == 5
    assert status.st_mtime_ns > 6


def test_a_listing_is_no_access(specimens: Specimens) -> None:
    before = specimens.device.stat()
    os.utime(specimens.device, ns=(5, 6))
    os.listdir(specimens.device)
    assert specimens.device.stat().st_atime_ns == 5
    os.utime(specimens.device, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_extended_attributes_of_each_name_space(number: Path) -> None:
    for name in ("trusted.fakesys", "security.fakesys"):
        with refused(ENODATA):
            os.setxattr(number, name, b"1", os.XATTR_REPLACE)
        os.setxattr(number, name, b"1", os.XATTR_CREATE)
        with refused(EEXIST):
            os.setxattr(number, name, b"2", os.XATTR_CREATE)
        os.setxattr(number, name, b"3", os.XATTR_REPLACE)
        assert os.getxattr(number, name) == b"3"
        assert name in os.listxattr(number)
        os.removexattr(number, name)
    with refused(EOPNOTSUPP):
        os.setxattr(number, "user.fakesys", b"1")
    for name in ("fakesys", "btrfs.fakesys", "system.fakesys"):
        with refused(EOPNOTSUPP):
            os.getxattr(number, name)
    for name in ("trusted.", "security.", "user."):
        with refused(EINVAL):
            os.setxattr(number, name, b"1")


def test_a_directory_counts_its_subdirectories(specimens: Specimens) -> None:
    with os.scandir(specimens.device) as entries:
        folders = sum(entry.is_dir(follow_symlinks=False) for entry in entries)
    assert specimens.device.stat().st_nlink == 2 + folders


def test_listings_tell_kinds_and_numbers(specimens: Specimens) -> None:
    with os.scandir(specimens.device) as entries:
        found = list(entries)
    assert found
    for entry in found:
        status = entry.stat(follow_symlinks=False)
        assert entry.inode() == status.st_ino
        assert entry.is_dir(follow_symlinks=False) == stat.S_ISDIR(status.st_mode)
        assert entry.is_symlink() == stat.S_ISLNK(status.st_mode)


def test_links_are_relative(specimens: Specimens) -> None:
    link = specimens.device / "subsystem"
    assert link.readlink().parts[0] == ".."
    assert link.resolve().is_dir()


def test_nothing_can_be_made_or_removed(specimens: Specimens) -> None:
    new = specimens.device / "fakesys-new"
    with refused(EACCES):
        os.open(new, os.O_WRONLY | os.O_CREAT)
    with refused(EPERM):
        new.mkdir()
    with refused(EPERM):
        new.symlink_to("uevent")
    with refused(EPERM):
        (specimens.device / "uevent").unlink()
    with refused(EPERM):
        (specimens.device / "power").rmdir()
    with refused(EPERM):
        (specimens.device / "uevent").rename(new)
    with refused(EEXIST):
        (specimens.device / "power").mkdir()
    with refused(ENOTDIR):
        os.open(specimens.number / "below", os.O_RDONLY)
    with refused(ENODATA):
        os.getxattr(specimens.number, "user.x")


def renameat2(old: Path, new: Path, flags: int) -> None:
    """renameat2(2), which Python has not."""
    libc = ctypes.CDLL(None, use_errno=True)
    here = -100
    if libc.renameat2(here, os.fsencode(old), here, os.fsencode(new), flags):
        raise OSError(ctypes.get_errno(), "renameat2")


def test_renaming_knows_no_flags(specimens: Specimens) -> None:
    no_replace, exchange = 1, 2
    device = specimens.device
    with refused(EINVAL):
        renameat2(device / "uevent", device / "fakesys-new", no_replace)
    with refused(EEXIST):
        renameat2(device / "uevent", device / "power", no_replace)
    with refused(EINVAL):
        renameat2(device / "uevent", device / "power", exchange)
    with refused(ENOENT):
        renameat2(device / "absent", device / "fakesys-new", no_replace)


def test_poll_is_ready_at_once_and_not_again_after_a_read(specimens: Specimens) -> None:
    with opened(specimens.read_only) as descriptor:
        poll = select.poll()
        poll.register(descriptor, select.POLLPRI)
        assert poll.poll(0) == [(descriptor, select.POLLPRI | select.POLLERR)]
        os.read(descriptor, 100)
        assert poll.poll(0) == []


def test_a_long_write_is_cut_at_a_page(number: Path) -> None:
    text = b"2000\0".ljust(5000, b"x")
    with opened(number, os.O_WRONLY) as descriptor:
        assert os.write(descriptor, text) == 4096
    assert number.read_text() == "2000\n"

"""Directories of any size, and the calls on names that a sysfs refuses."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mounts import Mount, mounted


def refusal(call: Callable[[], object]) -> str:
    """The errno's name with which a call is refused."""
    with pytest.raises(OSError) as error:
        call()
    return errno.errorcode[error.value.errno or 0]


def test_numbers_and_types_in_a_listing_are_those_of_stat(shared_mount: Mount) -> None:
    folder = shared_mount.device
    with os.scandir(folder) as entries:
        for entry in entries:
            status = os.lstat(entry.path)
            assert entry.inode() == status.st_ino
            assert entry.is_dir(follow_symlinks=False) == stat.S_ISDIR(status.st_mode)
            assert entry.is_symlink() == stat.S_ISLNK(status.st_mode)


def test_rewinding_shows_what_came_in_between(mount: Mount) -> None:
    folder = os.open(mount.root / "sys/bus/selftest/devices", os.O_RDONLY)
    try:
        assert os.listdir(folder) == ["selftest0"]
        mount.command("selftest/remove")
        assert os.listdir(folder) == []
        mount.command("selftest/create")
        assert os.listdir(folder) == ["selftest0"]
    finally:
        os.close(folder)


def test_calls_that_make_or_remove_names_are_refused(shared_mount: Mount) -> None:
    folder = shared_mount.device
    file, new = folder / "ro", folder / "new"
    refused: dict[str, Callable[[], object]] = {
        "mkdir": lambda: os.mkdir(new),
        "rmdir": lambda: os.rmdir(folder / "power"),
        "unlink": lambda: os.unlink(file),
        "rename": lambda: os.rename(file, new),
        "link": lambda: os.link(file, new),
        "symlink": lambda: os.symlink("x", new),
        "fifo": lambda: os.mkfifo(new),
    }
    assert {name: refusal(call) for name, call in refused.items()} == dict.fromkeys(
        refused, "EPERM"
    )
    assert refusal(lambda: os.mknod(new, stat.S_IFREG | 0o600)) == "EACCES"
    assert refusal(lambda: os.open(new, os.O_CREAT | os.O_WRONLY)) == "EACCES"
    assert refusal(lambda: os.mkdir(file)) == "EEXIST"
    assert refusal(lambda: os.open(folder, os.O_TMPFILE | os.O_RDWR)) == "ENOTSUP"


def test_extended_attributes(shared_mount: Mount) -> None:
    path = shared_mount.device / "rw"
    assert refusal(lambda: os.getxattr(path, "user.x")) == "ENODATA"
    assert refusal(lambda: os.setxattr(path, "user.x", b"1")) == "ENOTSUP"
    assert os.listxattr(path) == []
    debug = shared_mount.root / "sys/kernel/debug/selftest/rw"
    assert refusal(lambda: os.getxattr(debug, "user.x")) == "ENOTSUP"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may set these attributes")
def test_extended_attributes_of_root(shared_mount: Mount) -> None:
    path = shared_mount.device / "rw"
    os.setxattr(path, "trusted.x", b"value")
    assert os.getxattr(path, "trusted.x") == b"value"
    assert os.listxattr(path) == ["trusted.x"]
    os.removexattr(path, "trusted.x")
    assert refusal(lambda: os.removexattr(path, "trusted.x")) == "ENODATA"
    os.setxattr(path, "security.x", b"value")
    assert os.getxattr(path, "security.x") == b"value"
    os.removexattr(path, "security.x")
    assert refusal(lambda: os.getxattr(path, "security.x")) == "ENODATA"


def test_control_commands_of_any_length_arrive_in_one_piece(shared_mount: Mount) -> None:
    text = b"x" * (1 << 20)
    descriptor = os.open(shared_mount.control / "selftest/notify", os.O_WRONLY)
    try:
        assert refusal(lambda: os.write(descriptor, text)) == "EINVAL"
    finally:
        os.close(descriptor)


def test_sixty_five_thousand_names_are_listed_whole(tmp_path: Path, transport: str) -> None:
    with mounted(tmp_path, scenario="full", transport=transport) as mount:
        folder = mount.root / "sys/bus/ap/devices"
        names = os.listdir(folder)
        assert len(names) == len(set(names)) >= 65536
        assert os.listdir(folder) == names

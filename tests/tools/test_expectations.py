"""What programs take for granted of sysfs, one test for each thing that some program relies on."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mounts import Mount
from tests.tools.helpers import bits
from tests.tools.machines import MDEV, TYPE, Mounts
from tests.tools.world import script_output

CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


def write(path: Path, text: str, flags: int = CREATE) -> None:
    """One open, one write, one close."""
    descriptor = os.open(path, flags, 0o666)
    try:
        assert os.write(descriptor, text.encode()) == len(text)
    finally:
        os.close(descriptor)


def devices(mount: Mount) -> list[Path]:
    """Every device folder: those that links of a bus or class lead to."""
    links = [*mount.root.glob("sys/bus/*/devices/*"), *mount.root.glob("sys/class/mdev_bus/*")]
    return [link.resolve() for link in links]


@pytest.mark.parametrize("end", ["", "\n"])
def test_opening_to_create_and_truncate_is_no_write(plain: Mount, end: str) -> None:
    """As mdevctl (no newline), chzdev (a whole mask without newline) and shells do."""
    mask = plain.root / "sys/bus/ap/apmask"
    before = mask.read_text()
    os.close(os.open(mask, CREATE, 0o666))
    assert mask.read_text() == before
    write(mask, "0x" + "f" * 63 + "e" + end)
    assert bits(mask.read_text()) == set(range(255))


def test_a_refusal_comes_from_the_write_itself(plain: Mount) -> None:
    file = plain.root / "sys/bus/ap/config_time"
    descriptor = os.open(file, CREATE)
    with pytest.raises(OSError, match="Invalid argument"):
        os.write(descriptor, b"4")
    # Nothing was kept back to be refused now.
    os.fsync(descriptor)
    os.close(descriptor)


def test_the_next_look_up_sees_every_change(plain: Mount) -> None:
    """As mdevctl does: create, at once write to what is in it; stop, and look."""
    folder = plain.root / "sys/bus/mdev/devices" / MDEV
    plain.command("ap/preset", "default\n")
    for number in range(30):
        assert not folder.exists()
        write(plain.root / TYPE / "create", MDEV)
        write(folder / "assign_control_domain", "4")
        assert (folder / "control_domains").read_text() == "0004\n"
        assert os.listdir(folder.parent) == [MDEV]
        write(folder / "remove", "1")
        assert not (folder / "control_domains").exists(), number


@pytest.mark.skipif(os.geteuid() != 0, reason="others are refused by the mode alone")
def test_modes_bind_root_as_well(plain: Mount) -> None:
    bus = plain.root / "sys/bus/ap"
    for path, flags in (
        (bus / "ap_max_domain_id", os.O_WRONLY),
        (bus / "ap_max_domain_id", os.O_RDWR),
        (bus / "drivers_probe", os.O_RDONLY),
        (bus / "drivers/cex4queue/bind", os.O_RDWR),
    ):
        with pytest.raises(PermissionError) as refusal:
            os.open(path, flags)
        assert refusal.value.errno == errno.EACCES


@pytest.mark.parametrize(
    ("attempt", "number"),
    [
        (lambda folder: os.open(folder / "new", os.O_WRONLY | os.O_CREAT, 0o644), errno.EACCES),
        (lambda folder: os.mkdir(folder / "new"), errno.EPERM),
        (lambda folder: os.unlink(folder / "config"), errno.EPERM),
        (lambda folder: os.rmdir(folder / "05.0004"), errno.EPERM),
        (lambda folder: os.rename(folder / "config", folder / "new"), errno.EPERM),
        (lambda folder: os.symlink("config", folder / "new"), errno.EPERM),
    ],
)
def test_nothing_can_be_made_or_removed(
    plain: Mount, attempt: Callable[[Path], object], number: int
) -> None:
    folder = plain.root / "sys/devices/ap/card05"
    before = sorted(os.listdir(folder))
    with pytest.raises(OSError) as refusal:
        attempt(folder)
    assert refusal.value.errno == number
    assert sorted(os.listdir(folder)) == before


def test_sizes(plain: Mount) -> None:
    """And who reads until the size still meets the end of the file."""
    assert (plain.root / "sys/bus/ap/apmask").stat().st_size == 4096
    assert (plain.root / "sys/devices/ap").stat().st_size == 0
    assert (plain.root / "sys/kernel/debug/kvm/exits").stat().st_size == 0
    assert (plain.root / "sys/kernel/tracing/trace_clock").stat().st_size == 0
    assert len((plain.root / "sys/bus/ap/apmask").read_bytes()) == 67


def test_links_are_relative_and_lead_somewhere(plain: Mount) -> None:
    root = plain.root / "sys"
    found = 0
    for place, folders, files in os.walk(root):
        for path in (Path(place, name) for name in (*folders, *files)):
            if path.is_symlink():
                found += 1
                assert not os.readlink(path).startswith("/"), path
                assert path.exists(), path
                assert path.resolve().is_relative_to(root)
    assert found > 40


@pytest.mark.parametrize("profile", ["seed", "6.1", "6.12", "6.18"])
def test_device_folders_are_complete(mounts: Mounts, profile: str) -> None:
    mount = mounts.fresh("--profile", profile)
    mount.command("ap/preset", "default\n")
    write(mount.root / TYPE / "create", MDEV)
    found = devices(mount)
    assert len(found) == 15 + 2 + 1
    for device in found:
        keys = dict(line.split("=", 1) for line in (device / "uevent").read_text().splitlines())
        assert stat.S_ISDIR((device / "subsystem").stat().st_mode), device
        bound = (device / "driver").is_symlink()
        assert bound == ("DRIVER" in keys)
        if bound:
            assert (device / "driver").readlink().name == keys["DRIVER"]
            assert (device / "driver" / device.name).resolve() == device
    assert {(device / "subsystem").readlink().name for device in found} == {"ap", "matrix", "mdev"}


@pytest.mark.usefixtures("private_world")
def test_files_belong_to_the_user_of_the_daemon(prefix: tuple[str, ...]) -> None:
    """In a user namespace root's files would be nobody's, and nobody could write them."""
    said = script_output(
        "stat -c '%u %g' /sys/bus/ap/apmask /sys/kernel/debug/kvm/exits /sys/devices/ap;"
        "[ -w /sys/bus/ap/apmask ] && echo writable",
        prefix=prefix,
    )
    assert said.splitlines() == ["0 0", "0 0", "0 0", "writable"]

"""chzdev and lszdev with `--type ap`: exactly the bits that were named change."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.tools import s390
from tests.tools.helpers import SECONDS
from tests.tools.machines import S390

ALL = set(range(256))


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """A private /etc for the persistent configuration."""
    folder = tmp_path / "etc"
    (folder / "udev/rules.d").mkdir(parents=True)
    return folder


def zdev(machine: S390, etc: Path, program: str, *arguments: str, status: int = 0) -> str:
    """chzdev or lszdev, as a whole turned to the mount and to a private /etc."""
    lock = etc.parent / "lock"
    lock.mkdir(exist_ok=True)
    root = machine.mount.root
    done = subprocess.run(
        [
            *s390.command(machine.root, program),
            "--base",
            f"/sys={root}/sys",
            "--base",
            f"/etc={etc}",
            "--base",
            f"/run/lock={lock}",
            *arguments,
        ],
        env={**os.environ, "SYSFS_ROOT": f"{root}/sys", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == status, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def ranges(text: str) -> set[int]:
    """The ids of a text such as `0-2,4-255`."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


@pytest.mark.parametrize(
    ("setting", "apmask"),
    [
        ("apmask=-3", ALL - {3}),
        ("apmask=-3,-0x10", ALL - {3, 16}),
        ("apmask=-3,+3,-5", ALL - {5}),
        ("apmask=0-254,0xff", ALL),
        ("apmask=1-7", set(range(1, 8))),
    ],
)
def test_masks_are_set(machine: S390, etc: Path, setting: str, apmask: set[int]) -> None:
    said = zdev(machine, etc, "chzdev", "-t", "ap", setting, "-a")
    assert "ap device type configured" in said
    assert machine.mask("apmask") == apmask
    assert machine.mask("aqmask") == ALL


def test_bits_come_back(machine: S390, etc: Path) -> None:
    zdev(machine, etc, "chzdev", "-t", "ap", "apmask=-3,-0x10", "aqmask=-4", "-a")
    zdev(machine, etc, "chzdev", "-t", "ap", "apmask=+0x10", "-a")
    assert machine.mask("apmask") == ALL - {3}
    assert machine.mask("aqmask") == ALL - {4}


def test_lszdev_shows_both_masks(each_kernel: S390, etc: Path) -> None:
    each_kernel.write("apmask", "-3")
    each_kernel.write("aqmask", "-71")
    said = zdev(each_kernel, etc, "lszdev", "-t", "ap")
    shown = dict(re.findall(r'(ap|aq)mask +"([^"]*)"', said))
    assert ranges(shown["ap"]) == each_kernel.mask("apmask") == ALL - {3}
    assert ranges(shown["aq"]) == each_kernel.mask("aqmask") == ALL - {71}


def test_queues_of_a_freed_card_change_drivers_and_go_back(each_kernel: S390, etc: Path) -> None:
    machine = each_kernel
    queue = machine.bus / "devices/05.0004"
    zdev(machine, etc, "chzdev", "-t", "ap", "apmask=-5", "-a")
    assert (queue / "driver").readlink().name == "vfio_ap"
    assert (queue / "status").exists()
    assert not (queue / "online").exists()
    zdev(machine, etc, "chzdev", "-t", "ap", "apmask=+5", "-a")
    assert (queue / "driver").readlink().name == "cex4queue"
    assert (queue / "online").exists()


def test_a_refused_write_shows_in_the_mask_only(machine: S390, etc: Path) -> None:
    """The tool does not look at the result of its write: what counts is the file."""
    machine.mount.command("faults/store", "sys/bus/ap/apmask EBUSY times=1\n")
    assert "configured" in zdev(machine, etc, "chzdev", "-t", "ap", "apmask=-3", "-a")
    assert machine.mask("apmask") == ALL
    zdev(machine, etc, "chzdev", "-t", "ap", "apmask=-3", "-a")
    assert machine.mask("apmask") == ALL - {3}


def test_a_list_that_is_none(machine: S390, etc: Path) -> None:
    said = zdev(machine, etc, "chzdev", "-t", "ap", "apmask=garbage", "-a", status=6)
    assert "Invalid attribute value" in said
    assert machine.mask("apmask") == ALL


def test_what_a_mediated_device_has_cannot_be_taken(machine: S390, etc: Path) -> None:
    machine.write("apmask", "-4")
    machine.make_mdev([4], [71])
    said = zdev(machine, etc, "chzdev", "-t", "ap", "apmask=+4", "-a", status=9)
    assert re.search(r"apmask conflicts with mdev \S+ APQN 4\.71", said)
    assert machine.mask("apmask") == ALL - {4}


def test_persistent_settings_become_a_rule_and_change_nothing_now(machine: S390, etc: Path) -> None:
    zdev(machine, etc, "chzdev", "-t", "ap", "apmask=-4", "-p")
    rule = (etc / "udev/rules.d/41-ap.rules").read_text()
    assert f'apmask}}="0xf7{"f" * 62}"' in rule
    assert machine.mask("apmask") == ALL
    assert "0-3,5-255" in zdev(machine, etc, "lszdev", "-t", "ap")

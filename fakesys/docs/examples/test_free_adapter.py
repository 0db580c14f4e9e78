"""Tests of free-adapter.sh on a fake machine: no mainframe, no root, no cleaning up.

pip install fakesys pytest && pytest test_free_adapter.py
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fakesys import Machine

SCRIPT = Path(__file__).with_name("free-adapter.sh")
MATRIX = "sys/devices/vfio_ap/matrix"
# What only a fake machine has: guests, hardware and time to play with.
CONTROL = "sys/kernel/debug/fakesys/ap"


def free_adapter(machine: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the script on the fake /sys."""
    return subprocess.run(
        ["sh", SCRIPT, *words],
        env={**os.environ, "SYSFS": str(machine / "sys")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def mdevs(machine: Path) -> list[str]:
    """UUIDs of all mediated devices."""
    return [path.name for path in (machine / "sys/bus/mdev/devices").iterdir()]


@pytest.mark.parametrize(
    "_kernel",
    [
        pytest.param(profile, marks=pytest.mark.fakesys(profile=profile))
        for profile in ("seed", "6.1", "6.12", "6.18")
    ],
)
def test_a_guest_gets_the_adapter(fake_mount: Path, _kernel: str) -> None:
    done = free_adapter(fake_mount, "5", "4", "0x47")
    assert (done.returncode, done.stderr) == (0, "")
    uuid = done.stdout.strip()
    assert (fake_mount / MATRIX / uuid / "matrix").read_text() == "05.0004\n05.0047\n"
    # A guest of the fake machine starts with it, and the host has lost it.
    (fake_mount / CONTROL / "new_guest").write_text("guest1")
    (fake_mount / CONTROL / "guests/guest1/attach").write_text(uuid)
    assert not (fake_mount / "sys/bus/ap/drivers/cex4queue/05.0004").exists()


def test_what_another_guest_has_is_refused_and_stays(fake_mount: Path) -> None:
    first = free_adapter(fake_mount, "5", "4").stdout.strip()
    done = free_adapter(fake_mount, "5", "0x47", "4")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "free-adapter: domain 4 of card05 is not free\n"
    assert mdevs(fake_mount) == [first]


def test_a_refusal_gives_the_adapter_back_to_the_host(fake_mount: Path) -> None:
    before = (fake_mount / "sys/bus/ap/apmask").read_text()
    done = free_adapter(fake_mount, "5", "0x100")
    assert (done.returncode, done.stderr) == (
        1,
        "free-adapter: domain 0x100 of card05 is not free\n",
    )
    assert (fake_mount / "sys/bus/ap/apmask").read_text() == before
    assert mdevs(fake_mount) == []


@pytest.mark.fakesys(preset="empty")
def test_an_adapter_that_is_not_there(fake_mount: Path) -> None:
    done = free_adapter(fake_mount, "5", "4")
    assert (done.returncode, done.stderr) == (1, "free-adapter: there is no card05\n")


def test_the_command_line(fake_mount: Path) -> None:
    assert free_adapter(fake_mount, "5").returncode == 2
    assert "no number" in free_adapter(fake_mount, "five", "4").stderr


def test_code_that_needs_no_path_can_do_without_a_mount(fake_machine: Machine) -> None:
    fake_machine.write("sys/bus/ap/apmask", "-5")
    assert "05.0004" in fake_machine.listdir("sys/bus/ap/drivers/vfio_ap")
    # The simulated clock is stopped until a test moves it.
    fake_machine.clock.advance(3600)
    assert fake_machine.clock.now == 3600

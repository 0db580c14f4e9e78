"""The recorded system calls on real kernel files, replayed on the mount: every step is equal.

Differences that no FUSE server can remove stand in known_fuse.txt with their reason.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.mounts import Mount

ORACLE = Path(__file__).parents[1] / "oracle" / "kernfs"
DEVICE = "sys/devices/virtual/selftest/selftest0"
DEBUG = "sys/kernel/debug/selftest"


class Recording(NamedTuple):
    """A recorded file, our file that should behave alike, and values that both accept."""

    name: str
    path: str
    values: tuple[str, ...] = ()


RECORDINGS = [
    *(
        Recording(f"sysfs-rw-{kernel}", f"{DEVICE}/rw", ("1500", "1400", "abc"))
        for kernel in ("6.1", "6.18")
    ),
    *(Recording(f"sysfs-ro-{kernel}", f"{DEVICE}/ro") for kernel in ("6.1", "6.18")),
    *(Recording(f"sysfs-dir-{kernel}", DEVICE) for kernel in ("6.1", "6.18")),
    *(Recording(f"sysfs-link-{kernel}", f"{DEVICE}/subsystem") for kernel in ("6.1", "6.18")),
    Recording("sysfs-wo-6.18", f"{DEVICE}/wo", ("1", "2", "abc")),
    Recording("sysfs-notify-6.18", f"{DEVICE}/notify"),
    Recording("debugfs-rw-6.1", f"{DEBUG}/rw", ("65536", "32768", "abc")),
    Recording("debugfs-wo-6.1", f"{DEBUG}/wo", ("1", "2", "abc")),
    Recording("debugfs-seq-6.1", f"{DEBUG}/seq"),
    Recording("debugfs-dir-6.1", f"{DEBUG}/nested"),
]


def write_one(mount: Mount, name: str) -> str:
    """A shell command that writes 1 to a selftest control file."""
    return f"echo 1 > {shlex.quote(str(mount.control / 'selftest' / name))}"


@pytest.mark.skipif(os.geteuid() != 0, reason="the recorded steps are those of root")
@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)
def test_every_step_is_as_recorded(shared_mount: Mount, recording: Recording) -> None:
    command = [sys.executable, str(ORACLE / "kernfs_diff.py")]
    command += ["--recorded", str(ORACLE / "recorded" / f"{recording.name}.tsv")]
    command += [str(shared_mount.root / recording.path)]
    for option, value in zip(("--a", "--b", "--bad"), recording.values, strict=False):
        command += [option, value]
    if recording.path.startswith(DEVICE):
        command += ["--fake-remove", write_one(shared_mount, "remove")]
        command += ["--fake-create", write_one(shared_mount, "create")]
    if recording.path.endswith("notify"):
        # The recorded command switched the terminal there and back.
        command += ["--fake-notify", f"{write_one(shared_mount, 'notify')};" * 2]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = re.search(r"steps (\d+): same (\d+), different 0", done.stdout)
    assert summary
    assert int(summary[2]) >= 1

"""The recorded system calls on real kernel files, replayed on the mount: every step is equal.

Differences that no FUSE server can remove stand in known_fuse.txt with their reason, those of
the transport through fusepy in known_fusepy.txt.
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

from tests.long import LONG
from tests.mounts import Mount, mounted

ORACLE = Path(__file__).parents[1] / "oracle" / "kernfs"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the recorded steps are those of root")
DEVICE = "sys/devices/virtual/selftest/selftest0"
DEBUG = "sys/kernel/debug/selftest"
TRACING = "sys/kernel/tracing/instances/recorded"
KNOWN = {
    "native": ("known_fuse.txt",),
    "fusepy": ("known_fuse.txt", "known_fusepy.txt"),
}


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


# Each of the two kernels has its own directories of events.
TRACING_RECORDINGS = [
    Recording("tracefs-rw", f"{TRACING}/tracing_on", ("1", "0", "abc")),
    Recording("tracefs-enable", f"{TRACING}/events/kvm/kvm_exit/enable", ("0", "1", "abc")),
    Recording("tracefs-ro", f"{TRACING}/events/kvm/kvm_exit/id"),
    Recording("tracefs-dir", f"{TRACING}/events/kvm"),
    Recording("tracefs-wo", f"{TRACING}/trace_marker", ("1", "2", "abc")),
]


def write_one(mount: Mount, name: str) -> str:
    """A shell command that writes 1 to a selftest control file."""
    return f"echo 1 > {shlex.quote(str(mount.control / 'selftest' / name))}"


@pytest.fixture
def known(transport: str, tmp_path: Path) -> Path:
    """The list of differences that there may be."""
    path = tmp_path / "known.txt"
    path.write_text("".join((ORACLE / name).read_text() for name in KNOWN[transport]))
    return path


def compare(mount: Mount, recording: Recording, known: Path, *more: str) -> None:
    """The tester must find none but the known ones."""
    command = [sys.executable, str(ORACLE / "kernfs_diff.py"), "--known", str(known)]
    command += ["--recorded", str(ORACLE / "recorded" / f"{recording.name}.tsv")]
    command += [str(mount.root / recording.path)]
    for option, value in zip(("--a", "--b", "--bad"), recording.values, strict=False):
        command += [option, value]
    done = subprocess.run(
        [*command, *more],
        # A listing of many directories takes its time where nothing is cached.
        env={**os.environ, "STEP_LIMIT": "20"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = re.search(r"steps (\d+): same (\d+), different 0", done.stdout)
    assert summary
    assert int(summary[2]) >= 1


@needs_root
@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)
def test_every_step_is_as_recorded(shared_mount: Mount, known: Path, recording: Recording) -> None:
    more: list[str] = []
    if recording.path.startswith(DEVICE):
        more += ["--fake-remove", write_one(shared_mount, "remove")]
        more += ["--fake-create", write_one(shared_mount, "create")]
    if recording.path.endswith("notify"):
        # The recorded command switched the terminal there and back.
        more += ["--fake-notify", f"{write_one(shared_mount, 'notify')};" * 2]
    compare(shared_mount, recording, known, *more)


@needs_root
@pytest.mark.parametrize("kernel", ["6.1", "6.18"])
def test_every_step_on_tracefs_is_as_recorded(
    public_folder: Path, transport: str, known: Path, kernel: str
) -> None:
    if transport == "fusepy" and not LONG:
        pytest.skip("20 seconds a kernel; FAKESYS_LONG=1")
    folder = public_folder / f"{transport}-{kernel}"
    folder.mkdir(mode=0o755)
    with mounted(folder, "--profile", kernel, transport=transport) as mount:
        (mount.root / TRACING).mkdir()
        for recording in TRACING_RECORDINGS:
            compare(mount, recording._replace(name=f"{recording.name}-{kernel}"), known)

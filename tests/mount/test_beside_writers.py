"""Texts and names are right for a client whatever others do at the same time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.long import LONG
from tests.mounts import Mount, mounted

READS = 170_000 if LONG else 300
UNPLUGS = 200_000 if LONG else 60
# The full numbers take hours on a busy machine.
pytestmark = pytest.mark.timeout(6 * 3600 if LONG else 300)
UUID = "10d9f0ff-1111-2222-3333-444444444444"
MATRIX = "sys/devices/vfio_ap/matrix"
CREATE = f"{MATRIX}/mdev_supported_types/vfio_ap-passthrough/create"
FILES = {
    "apmask": ("sys/bus/ap/apmask", "+5", "-5"),
    "aqmask": ("sys/bus/ap/aqmask", "+9", "-9"),
    "control_domains": (f"{MATRIX}/{UUID}/control_domains", "7", "7"),
}
# Writes texts to files in turn.
WRITER = """
import os, sys
flags = os.O_WRONLY | int(sys.argv[1])
while True:
    for path, text in zip(sys.argv[2::2], sys.argv[3::2]):
        file = os.open(path, flags)
        os.write(file, text.encode())
        os.close(file)
"""
STATTER = """
import os, sys
while True:
    for path in sys.argv[1:]:
        try:
            os.stat(path)
        except OSError:
            pass
"""
LISTER = """
import os, sys
while True:
    for entry in os.scandir(sys.argv[1]):
        try:
            entry.stat(follow_symlinks=False)
        except OSError:
            pass
"""


@contextmanager
def running(program: str, *arguments: str | Path) -> Iterator[None]:
    """A Python program in a process of its own, which does not end by itself."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(command) as process:
        try:
            yield
            assert process.poll() is None
        finally:
            process.kill()


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """The native transport: through the other one nothing is cached."""
    with mounted(tmp_path, scenario="default") as mount:
        (mount.root / CREATE).write_text(UUID)
        yield mount


def whole(root: Path, name: str) -> set[bytes]:
    """The texts that the file has before and after the writer's texts."""
    path, *texts = FILES[name]
    found = {(root / path).read_bytes()}
    for text in texts:
        store = f"{MATRIX}/{UUID}/assign_control_domain" if name == "control_domains" else path
        (root / store).write_text(text)
        found.add((root / path).read_bytes())
    return found


@pytest.mark.parametrize("flags", [0, os.O_TRUNC], ids=["plain", "truncated"])
@pytest.mark.parametrize("name", FILES)
def test_a_text_is_whole_beside_a_writer(mount: Mount, name: str, flags: int) -> None:
    path, *texts = FILES[name]
    if name == "control_domains":
        folder = f"{MATRIX}/{UUID}"
        stores = [f"{folder}/assign_control_domain", f"{folder}/unassign_control_domain"]
    else:
        stores = [path, path]
    expected = whole(mount.root, name)
    if name == "control_domains":
        expected.add(b"")
    pairs = [str(mount.root / stores[0]), texts[0], str(mount.root / stores[1]), texts[1]]
    file = str(mount.root / path)
    seen = set()
    with running(WRITER, str(flags), *pairs), running(STATTER, file):
        for _ in range(READS):
            descriptor = os.open(file, os.O_RDONLY)
            seen.add(os.read(descriptor, 65536))
            os.close(descriptor)
    assert seen <= expected


def test_no_name_stays_after_an_unplug_while_others_list_and_look(mount: Mount) -> None:
    devices, links = mount.root / "sys/devices/ap", mount.root / "sys/bus/ap/devices"
    names = [devices / "card07", devices / "card07/07.0004/status", links / "card07"]
    names += [links / "07.0004", devices / "card07/config"]
    late = stale = 0
    with (
        running(LISTER, devices),
        running(LISTER, devices),
        running(LISTER, devices),
        running(LISTER, links),
        running(STATTER, *names),
        running(STATTER, *names),
    ):
        for _ in range(UNPLUGS):
            mount.command("ap/new_card", "7 CEX6 cca")
            late += not os.path.lexists(names[0])
            mount.command("ap/del_card", "7")
            stale += any(os.path.lexists(name) for name in names)
    assert (late, stale) == (0, 0)

"""Garbage into every writable file of a mount: no internal error, no hang.

`FAKESYS_FUZZ_WRITES` sets how many; the default is small. A write that hangs ends as a timeout.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fakesys.machine.machine import Machine
from fakesys.tree.node import Directory, File
from tests.garbage import texts
from tests.mounts import mounted

WRITES = int(os.environ.get("FAKESYS_FUZZ_WRITES", "2000"))
# A call through fusepy takes some thirty times as long.
FUSEPY_SHARE = 20
# A write of garbage that succeeds there would make the test wait for itself.
LEFT_OUT = ("clock", "faults", "preset", "remove_policy", "lockdown")


def writable(directory: Directory) -> Iterator[str]:
    """All files below a directory that can be written and do not wait."""
    for name, node in directory.entries():
        if name in LEFT_OUT:
            continue
        if isinstance(node, Directory):
            yield from writable(node)
        elif isinstance(node, File) and node.mode & 0o200:
            yield node.path


def test_garbage(tmp_path: Path, transport: str) -> None:
    with mounted(tmp_path, scenario="default", transport=transport) as mount:
        # Walking a machine in memory takes a hundredth of walking a mount.
        paths = [mount.root / path for path in writable(Machine(scenario="default").fs.root)]
        garbage = texts(11)
        for turn in range(WRITES if transport == "native" else WRITES // FUSEPY_SHARE):
            path = paths[(turn * 7919) % len(paths)]
            with suppress(OSError):
                descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
                try:
                    os.write(descriptor, next(garbage))
                finally:
                    os.close(descriptor)
        assert mount.bugs() == 0
        assert (mount.root / "sys/bus/ap/bindings").read_text().count("/") == 1

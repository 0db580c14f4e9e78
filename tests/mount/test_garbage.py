"""Garbage into every writable file of a mount: no internal error, no hang.

`FAKESYS_FUZZ_SECONDS` sets how long; the default is short.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from tests.garbage import texts
from tests.mounts import mounted

SECONDS = float(os.environ.get("FAKESYS_FUZZ_SECONDS", "4"))
# A write of garbage that succeeds there would make the test wait for itself.
LEFT_OUT = ("clock", "faults", "preset", "remove_policy", "lockdown")


def writable(root: Path) -> list[str]:
    """All files below `root` that can be written and do not wait."""
    found = []
    for folder, directories, names in os.walk(root):
        directories[:] = [name for name in directories if name not in LEFT_OUT]
        for name in names:
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            if mode & 0o200 and not os.path.islink(path) and name not in LEFT_OUT:
                found.append(path)
    return found


def test_garbage(tmp_path: Path, transport: str) -> None:
    with mounted(tmp_path, scenario="default", transport=transport) as mount:
        paths = writable(mount.root / "sys")
        garbage = texts(11)
        deadline = time.monotonic() + SECONDS
        turn, longest = 0, 0.0
        while time.monotonic() < deadline:
            path = paths[(turn * 7919) % len(paths)]
            turn += 1
            begin = time.monotonic()
            with suppress(OSError):
                descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
                try:
                    os.write(descriptor, next(garbage))
                finally:
                    os.close(descriptor)
            longest = max(longest, time.monotonic() - begin)
        assert turn > (100 if transport == "native" else 20)
        assert longest < 3
        assert mount.bugs() == 0
        assert (mount.root / "sys/bus/ap/bindings").read_text().count("/") == 1

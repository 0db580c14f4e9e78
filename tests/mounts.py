"""Real mounts for tests and benchmarks: a daemon of its own, ended in every case."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fakesys.daemon.launch import COMMAND, Daemon

__all__ = ["COMMAND", "Mount", "fakesys", "has_open", "mounted", "wait_until"]


@dataclass(frozen=True)
class Mount:
    """A mounted machine and the process behind it."""

    root: Path
    pid: int
    log: Path

    @property
    def control(self) -> Path:
        """The directory of control files."""
        return self.root / "sys/kernel/debug/fakesys"

    @property
    def device(self) -> Path:
        """The selftest device."""
        return self.root / "sys/devices/virtual/selftest/selftest0"

    def command(self, path: str, text: str = "1") -> None:
        """Write to a control file by one write(2)."""
        descriptor = os.open(self.control / path, os.O_WRONLY)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    def bugs(self) -> int:
        """Internal errors so far."""
        return int((self.control / "bugs").read_text().split()[0])


def fakesys(
    *arguments: str,
    seconds: float = 30.0,
    stdin: IO[str] | None = None,
    keep: tuple[int, ...] = (),
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end; `keep`: descriptors that it inherits."""
    return subprocess.run(
        [*COMMAND, *arguments],
        stdin=stdin,
        pass_fds=keep,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


@contextmanager
def mounted(
    folder: Path,
    *options: str,
    scenario: str = "selftest",
    transport: str = "native",
    prefix: tuple[str, ...] = (),
) -> Iterator[Mount]:
    """A mount below `folder`; `prefix` is put before the command, such as `taskset -c 0`."""
    root, log = folder / "mnt", folder / "daemon.log"
    root.mkdir()
    words = ["--scenario", scenario, "--transport", transport, *options]
    daemon = Daemon(root, words, log=log, prefix=prefix)
    try:
        daemon.start()
        mount = Mount(root, daemon.pid, log)
        yield mount
        assert daemon.poll() is None, "the daemon ended by itself"
        assert mount.bugs() == 0, (mount.control / "bugs").read_text()
    finally:
        daemon.stop()
        # Shown by pytest with a failure.
        print(log.read_text(errors="replace"))
    assert daemon.poll() == 0, f"the daemon ended with {daemon.poll()}"


def has_open(pid: int, name: str) -> bool:
    """Has the process a file open whose path ends so?"""
    folder = f"/proc/{pid}/fd"
    for number in os.listdir(folder):
        # It may just be closing what it was started with.
        with suppress(FileNotFoundError):
            if os.readlink(f"{folder}/{number}").endswith(name):
                return True
    return False


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Poll until `condition()` holds; AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)

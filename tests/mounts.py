"""Real mounts for tests and benchmarks: a daemon of its own, ended in every case."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 20.0
END_SECONDS = 3.0
COMMAND = (sys.executable, "-m", "fakesys")


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


def fakesys(*arguments: str, seconds: float = 30.0) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=seconds, check=False
    )


@contextmanager
def mounted(
    folder: Path, *options: str, scenario: str = "selftest", prefix: tuple[str, ...] = ()
) -> Iterator[Mount]:
    """A mount below `folder`; `prefix` is put before the command, such as `taskset -c 0`."""
    root, log = folder / "mnt", folder / "daemon.log"
    root.mkdir()
    reader, writer = os.pipe()
    arguments = ["mount", str(root), "--foreground", "--ready-fd", str(writer)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*prefix, *COMMAND, *arguments, "--scenario", scenario, *options],
            pass_fds=(writer,),
            stdout=output,
            stderr=output,
        )
    os.close(writer)
    try:
        _wait_ready(reader, log)
        mount = Mount(root, process.pid, log)
        yield mount
        assert process.poll() is None, "the daemon ended by itself"
        assert mount.bugs() == 0, (mount.control / "bugs").read_text()
    finally:
        os.close(reader)
        _end(process, root)
        # Shown by pytest with a failure.
        print(log.read_text(errors="replace"))


def _wait_ready(reader: int, log: Path) -> None:
    ready, _, _ = select.select([reader], [], [], START_SECONDS)
    word = os.read(reader, 16) if ready else b""
    assert word == b"ready\n", f"not mounted: {log.read_text(errors='replace')}"


def _end(process: subprocess.Popen[bytes], root: Path) -> None:
    connection = _connection(root)
    for unmount in (["umount"], ["umount", "-f"], ["umount", "-l"], ["fusermount3", "-uz"]):
        if _connection(root) is None:
            break
        with suppress(subprocess.TimeoutExpired):
            subprocess.run([*unmount, str(root)], stderr=subprocess.DEVNULL, timeout=5, check=False)
    steps: tuple[Callable[[], object], ...] = (
        process.poll,
        process.terminate,
        lambda: _abort(connection),
        process.kill,
    )
    for ask_to_end in steps:
        ask_to_end()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
            break
    # A private mount namespace made meanwhile keeps the mount alive: SIGTERM is then needed.
    assert process.returncode == 0, f"the daemon ended with {process.returncode}"


def _abort(connection: str | None) -> None:
    """The last resort: the kernel ends the connection, every waiting client with it."""
    if connection is not None:
        with suppress(OSError):
            Path(f"/sys/fs/fuse/connections/{connection}/abort").write_text("1")


def _connection(root: Path) -> str | None:
    """Number of the FUSE connection mounted on `root`."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if fields[4] == str(root):
            return fields[2].split(":")[1]
    return None


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Poll until `condition()` holds; AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)

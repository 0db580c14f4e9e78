"""The recorded operations of a real tracefs, done again by system calls on a mount."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.mounts import Mount, mounted, wait_until
from tests.tracefs_exceptions import is_known, with_histograms
from tests.tracefs_replay import CASES, Replay, readable

pytestmark = pytest.mark.usefixtures("on_cpu0")

COMM = Path("/proc/self/comm")


class Interrupted(Exception):
    """A signal ended a system call."""


class Mounted:
    """System calls on the tracefs of a mount."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def open(self, path: str, flags: int) -> int:
        return os.open(self.root / path, flags, 0o600)

    def read(self, fd: int, size: int) -> bytes:
        return os.read(fd, size)

    def write(self, fd: int, data: bytes) -> int:
        return os.write(fd, data)

    def seek(self, fd: int, offset: int, whence: int) -> int:
        return os.lseek(fd, offset, whence)

    def close(self, fd: int) -> None:
        os.close(fd)

    def poll(self, fd: int, milliseconds: int) -> bool:
        return readable(fd, milliseconds)

    def stat(self, path: str) -> tuple[int, int]:
        found = os.stat(self.root / path)
        return found.st_mode, found.st_size

    def listdir(self, path: str) -> list[str]:
        return os.listdir(self.root / path)

    def mkdir(self, path: str) -> None:
        os.mkdir(self.root / path)

    def rmdir(self, path: str) -> None:
        os.rmdir(self.root / path)

    def unlink(self, path: str) -> None:
        os.unlink(self.root / path)

    def rename(self, old: str, new: str) -> None:
        os.rename(self.root / old, self.root / new)

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self.root / path, mode)

    def read_while(self, fd: int, size: int, wake: Callable[[], object]) -> bytes | None:
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.append(os.read(fd, size)), daemon=True)
        reader.start()
        wait_until(lambda: waits_for_answer(reader.native_id))
        wake()
        reader.join(5)
        assert not reader.is_alive(), "the reader was not woken"
        return got[0]

    def read_interrupted(self, fd: int, size: int) -> bool:
        def strike(*_: object) -> None:
            raise Interrupted

        before = signal.signal(signal.SIGALRM, strike)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            os.read(fd, size)
        except Interrupted:
            return True
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        return False


def waits_for_answer(thread: int | None) -> bool:
    """Does a thread of this process sleep in a request to the daemon?"""
    with suppress(FileNotFoundError):
        return "wait_answer" in Path(f"/proc/self/task/{thread}/wchan").read_text()
    return False


@pytest.fixture(scope="module")
def tracefs(
    tmp_path_factory: pytest.TempPathFactory, transport: str
) -> Iterator[tuple[Mount, Mounted]]:
    before = COMM.read_text().removesuffix("\n")
    COMM.write_text("trctest")
    try:
        folder = tmp_path_factory.mktemp("tracefs")
        with mounted(folder, "--profile", "6.18", transport=transport) as mount:
            system = Mounted(mount.root / "sys/kernel/tracing")
            know_this_process(system)
            yield mount, system
    finally:
        COMM.write_text(before)


def know_this_process(system: Mounted) -> None:
    """As on the recorded machine, the name of the client was seen before the first case."""
    warm = Replay(system, "warm")
    assert warm.run(["write", "events/enable", "1"]) == 1
    assert warm.run(["mark", "hello\n"]) == 6
    warm.finish()


@pytest.fixture
def replay(tracefs: tuple[Mount, Mounted]) -> Iterator[Replay]:
    found = Replay(tracefs[1], "replayed")
    yield found
    found.finish()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_case(replay: Replay, transport: str, case: dict[str, Any]) -> None:
    wrong = []
    for index, step in enumerate(case["steps"]):
        got, want = replay.run(step["op"]), with_histograms(step["got"])
        # fusepy has no poll: its files are always ready.
        never = transport == "fusepy" and step["op"][0] == "fpoll"
        # The recorded steps are those of root, who may open any file.
        never = never or (got == "EACCES" and os.geteuid() != 0)
        if got != want and not never and not is_known(case, index):
            wrong.append(f"{step['op']}\n   want {want!r}\n   got  {got!r}")
    assert not wrong, "\n".join(wrong)


def test_nothing_went_wrong_inside(tracefs: tuple[Mount, Mounted]) -> None:
    assert tracefs[0].bugs() == 0

"""The recorded operations of a real tracefs, done again in process."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fakesys.core.errors import Blocked, KernelError
from fakesys.core.kernel import Caller
from fakesys.machine.machine import Machine
from fakesys.tree.attr import Handle
from fakesys.tree.node import File
from tests.tracefs_exceptions import is_known, with_histograms
from tests.tracefs_replay import CASES, READ_POLL, Replay

TOP = "sys/kernel/tracing"
PID = 9173


class InProcess:
    """System calls on a Machine's tracefs, as a kernel hands them on."""

    def __init__(self, machine: Machine) -> None:
        self.fs = machine.fs
        self._open: dict[int, tuple[File, Handle, int]] = {}
        self._position: dict[int, int] = {}

    def open(self, path: str, flags: int) -> int:
        folder, _, name = path.rpartition("/")
        try:
            node = self.fs.resolve(f"{TOP}/{path}")
        except KernelError as error:
            if error.errno == errno.ENOENT and flags & os.O_CREAT:
                raise self.fs.create(self.fs.resolve(f"{TOP}/{folder}"), name) from None
            raise
        handle = self.fs.open(node, flags)
        assert isinstance(node, File)
        fd = max(self._open, default=0) + 1
        self._open[fd] = (node, handle, flags)
        self._position[fd] = 0
        return fd

    def read(self, fd: int, size: int) -> bytes:
        node, handle, flags = self._open[fd]
        nonblock = bool(flags & os.O_NONBLOCK)
        data = self.fs.read(node, handle, self._position[fd], size, nonblock=nonblock)
        self._position[fd] += len(data)
        return data

    def write(self, fd: int, data: bytes) -> int:
        node, handle, _ = self._open[fd]
        return self.fs.write(node, handle, data, self._position[fd])

    def seek(self, fd: int, offset: int, whence: int) -> int:
        if not self._open[fd][0].kind.seekable:
            raise OSError(errno.ESPIPE, "not seekable")
        base = self._position[fd] if whence == os.SEEK_CUR else 0
        self._position[fd] = base + offset
        return base + offset

    def close(self, fd: int) -> None:
        self._open.pop(fd)[1].release()
        self.fs.settle()

    def poll(self, fd: int, milliseconds: int) -> bool:
        return bool(self._open[fd][1].poll() & READ_POLL)

    def stat(self, path: str) -> tuple[int, int]:
        node = self.fs.resolve(f"{TOP}/{path}")
        return node.mode, node.size

    def listdir(self, path: str) -> list[str]:
        node = self.fs.resolve(f"{TOP}/{path}")
        return list(node.names())  # type: ignore[attr-defined]

    def mkdir(self, path: str) -> None:
        self.fs.mkdir(*self._split(path))
        self.fs.settle()

    def rmdir(self, path: str) -> None:
        self.fs.rmdir(*self._split(path))
        self.fs.settle()

    def unlink(self, path: str) -> None:
        raise self.fs.unlink(*self._split(path))

    def rename(self, old: str, new: str) -> None:
        raise self.fs.rename(*self._split(old))

    def chmod(self, path: str, mode: int) -> None:
        self.fs.chmod(self.fs.resolve(f"{TOP}/{path}"), mode)

    def read_while(self, fd: int, size: int, wake: Callable[[], object]) -> bytes | None:
        if not self.read_interrupted(fd, size):
            return None
        wake()
        return self.read(fd, size)

    def read_interrupted(self, fd: int, size: int) -> bool:
        try:
            self.read(fd, size)
        except Blocked:
            return True
        return False

    def _split(self, path: str) -> tuple[Any, str]:
        folder, _, name = path.rpartition("/")
        return self.fs.resolve(f"{TOP}/{folder}"), name


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with pytest.MonkeyPatch.context() as patch:
        # As many CPUs as the recorded machine had; and it had seen the client's name before.
        patch.setattr("os.cpu_count", lambda: 2)
        machine = Machine("6.18")
        tracing = machine.subsystems.tracing.tracing
        machine.kernel.caller = Caller(PID, 0, 0)
        tracing.shared.cmdlines.save(PID, "trctest")
        patch.setattr(tracing.shared.processes, "comm", lambda pid: "trctest")
        yield machine


@pytest.fixture
def replay(machine: Machine, request: pytest.FixtureRequest) -> Iterator[Replay]:
    found = Replay(InProcess(machine), "replayed")
    yield found
    found.finish()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_case(replay: Replay, machine: Machine, case: dict[str, Any]) -> None:
    wrong = []
    for index, step in enumerate(case["steps"]):
        machine.clock.advance(0.001)
        got, want = replay.run(step["op"]), with_histograms(step["got"])
        # An exception that is not needed any more must go, too.
        if (got != want) is not is_known(case, index):
            wrong.append(f"{step['op']}\n   want {want!r}\n   got  {got!r}")
    assert not wrong, "\n".join(wrong)

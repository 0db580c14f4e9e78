"""The end of processes, heard of in the loop of a mount."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from errno import ENOSYS

import pytest
import trio

from fakesys.transport import owners
from fakesys.transport.owners import Owners, process_of

SECONDS = 10.0


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


class Told:
    """What was called, in order."""

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.event = trio.Event()

    def ended(self) -> None:
        self.calls.append("ended")

    def settle(self) -> None:
        self.calls.append("settle")
        self.event.set()

    def bug(self, error: BaseException) -> None:
        self.calls.append(error)


def watching(steps: Callable[[Owners, Told], Callable[[], None]], *, waits: bool = True) -> Told:
    """Run a watch until it has told of the end; `steps` starts it and says what then happens."""
    told = Told()

    async def main() -> None:
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                then = steps(Owners(nursery, told.settle, told.bug), told)
                await trio.sleep(0.05)
                assert told.calls == []
                then()
                if waits:
                    await told.event.wait()

    trio.run(main)
    return told


def test_the_end_is_told_once(process: subprocess.Popen[bytes]) -> None:
    def steps(watcher: Owners, told: Told) -> Callable[[], None]:
        watcher.watch(process.pid, told.ended)
        return process.kill

    assert watching(steps).calls == ["ended", "settle"]


def test_where_the_kernel_has_no_descriptors_for_processes(
    process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_pid: int) -> int:
        raise OSError(ENOSYS, "no such system call")

    monkeypatch.setattr(os, "pidfd_open", missing)
    monkeypatch.setattr(owners, "LOOK_SECONDS", 0.01)

    def steps(watcher: Owners, told: Told) -> Callable[[], None]:
        watcher.watch(process.pid, told.ended)
        return process.kill

    assert watching(steps).calls == ["ended", "settle"]


def test_a_cancelled_watch_tells_nothing(process: subprocess.Popen[bytes]) -> None:
    def steps(watcher: Owners, told: Told) -> Callable[[], None]:
        return watcher.watch(process.pid, told.ended)

    assert watching(steps, waits=False).calls == []


def test_a_number_without_process_is_not_watched(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()

    def steps(watcher: Owners, told: Told) -> Callable[[], None]:
        return watcher.watch(process.pid, told.ended)

    assert watching(steps, waits=False).calls == []


def test_a_process_that_ends_before_it_is_waited_for(
    process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_pid: int) -> int:
        raise ProcessLookupError

    monkeypatch.setattr(os, "pidfd_open", gone)
    told = Told()

    async def main() -> None:
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                Owners(nursery, told.settle, told.bug).watch(process.pid, told.ended)

    trio.run(main)
    assert told.calls == ["ended", "settle"]


def test_a_failing_model_is_a_bug(process: subprocess.Popen[bytes]) -> None:
    failure = RuntimeError("a bug")

    def fail() -> None:
        raise failure

    def steps(watcher: Owners, told: Told) -> Callable[[], None]:
        watcher.watch(process.pid, fail)
        return process.kill

    assert watching(steps).calls == [failure, "settle"]


def test_a_thread_belongs_to_its_process() -> None:
    found: list[int] = []

    def look() -> None:
        found.append(process_of(threading.get_native_id()))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [os.getpid()]
    assert process_of(os.getpid()) == os.getpid()
    assert process_of(4194304) == 4194304

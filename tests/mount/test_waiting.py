"""Reads that block, and how they end; poll and its wake-ups."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from fakesys.daemon.launch import Daemon
from fakesys.transport import mounting
from tests.mounts import Mount, wait_until

ROUNDS = 5
NO_POLL = pytest.mark.differs_on_fusepy("fusepy has no poll: its files are always ready")


def waits_for_the_daemon(pid: int) -> bool:
    """Does the process sleep in the kernel until a FUSE request is answered?"""
    return Path(f"/proc/{pid}/wchan").read_text() in ("request_wait_answer", "fuse_simple_request")


def sleeps_in_poll(thread: threading.Thread) -> bool:
    """Does this thread sleep in poll(2)?"""
    return "poll" in Path(f"/proc/self/task/{thread.native_id}/wchan").read_text()


def drain(descriptor: int) -> None:
    """Read a non-blocking stream until it has nothing more."""
    with suppress(BlockingIOError):
        while os.read(descriptor, 65536):
            pass


@contextmanager
def blocked_reader(mount: Mount, *prefix: str) -> Iterator[subprocess.Popen[bytes]]:
    """`cat` on the uevent stream, waiting."""
    stream = mount.control / "uevents_pipe"
    with subprocess.Popen([*prefix, "cat", str(stream)], stdout=subprocess.PIPE) as process:
        try:
            if not prefix:
                wait_until(lambda: waits_for_the_daemon(process.pid))
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_a_blocked_reader(shared_mount: Mount, number: signal.Signals) -> None:
    with blocked_reader(shared_mount) as process:
        process.send_signal(number)
        assert process.wait(60) == -number


def test_timeout_ends_a_blocked_reader(shared_mount: Mount) -> None:
    with blocked_reader(shared_mount, "timeout", "0.5") as process:
        assert process.wait(60) == 124


@pytest.mark.skipif(
    os.geteuid() != 0 and not any(mounting.CONNECTIONS.glob("*")),
    reason="without a mounted fusectl only root may abort a connection",
)
def test_an_aborted_connection_frees_its_readers_and_leaves_no_mount(
    tmp_path: Path, transport: str
) -> None:
    point = tmp_path / "mnt"
    point.mkdir()
    words = ["--scenario", "selftest", "--transport", transport]
    with Daemon(point, words, log=tmp_path / "log") as daemon:
        found = mounting.find(point)
        assert found is not None
        with blocked_reader(Mount(point, daemon.pid, tmp_path / "log")) as process:
            mounting.abort(found)
            assert process.wait(5) == 1
        wait_until(lambda: daemon.poll() == 0)
        assert mounting.find(point) is None


def test_an_interrupted_reader_leaves_the_stream_intact_for_the_next(shared_mount: Mount) -> None:
    with blocked_reader(shared_mount) as process:
        process.send_signal(signal.SIGINT)
        process.wait(5)
    with blocked_reader(shared_mount) as process:
        assert process.stdout is not None
        (shared_mount.device / "uevent").write_text("change\n")
        line = process.stdout.readline()
        assert line.startswith(b"ACTION=")


def test_a_write_wakes_the_blocked_reader_of_a_stream(shared_mount: Mount) -> None:
    descriptor = os.open(shared_mount.control / "uevents_pipe", os.O_RDONLY)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(os.read(descriptor, 65536)))
    try:
        os.set_blocking(descriptor, False)
        drain(descriptor)
        os.set_blocking(descriptor, True)
        reader.start()
        (shared_mount.device / "uevent").write_text("change\n")
        reader.join(5)
        assert b"ACTION=change\nDEVPATH=/devices/virtual/selftest/selftest0\n" in got[0]
    finally:
        os.close(descriptor)


def test_nonblock_set_after_open_is_seen(shared_mount: Mount) -> None:
    descriptor = os.open(shared_mount.control / "log_pipe", os.O_RDONLY)
    try:
        os.set_blocking(descriptor, False)
        drain(descriptor)
        with pytest.raises(BlockingIOError):
            os.read(descriptor, 1)
    finally:
        os.close(descriptor)


@contextmanager
def watched(path: Path, events: int) -> Iterator[tuple[int, select.poll]]:
    """A descriptor of a file that was read, and a poll object on it."""
    descriptor = os.open(path, os.O_RDONLY)
    poll = select.poll()
    poll.register(descriptor, events)
    try:
        os.read(descriptor, 4096)
        yield descriptor, poll
    finally:
        os.close(descriptor)


@NO_POLL
def test_notify_wakes_a_poller_until_it_reads_again(shared_mount: Mount) -> None:
    with watched(shared_mount.device / "notify", select.POLLPRI) as (descriptor, poll):
        assert poll.poll(0) == []
        for _ in range(ROUNDS):
            woken: list[list[tuple[int, int]]] = []

            def wait(woken: list[list[tuple[int, int]]] = woken) -> None:
                woken.append(poll.poll(5000))

            thread = threading.Thread(target=wait)
            thread.start()
            wait_until(partial(sleeps_in_poll, thread))
            shared_mount.command("selftest/notify")
            thread.join(60)
            assert woken == [[(descriptor, select.POLLPRI | select.POLLERR)]]
            assert poll.poll(0) == [(descriptor, select.POLLPRI | select.POLLERR)]
            os.pread(descriptor, 4096, 0)
            assert poll.poll(0) == []


@NO_POLL
def test_unplugging_wakes_a_poller(mount: Mount) -> None:
    with watched(mount.device / "notify", select.POLLPRI) as (descriptor, poll):
        mount.command("selftest/remove")
        assert poll.poll(2000) == [(descriptor, select.POLLPRI | select.POLLERR)]
        with pytest.raises(OSError, match="No such device"):
            os.pread(descriptor, 10, 0)


def test_a_debugfs_file_is_always_ready_and_never_urgent(shared_mount: Mount) -> None:
    path = shared_mount.root / "sys/kernel/debug/selftest/seq"
    with watched(path, select.POLLIN | select.POLLPRI) as (descriptor, poll):
        assert poll.poll(0) == [(descriptor, select.POLLIN)]

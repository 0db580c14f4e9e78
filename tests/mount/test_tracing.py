"""tracefs through system calls: waiting readers and their ends, instances under attack."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EBUSY, ESPIPE
from pathlib import Path

import pytest

from tests.mount.test_waiting import waits_for_the_daemon
from tests.mounts import Mount, has_open, wait_until

pytestmark = pytest.mark.usefixtures("on_cpu0")

SECONDS = 10.0
ATTACKERS, ROUNDS = 5, 40
# One attacker: makes and removes one instance, and looks at what the others have.
ATTACK = """
import os, sys

top, rounds = sys.argv[1], int(sys.argv[2])
for _ in range(rounds):
    for call in (os.mkdir, os.rmdir):
        try:
            call(f"{top}/same")
        except OSError as error:
            assert error.errno in (2, 16, 17), error
    for name in os.listdir(top):
        try:
            file = os.open(f"{top}/{name}/events/kvm/enable", os.O_WRONLY)
            try:
                os.write(file, b"1")
            finally:
                os.close(file)
            with open(f"{top}/{name}/trace") as file:
                file.read()
        except OSError as error:
            assert error.errno in (2, 5, 19), error
"""


@pytest.fixture
def tracing(shared_mount: Mount) -> Iterator[Path]:
    """The top directory, as new afterwards."""
    path = shared_mount.root / "sys/kernel/tracing"
    yield path
    shared_mount.command("reset")
    assert shared_mount.bugs() == 0


@contextmanager
def cat(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A `cat` that waits for events."""
    with subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as it:
        try:
            # Opening takes a request too.
            wait_until(lambda: has_open(it.pid, str(path)) and waits_for_the_daemon(it.pid))
            yield it
        finally:
            it.kill()


def test_control_c_ends_a_reader_of_the_pipe(tracing: Path) -> None:
    with cat(tracing / "trace_pipe") as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == -signal.SIGINT
    # The place is free again, and nothing is lost.
    (tracing / "trace_marker").write_text("after\n")
    descriptor = os.open(tracing / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert b": after\n" in os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def test_a_waiting_reader_gets_each_event_as_it_comes(tracing: Path) -> None:
    with cat(tracing / "trace_pipe") as process:
        assert process.stdout is not None
        for number in range(3):
            (tracing / "trace_marker").write_text(f"number {number}\n")
            assert process.stdout.readline().endswith(b": number %d\n" % number)
        (tracing / "tracing_on").write_text("0")
        # It has got something, and nothing more will come.
        assert process.wait(SECONDS) == 0


def test_the_second_reader_is_refused(tracing: Path) -> None:
    with cat(tracing / "trace_pipe"):
        for path in ("trace_pipe", "per_cpu/cpu0/trace_pipe"):
            done = subprocess.run(
                ["cat", str(tracing / path)], capture_output=True, timeout=SECONDS, check=False
            )
            assert done.returncode == 1
            assert b"Device or resource busy" in done.stderr
    wait_until(lambda: can_open(tracing / "trace_pipe"))


def can_open(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError as refusal:
        assert refusal.errno == EBUSY
        return False
    return True


def test_an_instance_in_use_is_not_removed(tracing: Path) -> None:
    instance = tracing / "instances/busy"
    instance.mkdir()
    with pytest.raises(FileExistsError):
        instance.mkdir()
    with cat(instance / "trace_pipe") as process:
        with pytest.raises(OSError) as refusal:
            instance.rmdir()
        assert refusal.value.errno == EBUSY
        process.send_signal(signal.SIGTERM)
        process.wait(SECONDS)
    wait_until(lambda: removed(instance))
    assert not instance.exists()


def removed(path: Path) -> bool:
    try:
        path.rmdir()
    except OSError as refusal:
        # The release of the last descriptor may still be on its way.
        assert refusal.errno == EBUSY
        return False
    return True


def test_many_who_make_and_remove_leave_a_usable_tree(tracing: Path) -> None:
    top = tracing / "instances"
    attackers = [
        subprocess.Popen(
            ["python3", "-c", ATTACK, str(top), str(ROUNDS)], stderr=subprocess.PIPE, text=True
        )
        for _ in range(ATTACKERS)
    ]
    try:
        for attacker in attackers:
            _, said = attacker.communicate(timeout=60)
            assert attacker.returncode == 0, said
    finally:
        for attacker in attackers:
            attacker.kill()
    with suppress(FileNotFoundError):
        (top / "same").rmdir()
    (top / "same").mkdir()
    assert {"events", "options", "per_cpu", "trace", "trace_pipe"} < set(os.listdir(top / "same"))
    (top / "same/trace_marker").write_text("alive\n")
    assert ": alive\n" in (top / "same/trace").read_text()
    (top / "same").rmdir()
    assert os.listdir(top) == []


@pytest.mark.differs_on_fusepy("fusepy has no poll: its files are always ready")
def test_poll_wakes_for_an_event_and_at_the_fill_level(tracing: Path) -> None:
    (tracing / "buffer_size_kb").write_text("400")
    pipe = tracing / "per_cpu/cpu0/trace_pipe"
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        assert poll.poll(0) == []
        (tracing / "trace_marker").write_text("x\n")
        assert poll.poll(0) == []
        (tracing / "buffer_percent").write_text("0")
        assert poll.poll(SECONDS * 1000) == [(descriptor, select.POLLIN)]
        os.read(descriptor, 4096)
        assert poll.poll(0) == []
        with pytest.raises(OSError) as refusal:
            os.lseek(descriptor, 0, os.SEEK_SET)
        assert refusal.value.errno == ESPIPE
    finally:
        os.close(descriptor)


def test_nonblocking_can_be_set_later(tracing: Path) -> None:
    descriptor = os.open(tracing / "per_cpu/cpu0/trace_pipe_raw", os.O_RDONLY)
    try:
        os.set_blocking(descriptor, False)
        with pytest.raises(BlockingIOError):
            os.read(descriptor, 4096)
        (tracing / "trace_marker").write_text("x\n")
        assert len(os.read(descriptor, 100)) == 100
        assert len(os.read(descriptor, 8192)) == 3996
    finally:
        os.close(descriptor)

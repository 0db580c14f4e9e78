"""`fakesys/writers`: every write with who made it, for a reader that may be slow."""

from __future__ import annotations

import json
import os
import select
from collections.abc import Iterator
from typing import Any

import pytest

from fakesys.core.errors import Blocked, KernelError
from fakesys.core.kernel import Caller
from fakesys.machine.machine import Machine
from fakesys.subsystems.control import writers
from fakesys.subsystems.control.writers import WritersFile
from fakesys.tree.node import File
from tests.whole_machine import AP, CONTROL, CTL, TRACING, attempt

WRITER = Caller(pid=os.getpid(), uid=1000, gid=100)
with open(f"/proc/{WRITER.pid}/comm") as own:
    COMM = own.read().strip()


@pytest.fixture
def machine() -> Machine:
    return Machine("6.1", "default")


@pytest.fixture
def opened(machine: Machine) -> Iterator[WritersFile]:
    """An open `writers`; the present call is one of this process."""
    node = machine.fs.resolve(f"{CONTROL}/writers")
    assert isinstance(node, File)
    handle = machine.fs.open(node, os.O_RDONLY)
    assert isinstance(handle, WritersFile)
    machine.kernel.caller = WRITER
    yield handle
    handle.release()
    assert machine.fs.recorder is None


def told(opened: WritersFile) -> list[dict[str, Any]]:
    """What there is to read."""
    data = b""
    try:
        while piece := opened.read(0, 4096, nonblock=True):
            data += piece
    except KernelError as refusal:
        assert refusal.name == "EAGAIN"
    return [json.loads(line) for line in data.decode().splitlines()]


def brief(lines: list[dict[str, Any]]) -> list[str]:
    return [f"{line['call']} {line['result']} {line['path']} {line['text']}" for line in lines]


def test_a_write_and_a_refusal(machine: Machine, opened: WritersFile) -> None:
    machine.clock.advance(1.5)
    machine.write(f"{AP}/apmask", "-4\n")
    attempt(machine, f"{AP}/apmask", "nonsense")
    taken, refused = told(opened)
    assert taken == {
        "time": 1.5, "pid": WRITER.pid, "uid": 1000, "comm": COMM, "call": "write",
        "path": f"{AP}/apmask", "text": "-4\n", "size": 3, "result": "ok", "why": "",
    }  # fmt: skip
    reason = machine.read(f"{CONTROL}/last_error").rstrip("\n").split(" ", 3)[3]
    assert (refused["result"], refused["why"], refused["text"]) == ("EINVAL", reason, "nonsense")
    assert reason


def test_what_else_changes_the_machine(machine: Machine, opened: WritersFile) -> None:
    attempt(machine, f"{TRACING}/instances/mkdir", "a")
    attempt(machine, f"{TRACING}/instances/mkdir", "a")
    attempt(machine, f"{TRACING}/instances/rmdir", "a")
    machine.fs.open(machine.fs.resolve(f"{TRACING}/trace"), os.O_WRONLY | os.O_TRUNC).release()
    assert brief(told(opened)) == [
        f"mkdir ok {TRACING}/instances/a ",
        f"mkdir EEXIST {TRACING}/instances/a ",
        f"rmdir ok {TRACING}/instances/a ",
        f"truncate ok {TRACING}/trace ",
    ]


def test_a_text_is_told_as_it_was_written(machine: Machine, opened: WritersFile) -> None:
    """Not as the recording has it, in which every command names the owner of a VM."""
    machine.write(CTL, "vm create a\n")
    marker = machine.fs.resolve(f"{TRACING}/trace_marker")
    assert isinstance(marker, File)
    handle = machine.fs.open(marker, os.O_WRONLY)
    for data in ("ü <b>".encode(), b"\xff\0", b"x" * 2 * writers.LONGEST_TEXT):
        machine.fs.write(marker, handle, data)
    handle.release()
    lines = told(opened)
    texts = [line["text"] for line in lines]
    assert texts[:3] == ["vm create a\n", "ü <b>", "\\xff\0"]
    assert texts[3].strip("x") == ""
    assert len(texts[3]) <= writers.LONGEST_TEXT
    assert lines[3]["size"] >= len(texts[3])


def test_a_long_text_is_cut(machine: Machine, opened: WritersFile) -> None:
    attempt(machine, f"{CONTROL}/snapshot", "x" * 10000)
    (line,) = told(opened)
    assert (len(line["text"]), line["size"]) == (writers.LONGEST_TEXT, 10000)


def test_the_writer_of_a_reset_and_of_a_load(machine: Machine, opened: WritersFile) -> None:
    """They make another kernel, which has not seen the call."""
    saved = machine.save().decode()
    machine.write(f"{CONTROL}/reset", "1\n")
    machine.kernel.caller = WRITER
    machine.write(f"{CONTROL}/snapshot", saved)
    lines = [line for line in told(opened) if line["path"].endswith(("/reset", "/snapshot"))]
    assert [line["path"].rpartition("/")[2] for line in lines] == ["reset", "snapshot"]
    assert {line["pid"] for line in lines} == {WRITER.pid}


def test_who_is_gone_and_the_machine_itself(machine: Machine, opened: WritersFile) -> None:
    machine.kernel.caller = Caller(pid=1 << 23, uid=5, gid=5)
    machine.write(f"{AP}/apmask", "-4\n")
    machine.kernel.caller = Caller(0, 0, 0)
    machine.write(f"{AP}/apmask", "+4\n")
    with machine.control.recordings.unrecorded():
        machine.write(f"{AP}/apmask", "+5\n")
    assert [(line["pid"], line["uid"], line["comm"]) for line in told(opened)] == [
        (1 << 23, 5, "<...>"), (0, 0, "fakesys"),
    ]  # fmt: skip


def test_the_end_of_an_owner_is_no_write(machine: Machine, opened: WritersFile) -> None:
    recordings = machine.control.recordings
    recordings.happened(recordings.begin(), CTL, b"vm destroy a\n")
    assert told(opened) == []


def test_a_slow_reader_holds_little(
    machine: Machine, opened: WritersFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "MOST_KEPT", 10)
    for _ in range(3):
        machine.write(f"{AP}/apmask", "+5\n")
    assert len(told(opened)) == 1
    machine.write(f"{AP}/apmask", "+6\n")
    lost, line = told(opened)
    assert lost == {"lost": 2}
    assert line["text"] == "+6\n"


def test_it_waits_and_is_polled(machine: Machine, opened: WritersFile) -> None:
    assert attempt(machine, f"{CONTROL}/writers", "x") == "EACCES"
    with pytest.raises(KernelError, match="only read"):
        opened.write(b"x", 0, nonblock=True)
    told(opened)
    assert opened.poll() == 0
    with pytest.raises(Blocked):
        opened.read(0, 100, nonblock=False)
    woken: list[int] = []
    opened.waiters().add("x", lambda: woken.append(1))
    machine.write(f"{AP}/apmask", "+5\n")
    assert woken == [1]
    assert opened.poll() & select.POLLIN


def test_a_recording_beside_it_hears_its_own(machine: Machine, opened: WritersFile) -> None:
    recording = machine.control.recordings.open()
    machine.write(CTL, "vm create a\n")
    script = recording.read(0, 1 << 16, nonblock=True).decode()
    recording.release()
    assert f"pid={WRITER.pid}" in script.splitlines()[-1]
    assert brief(told(opened)) == [f"write ok {CTL} vm create a\n"]
    assert machine.fs.recorder is not None

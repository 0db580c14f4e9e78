"""Scenario and recording files with anything in them: one line, a status, nothing else.

`FAKESYS_LONG=1` tries twenty times as many. A failure names the seed's number and keeps the file.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from types import FrameType

import pytest

from fakesys.cli import main
from fakesys.machine.machine import Machine
from fakesys.machine.scenario import SHIPPED, parse
from fakesys.subsystems.control.script import preamble
from tests.changed_files import changed_files
from tests.long import LONG

COUNT = 3000 if LONG else 150
# Against hanging only; most take some 30 ms.
SECONDS = 60
CTL = "sys/kernel/debug/fakesys/kvm/ctl"
RW = "sys/devices/virtual/selftest/selftest0/rw"

EVERY_KEY = f"""
description = "Every key once."
name = "every"
profile = "6.1"
seed = 7
selftest = true
[ap]
preset = "empty"
domains = [4, 0x47]
control_domains = [4]
max_adapter_id = 60
max_domain_id = 200
[[ap.card]]
id = 0x05
type = "CEX5C"
serialnr = "ABCDEFGH"
fw_version = "7.31"
depth = 4
domains = [4]
[[ap.card]]
id = 6
type = "CEX6"
mode = "ep11"
[kvm]
preset = ["linux-boot vcpus=2 name=p"]
[[kvm.vm]]
name = "g"
vcpus = 2
options = {{ pid = 700, fd = 12 }}
[[at]]
seconds = 1.5
write = "{RW}"
text = "1400"
[[at]]
seconds = 2.0
write = "sys/bus/ap/apmask"
text = "nonsense"
expect = "EINVAL"
[[expect]]
seconds = 2.5
read = "{RW}"
text = "1400"
[[expect]]
read = "sys/none"
error = "ENOENT"
"""
SCENARIOS = (EVERY_KEY.encode(), (SHIPPED / "selftest.toml").read_bytes())

BODY = rf"""start 1.5
put ok {CTL} 'vm create a pid=700 fd=11\n'
advance 0.25
put EINVAL {CTL} 'nonsense\n'
mkdir ok 'sys/kernel/tracing/instances/a b'
rmdir ok 'sys/kernel/tracing/instances/a b'
clear sys/kernel/tracing/trace
add ok sys/kernel/tracing/set_event 'kvm:kvm_exit\n'
block ok sys/kernel/tracing/set_event_pid '700\n701\n'
hold
put ok sys/bus/ap/apmask '\0555\n'
put ok sys/kernel/tracing/trace_marker '50%%\n'
"""


def script(scenario: str) -> bytes:
    machine = Machine("6.1", parse(scenario.encode(), "x.toml"))
    head = preamble("0", machine.recorded.mount_options, machine.recorded.description)
    return (head + BODY).encode()


RECORDINGS = (
    script("[ap]\npreset = 'empty'\n"),
    script(EVERY_KEY),
    # Mutations of the body only.
    f"#!/bin/sh\n#: {Machine('6.1', 'empty').recorded.description}\n\n{BODY}".encode(),
)
HEAD = RECORDINGS[0].partition(b"\n\n")[0] + b"\n\n"


class Ended(Exception):
    """The time is over."""


@contextmanager
def limited() -> Iterator[None]:
    """Stop what does not end by itself."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise Ended

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fakesys(*words: str) -> tuple[int, list[str]]:
    """Status and lines of standard error; in this process, so that a traceback is a failure."""
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["fakesys", *words])
        with limited(), pytest.raises(SystemExit) as end:
            main()
    assert "Traceback" not in out.getvalue() + err.getvalue()
    text = err.getvalue()
    assert text == "" or text.endswith("\n")
    # Not `splitlines`: a form feed or a line separator is no end of a line for a terminal.
    return int(end.value.code or 0), text.split("\n")[:-1]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder that looks like a mount, beside files that are nobody's business."""
    root = tmp_path / "mnt"
    control = root / "sys/kernel/debug/fakesys"
    for name in ("clock", "kvm"):
        (control / name).mkdir(parents=True)
    for name in ("clock/advance", "kvm/ctl", "writes", "reset", "last_error"):
        (control / name).touch()
    (control / "clock/rate").write_text("1\n")
    (control / "clock/now").write_text("0.5\n")
    for name in ("sys/kernel/tracing/instances", "sys/bus/ap"):
        (root / name).mkdir(parents=True)
    for name in ("sys/kernel/tracing/trace", "sys/kernel/tracing/set_event", "sys/bus/ap/apmask"):
        (root / name).touch()
    (root / "inside").symlink_to("sys/bus/ap/apmask")
    (root / "out").symlink_to("..")
    (root / "link").symlink_to(tmp_path)
    (tmp_path / "victim").write_text("whole")
    (tmp_path / "empty").mkdir()
    return root


def outside(root: Path) -> dict[str, bytes | None]:
    """All that lies beside the mount, with its content."""
    return {
        str(path): None if path.is_dir() else path.read_bytes()
        for path in root.parent.rglob("*")
        if not path.is_relative_to(root) and not path.name.startswith("case")
    }


def test_the_bases_are_taken(tmp_path: Path) -> None:
    for data in SCENARIOS:
        (tmp_path / "case.toml").write_bytes(data)
        assert fakesys("run", str(tmp_path / "case.toml")) == (0, [])
    for data in RECORDINGS:
        (tmp_path / "case.sh").write_bytes(data)
        status, lines = fakesys("replay", str(tmp_path / "case.sh"))
        assert (status, len(lines)) == (0, 1), lines


def test_scenarios(tmp_path: Path) -> None:
    file = tmp_path / "case.toml"
    seen = set()
    for number, data in enumerate(changed_files(SCENARIOS, 1, COUNT)):
        file.write_bytes(data)
        status, lines = fakesys("run", str(file))
        assert status in (0, 1, 2), number
        assert len(lines) == bool(status), (number, lines)
        assert status != 2 or lines[0].startswith(f"fakesys: {file}: "), (number, lines)
        assert status != 2 or len(lines[0]) < 500 + len(str(file)), number
        seen.add(status)
    assert seen == {0, 1, 2}
    assert [path.name for path in tmp_path.iterdir()] == ["case.toml"]


@pytest.mark.parametrize("where", ["memory", "folder"])
def test_recordings(place: Path, where: str) -> None:
    file = place.parent / "case.sh"
    before = outside(place)
    words = [] if where == "memory" else ["--mount", str(place)]
    refused = 0
    for number, data in enumerate(changed_files(RECORDINGS, 2, COUNT)):
        file.write_bytes(data)
        status, lines = fakesys("replay", str(file), *words)
        assert status in (0, 1), number
        assert lines, number
        # Every step that differs is named, then one line for all of it.
        assert all(line.startswith(f"{file}:") for line in lines[:-1]), (number, lines)
        if len(lines) == 1 and status:
            refused += 1
            assert len(lines[0]) < 500 + len(str(file)), number
        assert outside(place) == before, number
    assert refused > COUNT // 20


HOSTILE_PATHS = (
    "{victim}", "../victim", "sys/../../victim", "out/victim", "link/victim", "..", "/", "''",
    "out/new", "link/new", "../new", "{new}", "/proc/self/cwd",
)  # fmt: skip
WORDS = ("put ok {} x", "add ok {} x", "block ok {} x", "clear {}", "mkdir ok {}", "rmdir ok {}")


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_no_step_leads_out_of_a_mount(place: Path, word: str, path: str) -> None:
    path = path.format(victim=place.parent / "victim", new=place.parent / "new")
    if word.startswith("rmdir"):
        path = path.replace("victim", "empty")
    file = place.parent / "case.sh"
    before = outside(place)
    file.write_bytes(HEAD + word.format(path).encode() + b"\n")
    status, lines = fakesys("replay", str(file), "--mount", str(place))
    assert status == 1
    assert str(file) in lines[0]
    assert outside(place) == before
    if path.startswith(("out", "link")):
        assert "EXDEV, recorded ok" in lines[0]
        return
    assert lines[0].endswith("is no path below the mount")
    # By hand, too.
    done = subprocess.run(
        ["sh", str(file), str(place)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "not below the mount" in done.stderr
    assert outside(place) == before


def test_links_inside_are_followed(place: Path) -> None:
    file = place.parent / "case.sh"
    file.write_bytes(HEAD + b"put ok inside 'x'\nadd ok inside 'y'\nmkdir ok a\nrmdir ok a/\n")
    assert fakesys("replay", str(file), "--mount", str(place))[0] == 0
    assert (place / "sys/bus/ap/apmask").read_text() == "xy"


def test_without_openat2_nothing_is_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A number that no kernel has.
    monkeypatch.setattr("fakesys.machine.untrusted.below.OPENAT2", 4242)
    file = place.parent / "case.sh"
    file.write_bytes(HEAD + b"put ok inside 'x'\n")
    status, lines = fakesys("replay", str(file), "--mount", str(place))
    assert (status, len(lines)) == (1, 1)
    assert "this kernel has no openat2(2)" in lines[0]
    assert (place / "inside").read_text() == ""

"""Texts written to a real tracefs and what it made of them, written again here.

`answers-6.18.json` was recorded from random texts: 1100 filters, 300 trigger lines, one long
sequence of writes to control files; and `trace` under many sets of options, empty and with four
markers. A kernel of two CPUs answered.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakesys.core.errors import KernelError
from fakesys.machine.machine import Machine
from fakesys.tree.node import File
from tests.tracefs_exceptions import with_histograms

ORACLE = Path(__file__).parent.parent / "oracle" / "tracefs" / "answers-6.18.json"
ANSWERS: dict[str, Any] = json.loads(ORACLE.read_text())
INSTANCE = "sys/kernel/tracing/instances/real"
# Options of tracers, which this tracefs does not have, or not with an effect.
OTHER_OPTIONS = re.compile("(no)?(function-.*|test_nop_.*)")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    machine = Machine("6.18")
    machine.fs.mkdir(machine.fs.resolve("sys/kernel/tracing/instances"), "real")
    yield machine
    assert not machine.control.bugs


def put(machine: Machine, path: str, text: str, flags: int = os.O_WRONLY) -> int | str:
    """Bytes taken, or the errno's name."""
    node = machine.fs.resolve(f"{INSTANCE}/{path}")
    assert isinstance(node, File)
    handle = machine.fs.open(node, flags)
    try:
        return machine.fs.write(node, handle, text.encode("latin-1"), nonblock=True)
    except KernelError as refusal:
        return refusal.name
    finally:
        handle.release()


def error_log(machine: Machine) -> str:
    text = machine.read(f"{INSTANCE}/error_log")
    put(machine, "error_log", "\n", os.O_WRONLY | os.O_TRUNC)
    return re.sub(r"^\[ *\d+\.\d+\]", "[TS]", text, flags=re.MULTILINE)


def test_filters(machine: Machine) -> None:
    wrong = []
    for event, text, *want in ANSWERS["filters"]:
        answer = put(machine, f"events/{event}/filter", text)
        got = [answer, machine.read(f"{INSTANCE}/events/{event}/filter"), error_log(machine)]
        if got != want:
            wrong.append(f"{event} {text!r}\n  want {want}\n  got  {got}")
    assert not wrong, "\n".join(wrong)


def test_triggers(machine: Machine) -> None:
    wrong = []
    for event, text, *recorded in ANSWERS["triggers"]:
        want = with_histograms(recorded)
        path = f"events/{event}/trigger"
        answer = put(machine, path, text)
        got = [answer, machine.read(f"{INSTANCE}/{path}"), error_log(machine)]
        if got != want:
            wrong.append(f"{event} {text!r}\n  want {want}\n  got  {got}")
        remove_triggers(machine, path)
    assert not wrong, "\n".join(wrong)


def remove_triggers(machine: Machine, path: str) -> None:
    for line in machine.read(f"{INSTANCE}/{path}").splitlines():
        if not line.startswith("#"):
            put(machine, path, "!" + line.split(" if ")[0].replace(":unlimited", ""))
    assert machine.read(f"{INSTANCE}/{path}").startswith("# Available triggers:")


def test_settings(machine: Machine) -> None:
    """Each step is [file, with O_TRUNC?, text, answer, what changed since the step before]."""
    now: dict[str, Any] = {}
    for number, (path, truncate, text, want, changed) in enumerate(ANSWERS["settings"]):
        step = f"step {number}: {path} {text!r}"
        flags = os.O_WRONLY | (os.O_TRUNC if truncate else 0)
        if text:
            assert put(machine, path, text, flags) == want, step
        else:
            machine.fs.open(machine.fs.resolve(f"{INSTANCE}/{path}"), flags).release()
        expect(now, changed)
        for name, state in now.items():
            assert shown(machine, name) == with_histograms(state), f"{step}: {name}"


def expect(now: dict[str, Any], changed: dict[str, Any]) -> None:
    """What every file says from now on; of trace_options a step says what is new."""
    for name, state in changed.items():
        if name == "trace_options" and name in now:
            other = {line.removeprefix("no") if line[:2] == "no" else f"no{line}" for line in state}
            now[name] = (now[name] - other) | set(state)
        else:
            now[name] = set(state) if name == "trace_options" else state


def shown(machine: Machine, name: str) -> Any:
    """What a file says: of trace_options the lines, of many events their number."""
    text = machine.read(f"{INSTANCE}/{name}")
    if name == "trace_options":
        return {line for line in text.splitlines() if not OTHER_OPTIONS.fullmatch(line)}
    if name == "set_event" and text.count("\n") > 8:
        return text.count("\n")
    return text


def set_options(machine: Machine, on: list[str]) -> None:
    for name in ANSWERS["options"]:
        put(machine, "trace_options", name if name in on else f"no{name}")


def same_words(text: str) -> str:
    """What differs between machines and moments replaced, as in the recording."""
    for pattern, word in (
        ("ffffffff8[0-9a-f]{7}", "ADDR"),
        (r"(?m)^ *\S+-\d+ +(\(-------\) )?", r"TASK \1"),
        (r" +\d+\.\d{6}: ", " TS: "),
        (r" +\d+us[ +!#*@$]: ", " NNus : "),
        (r"\[[0-9a-f]{8}\] \d+\.\d{3}ms \(\+\d+\.\d{3}ms\)", "[X] Nms (+Nms)"),
        (r"(?m)^ *\S+ +\d+ (  0 \d 0)", r"VTASK \1"),
        (r"(?m)^-?\d+ 0 \d+ ", "PID 0 TS "),
        ("(?m)^[0-9a-f]{8} 00000000 [0-9a-f]{16} ", "PIDX 0 TSX "),
        (r"(?s)[^\n]{2}\0\0\0\0\0\0.{8}(type|#|t)", r"BIN\1"),
        (r" on 6.18.\S+", " on R"),
    ):
        text = re.sub(pattern, word, text)
    return text


@pytest.mark.parametrize("part", ["empty", "texts"])
def test_text_of_trace(machine: Machine, part: str) -> None:
    if part == "texts":
        for data in ("one\n", "two", "\n"):
            put(machine, "trace_marker", data)
            if data == "two":
                put(machine, "trace_marker_raw", "abcdefghi")
    wrong = []
    for on, want in ANSWERS[part]:
        set_options(machine, on)
        got = same_words(machine.read(f"{INSTANCE}/trace"))
        if got != want:
            wrong.append(f"{on}\n  want {want!r}\n  got  {got!r}")
    assert not wrong, "\n".join(wrong)

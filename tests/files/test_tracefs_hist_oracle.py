"""Hist triggers as Linux 6.1.192 took or refused them, with what its error_log said."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fakesys.core.errors import KernelError
from fakesys.machine.machine import Machine

TRACING = "sys/kernel/tracing"
EVENT = f"{TRACING}/events/sched/sched_waking"
RECORDED = json.loads((Path(__file__).parent.parent / "oracle/tracefs/hist-6.1.json").read_text())
ENTRY = re.compile(r"^\[ *[\d.]+\] hist:sched:sched_waking: error: (.*)\n(.*)\n( *)\^$", re.M)


def asked(machine: Machine, text: str) -> None:
    node = machine.fs.resolve(f"{EVENT}/trigger")
    handle = machine.fs.open(node, 1)
    try:
        machine.fs.write(node, handle, text.encode())  # type: ignore[arg-type]
    finally:
        handle.release()


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: case["command"])
def test_a_histogram_is_taken_or_refused_as_by_the_kernel(case: dict[str, Any]) -> None:
    machine = Machine("6.1")
    try:
        asked(machine, case["command"])
    except KernelError:
        assert not case["trigger"]
    shown = machine.read(f"{EVENT}/trigger").splitlines()
    assert [line for line in shown if not line.startswith("#")] == case["trigger"]
    found = ENTRY.findall(machine.read(f"{TRACING}/error_log"))
    assert [[message, len(blanks) - 11] for message, _, blanks in found] == case["errors"]

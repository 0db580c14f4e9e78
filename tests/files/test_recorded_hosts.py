"""Profiles against recordings of ordinary hosts: formats of events, runs of a small VM."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from fakesys.machine.machine import Machine
from tests.replay_kvm.machines import KVM, InProcess, Recorder
from tests.replay_kvm.recordings import ORACLE, load
from tests.replay_kvm.replay import Replay

HOSTS = Path(__file__).parent.parent / "oracle" / "kvm-hosts"
EVENTS = "sys/kernel/tracing/events"


def recorded(name: str) -> Any:
    return json.loads(gzip.decompress((HOSTS / f"{name}.json.gz").read_bytes()))


@pytest.mark.parametrize("profile", ["6.1", "6.12"])
def test_every_event_has_the_format_of_a_real_host(profile: str) -> None:
    machine = Machine(profile, "empty")
    found = {
        f"{system}/{event}": machine.read(f"{EVENTS}/{system}/{event}/format")
        for system in ("kvm", "kvmmmu")
        for event in machine.listdir(f"{EVENTS}/{system}")
        if event not in ("enable", "filter")
    }
    expected = recorded(f"formats-{profile}")
    assert len(expected) == 109
    assert found.keys() == expected.keys()
    for name, text in expected.items():
        assert re.sub(r"\nID: \d+\n", "\nID: N\n", found[name]) == text, name


RUNS = {run["scenario"]: run for run in recorded("shadow-6.12")}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_6_12_has_the_pages_counters_and_results_of_a_real_host(name: str) -> None:
    """Other events may differ: KVM's cache of the last MMIO address has no model."""
    machine = Machine("6.12", "empty")
    files = InProcess(machine)
    files.write(f"{KVM}/params/paging", "shadow\n")
    verdict = Replay(files, Recorder(machine), load(ORACLE).aliases).run(RUNS[name])
    assert verdict.steps == verdict.sp_events == verdict.counters == verdict.results > 0

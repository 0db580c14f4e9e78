"""Profiles against ordinary hosts: formats of events."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from fakesys.machine.machine import Machine

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

"""Every file text of every profile after a long history of writes, and the result of each write.

The recorded digests are the net below a redesign: code may move, no byte may. A change of behaviour
renews them by `pytest tests/test_whole_machine.py --regen`, and the difference is read in review.
"""

from __future__ import annotations

import os
from collections import defaultdict
from hashlib import sha256
from itertools import groupby
from pathlib import Path

import pytest

from fakesys.machine.machine import Machine
from fakesys.machine.profiles import PROFILES
from tests.whole_machine import WRITES, attempt, everything

RECORDED = Path(__file__).parent / "oracle" / "whole_machine"
# A line stands for all files below the first five names of their path.
DEPTH = 5
# The last two writes throw the machine away; the version is a release's own.
HISTORY = WRITES[:-2]


def digest(value: object) -> str:
    return sha256(repr(value).encode()).hexdigest()[:16]


def digests(profile: str) -> dict[str, str]:
    """Directory or write -> digest of all that is read below it, or the write's result."""
    machine = Machine(profile, "default", selftest=True)
    results: defaultdict[str, list[str]] = defaultdict(list)
    for path, text in HISTORY:
        results[f"{path} <- {text.strip()!r}"].append(attempt(machine, path, text))
    found = {write: " ".join(answers) for write, answers in results.items()}
    texts = sorted(
        (path, text) for path, text in everything(machine).items() if not path.endswith("/version")
    )
    for folder, members in groupby(texts, lambda item: "/".join(item[0].split("/")[:DEPTH])):
        kept = list(members)
        found[folder] = f"{len(kept)} {digest(kept)}"
    assert not machine.control.bugs
    return found


@pytest.fixture
def fixed_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a machine takes from the process and host that it runs in."""
    monkeypatch.setattr(os, "getpid", lambda: 4242)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


@pytest.mark.usefixtures("fixed_process")
@pytest.mark.parametrize("profile", PROFILES)
def test_no_byte_of_any_file_changes(profile: str, request: pytest.FixtureRequest) -> None:
    found = digests(profile)
    recorded = RECORDED / f"{profile}.txt"
    if request.config.getoption("--regen"):
        recorded.parent.mkdir(exist_ok=True)
        recorded.write_text("".join(f"{name}\t{text}\n" for name, text in found.items()))
    expected = dict(line.rsplit("\t", 1) for line in recorded.read_text().splitlines())
    differ = [name for name in found | expected if found.get(name) != expected.get(name)]
    assert not differ

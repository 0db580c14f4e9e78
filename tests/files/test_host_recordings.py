"""Recordings of ordinary hosts in seven modes, replayed through the files: each step is equal.

That is: every event of systems kvm and kvmmmu but those of the guest's clock, with its numbers;
counters and gauges; results.
"""

from __future__ import annotations

import pytest

from tests.replay_kvm.hosts import MODES, scenarios
from tests.replay_kvm.table import replayed

# A guest with a page of 1 GiB, where its CPUID knows no such pages: no vCPU here has a CPUID.
DIFFERENT = {("6.1-shadow", "hugetlb-1g"), ("6.1-shadow-nommio", "hugetlb-1g")}
CASES = [(mode, name) for mode in MODES for name in scenarios(mode)]


def test_there_are_285_recordings() -> None:
    assert len(CASES) == 285


@pytest.mark.parametrize(("mode", "name"), CASES)
def test_recording(mode: str, name: str) -> None:
    verdict = replayed(mode, name, full=True)
    assert verdict.steps > 0
    # What differs is known, and a recording that has become equal leaves the list.
    assert bool(verdict.differences) == ((mode, name) in DIFFERENT), verdict.differences

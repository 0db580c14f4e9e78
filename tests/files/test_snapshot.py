"""A machine saved and loaded reads the same in every file, and goes on as the first one does."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakesys.machine import Machine
from fakesys.profiles import PROFILES
from tests.whole_machine import CTL, TRACING, WRITES, attempt, differences

KERNELS = tuple(PROFILES)
# How many random histories: a few by default.
HISTORIES = int(os.environ.get("FAKESYS_HISTORIES", "3"))
# All but those that begin anew.
HISTORY = WRITES[:-2]


def copied(machine: Machine, profile: str = "6.1") -> Machine:
    """Another machine, at first of another kind, that has loaded the first one's file."""
    copy = Machine(profile, "vfio-ap-three-guests")
    attempt(copy, CTL, "vm create old pid=800\n")
    copy.load(machine.save())
    return copy


@pytest.mark.parametrize("profile", KERNELS)
def test_every_file_reads_the_same(profile: str) -> None:
    machine = Machine(profile, "default", selftest=True)
    taken = [attempt(machine, *write) for write in HISTORY].count("ok")
    assert taken > len(HISTORY) * 0.8
    copy = copied(machine)
    # What is compared is not nothing.
    for name in ("trace", "instances/foo/trace"):
        assert copy.read(f"{TRACING}/{name}").count("kvm_") > 3
    assert differences(machine, copy) == []
    assert machine.control.bugs == copy.control.bugs == []


@pytest.mark.parametrize("profile", KERNELS)
def test_the_copy_goes_on_as_the_original_does(profile: str) -> None:
    machine = Machine(profile, "default", selftest=True)
    for write in HISTORY[::2]:
        attempt(machine, *write)
    copy = copied(machine)
    for write in HISTORY:
        assert attempt(machine, *write) == attempt(copy, *write), write
    assert differences(machine, copy) == []
    assert machine.kernel.random.random() == copy.kernel.random.random()
    assert machine.clock.next_due_ns == copy.clock.next_due_ns


@settings(max_examples=HISTORIES, deadline=None)
@given(
    profile=st.sampled_from(KERNELS),
    seed=st.integers(0, 1 << 30),
    length=st.integers(1, 60),
)
def test_random_histories(profile: str, seed: int, length: int) -> None:
    chance = random.Random(seed)
    machine = Machine(profile, "default", selftest=True)
    for write in HISTORY[:: chance.randrange(1, 5)]:
        attempt(machine, *write)
    for _ in range(length):
        attempt(machine, *chance.choice(HISTORY))
    copy = copied(machine)
    assert differences(machine, copy) == []
    for _ in range(length):
        write = chance.choice(WRITES)
        assert attempt(machine, *write) == attempt(copy, *write), write
    assert differences(machine, copy) == []
    assert machine.control.bugs == copy.control.bugs == []

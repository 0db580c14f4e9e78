"""A document of KVM in which one value was changed is refused, or makes a machine that works."""

from __future__ import annotations

import random
from itertools import product
from time import monotonic

import msgspec
import pytest

from fakesys.core.saved import BadSnapshotError
from fakesys.machine.machine import Machine
from fakesys.machine.profiles import PROFILES
from tests.long import LONG
from tests.mutants import mutant
from tests.saved.kvm_copies import encoded, fresh, plain, restore, shown
from tests.saved.test_kvm import KVM_WRITES, MORE, started
from tests.whole_machine import CONTROL, CTL, attempt

MUTANTS = 25
BATCHES = 14 if LONG else 1
# A bound against hanging, not a measure.
LONGEST_LOAD = 5.0

USES = (
    *MORE,
    (CTL, "a vcpu 0 access w 0x0 n=600\n"),
    (CTL, "a vcpu 1 run r=0x200000 w=0x300000\n"),
    (CTL, "a dirty_log 0\n"),
    (CTL, "shrink n=50\n"),
    (CTL, "a slot 2 gpa=0 size=0\n"),
    (CTL, "a race slot=5 vcpus=1 ws=2M max_rounds=5\n"),
    (CTL, "a pulse 4\n"),
    (f"{CONTROL}/clock/advance", "4000\n"),
    (f"{CONTROL}/kvm/preset", "linux-boot vcpus=2 name=lin\n"),
)
ENDS = tuple((CTL, f"vm destroy {name}\n") for name in "abcd")


def origin(profile: str, paging: str) -> Machine:
    """A machine in which much has happened."""
    chance = random.Random(7)
    machine = started((profile, "", ""), paging)
    for write in (*KVM_WRITES, *MORE[:-4]):
        attempt(machine, *write)
    for _ in range(40):
        attempt(machine, *chance.choice(MORE + KVM_WRITES))
    return machine


def use(machine: Machine, chance: random.Random) -> None:
    """Do what a client ordinarily does."""
    shown(machine)
    for write in chance.sample(USES, 25):
        attempt(machine, *write)
    shown(machine)
    encoded(machine)
    for write in ENDS:
        attempt(machine, *write)
    shown(machine)


@pytest.mark.parametrize("batch", range(BATCHES))
@pytest.mark.parametrize(
    ("profile", "paging"), tuple(product(PROFILES, ("tdp", "shadow", "modules")))
)
def test_mutants(profile: str, paging: str, batch: int) -> None:
    machine = origin(profile, paging)
    data = encoded(machine)
    chance = random.Random(f"{profile} {paging} {batch}")
    taken = 0
    for number in range(MUTANTS):
        document = mutant(plain(data), chance)
        what = f"mutant {number}"
        copy = fresh(machine)
        begin = monotonic()
        try:
            restore(msgspec.json.encode(document), copy)
        except msgspec.ValidationError:
            continue
        except BadSnapshotError as refusal:
            assert "\n" not in str(refusal), what
            continue
        assert monotonic() - begin < LONGEST_LOAD, what
        taken += 1
        use(copy, chance)
        assert copy.control.bugs == [], what
    assert 0 < taken < MUTANTS

"""Snapshots with wrong values and a checksum that fits: refused, or as good as any other machine.

A file is data from somebody else. What is refused leaves the machine as it was, with one line that
says why; what is taken reads, writes and saves like a machine that got there by writes.
"""

from __future__ import annotations

import copy
import json
import random
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

from fakesys.core.errors import KernelError
from fakesys.machine.machine import Machine
from fakesys.machine.playback.replay import InMemory
from fakesys.machine.profiles import PROFILES
from tests.long import LONG
from tests.mutants import mutant
from tests.saved.files import PARTS, sealed
from tests.whole_machine import AP, CONTROL, CTL, TRACING, WRITES, attempt, everything

HISTORY = WRITES[:-2]
MUTANTS = 2000 if LONG else 150
# Mutants are made and tried by so many tests, which share the work of workers.
TESTS = 10
# A bound against files that hang: a usual load takes a tenth of a second.
SECONDS = 5.0
# What the models of a small machine need beyond the values of a file.
ROOM = 8 << 20
# What anyone may do to a machine. The last two replace it.
ORDINARY = (
    (f"{CONTROL}/clock/advance", "40\n"),
    *HISTORY[:: 1 if LONG else 8],
    (f"{AP}/scans", "1\n"),
    (CTL, "vm create fresh\n"),
    (CTL, "fresh vcpu add count=2\n"),
    (f"{CONTROL}/clock/advance", "100\n"),
    (f"{TRACING}/trace", "\n"),
    *WRITES[-2:],
)


LARGE_PARTS = ("ap", "kvm", "memory", "interrupts", "tracing")


@cache
def documents() -> tuple[dict[str, Any], ...]:
    """What machines of every kernel save after short and long histories."""
    found = []
    for profile in PROFILES:
        for step, scenario in ((1, "default"), (5, "vfio-ap-three-guests")):
            machine = Machine(profile, scenario, selftest=True)
            InMemory(machine)
            for write in HISTORY[::step]:
                attempt(machine, *write)
            document = json.loads(machine.save())
            del document["sha256"]
            found.append(document)
    return tuple(found)


def mutants(number: int) -> Iterator[tuple[bytes, bytes]]:
    """Pairs of a file and one that is made of it."""
    for seed in range(number, MUTANTS, TESTS):
        chance = random.Random(seed)
        document = chance.choice(documents())
        parts = {name: document[name] for name in PARTS}
        # The head is the readable part; most of what can be wrong is in the models.
        if chance.random() < 0.05:
            yield sealed(document), sealed({**mutant(document, chance)})
        elif chance.random() < 0.2:
            yield sealed(document), sealed({**document, **mutant(parts, chance)})
        else:
            models = dict(parts["models"])
            part = chance.choice(LARGE_PARTS if chance.random() < 0.9 else sorted(models))
            # No more than three values are removed, so one is left to take.
            models[part] = mutant([models[part], None, None, None], chance)[0]
            yield sealed(document), sealed({**document, "models": models})


def loaded(machine: Machine, data: bytes) -> str:
    """The name of the errno with which a file was refused, with one line of the reason."""
    try:
        machine.load(data)
    except KernelError as refusal:
        assert "\n" not in refusal.why
        return refusal.name
    return "ok"


@pytest.mark.parametrize("number", range(TESTS))
def test_a_mutant_is_refused_or_is_a_machine(number: int) -> None:
    machine = Machine("6.1", "empty")
    before = machine.save()
    for original, wrong in mutants(number):
        began = time.monotonic()
        answer = loaded(machine, wrong)
        assert time.monotonic() - began < SECONDS
        assert answer in ("ok", "EINVAL")
        if answer == "EINVAL":
            assert machine.save() == before
            continue
        assert_usable(machine, original)
        machine = Machine("6.1", "empty")


def assert_usable(machine: Machine, original: bytes) -> None:
    """Everything can be read, written, saved and loaded again."""
    everything(machine)
    saved = machine.save()
    other = Machine("seed", "empty")
    other.load(saved)
    assert other.save() == saved
    for write in ORDINARY:
        attempt(machine, *write)
    everything(machine)
    assert machine.control.bugs == other.control.bugs == []
    machine.load(machine.save())
    machine.load(original)
    assert machine.control.bugs == []


def timers(found: Any) -> Iterator[dict[str, Any]]:
    """Every timer of a document."""
    below = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    if isinstance(found, dict) and found.keys() == {"due_ns", "sequence"}:
        yield found
    for value in below:
        yield from timers(value)


# What files of former formats could hold: a callable in a timer, an object in the place of another.
KINDS: tuple[tuple[str, Callable[[dict[str, Any]], object]], ...] = (
    ("unknown field `action`", lambda found: next(timers(found)).update(action=["name", "eval"])),
    ("Expected `int`, got `array`", lambda found: next(timers(found)).update(due_ns=["eval", "1"])),
    ("got `object`", lambda found: found["models"]["ap"]["bus"].update(apmask={"x": "1"})),
    (
        "Expected `object`, got `array`",
        lambda found: found["models"].update(kvm=found["log"]["kept"]),
    ),
)


@pytest.mark.parametrize(("why", "change"), KINDS, ids=[why for why, _ in KINDS])
def test_no_value_has_a_place_for_what_is_called(
    why: str, change: Callable[[dict[str, Any]], object]
) -> None:
    found = copy.deepcopy(documents()[0])
    assert len(list(timers(found))) > 0
    change(found)
    machine = Machine("6.1", "empty")
    before = machine.save()
    with pytest.raises(KernelError, match=why) as refusal:
        machine.load(sealed(found))
    assert (refusal.value.name, machine.save()) == ("EINVAL", before)
    assert machine.control.bugs == []


@pytest.mark.parametrize("number", range(TESTS))
def test_a_mutant_takes_no_more_memory_than_a_file_of_its_size(number: int) -> None:
    machine = Machine("6.1", "empty")
    machine.load(sealed(documents()[0]))
    for at, (original, wrong) in enumerate(mutants(number)):
        if at >= MUTANTS // TESTS // 10:
            break
        most = memory(lambda data=original: loaded(machine, data))  # type: ignore[misc]
        needed = memory(lambda data=wrong: loaded(machine, data))  # type: ignore[misc]
        assert needed < max(4 * len(wrong) + ROOM, most + 4 * len(wrong))


def memory(action: Callable[[], object]) -> int:
    """The bytes that an action needs at most at one time."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

"""Full garbage collections happen while no request comes, and long requests leave no garbage."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from fakesys.transport import collecting


@pytest.fixture
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    # What the other tests have left would only take time.
    gc.freeze()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


class Loop:
    """An object that is garbage only for the collector."""

    def __init__(self) -> None:
        self.itself = self


def test_python_collects_everything_rarely(thresholds: None) -> None:
    collecting.leave_to_idle_time()
    collecting.collect()
    assert not collecting.is_due()
    young, middle, _ = gc.get_threshold()
    kept = [Loop() for _ in range((young + 1) * (middle + 1) * (collecting.DUE + 2))]
    assert collecting.is_due()
    del kept
    collecting.collect()
    assert not collecting.is_due()
    assert not [found for found in gc.get_objects() if isinstance(found, Loop)]


class Clock:
    """The time, the memory and the objects that a collector sees."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now, self.resident, self.living, self.collections = 100.0, 50 << 20, 1000, 0
        patch.setattr(time, "monotonic", lambda: self.now)
        patch.setattr(collecting, "living_objects", lambda: self.living)
        patch.setattr(collecting, "resident_bytes", lambda: self.resident)
        patch.setattr(collecting, "collect", self.collect)

    def collect(self) -> None:
        self.collections += 1

    def look(self, collector: collecting.Collector) -> bool:
        """Let time pass until the collector looks again."""
        self.now += collecting.LOOK_SECONDS
        return collector.is_urgent()


def test_what_has_grown_is_collected_while_requests_come(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, collector = Clock(monkeypatch), collecting.Collector()
    assert not collector.is_urgent()
    clock.resident += collecting.GROWN_BYTES + 1
    # It looks from time to time only.
    assert not collector.is_urgent()
    assert clock.look(collector)
    collector.collect()
    assert clock.collections == 1
    # What is left now is no garbage.
    assert not clock.look(collector)
    clock.resident += collecting.GROWN_BYTES
    assert not clock.look(collector)
    clock.resident += 1
    assert clock.look(collector)


def test_where_many_objects_live_more_growth_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, collector = Clock(monkeypatch), collecting.Collector()
    clock.living = collecting.FEW_OBJECTS * 3
    assert not collector.is_urgent()
    collector.collect()
    clock.resident += 9 * collecting.GROWN_BYTES
    assert not clock.look(collector)
    clock.resident += 1
    assert clock.look(collector)
    # Most of them are gone.
    clock.living = collecting.FEW_OBJECTS - 1
    collector.collect()
    clock.resident += collecting.GROWN_BYTES + 1
    assert clock.look(collector)


def test_objects_that_live_are_counted() -> None:
    gc.collect()
    before = collecting.living_objects()
    kept = [Loop() for _ in range(5000)]
    assert collecting.living_objects() - before >= len(kept)


def test_the_memory_of_this_process() -> None:
    before = collecting.resident_bytes()
    kept = bytearray(b"x") * (32 << 20)
    assert collecting.resident_bytes() - before > 24 << 20
    del kept


# Prints how much address space is reserved for heaps of threads: each takes 64 MiB at first.
THREADS = """
import threading
from fakesys.transport import collecting
KEEP
barrier = threading.Barrier(4)
def work():
    barrier.wait()
    pieces = [bytes(2000) for _ in range(1000)]
    barrier.wait()
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sum(line.split()[1] == "---p" and "/" not in line
          and eval("-(0x" + line.split()[0].replace("-", " - 0x") + ")") > 32 << 20
          for line in open("/proc/self/maps")))
"""


@pytest.mark.parametrize(("keep", "apart"), [("", True), ("collecting.keep_one_heap()", False)])
def test_threads_allocate_from_one_heap(keep: str, apart: bool) -> None:
    command = [sys.executable, "-c", THREADS.replace("KEEP", keep)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert (int(done.stdout) > 0) is apart


def test_a_start_collects_nothing() -> None:
    assert gc.isenabled()
    with collecting.without_collections():
        assert not gc.isenabled()
        with collecting.without_collections():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_what_exists_is_kept_and_the_rest_collected() -> None:
    frozen = gc.get_freeze_count()
    gc.disable()
    try:
        collecting.keep_what_exists()
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen
    finally:
        gc.enable()
        gc.unfreeze()

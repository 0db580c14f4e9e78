"""Full garbage collections happen while no request comes, and long requests leave no garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from fakesys.transport import collecting


@pytest.fixture
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


class Loop:
    """An object that is garbage only for the collector."""

    def __init__(self) -> None:
        self.itself = self


def test_python_collects_everything_rarely(thresholds: None) -> None:
    collecting.leave_to_idle_time()
    collecting.collect()
    assert not collecting.is_due()
    kept = [Loop() for _ in range(250_000)]
    assert collecting.is_due()
    del kept
    collecting.collect()
    assert not collecting.is_due()
    assert not [found for found in gc.get_objects() if isinstance(found, Loop)]

"""What the tests of sweeps of real processes need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fakesys.sweep.cell import end_zygote
from tests.execution.helpers import why_no_world


@pytest.fixture(scope="module")
def world() -> Iterator[None]:
    """Private namespaces, and nothing left of them."""
    if reason := why_no_world():
        pytest.skip(reason)
    yield
    end_zygote()

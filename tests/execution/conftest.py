"""Running programs by `fakesys exec`; skipped where private namespaces are not to be had."""

from __future__ import annotations

import pytest

from tests.execution.helpers import ordinary_user, why_no_world


@pytest.fixture(scope="session", autouse=True)
def private_world() -> None:
    """Everything in this folder needs FUSE and namespaces."""
    if reason := why_no_world():
        pytest.skip(reason)


@pytest.fixture(params=["as_is", "ordinary user"])
def prefix(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """What makes a command run as this user, and as one without any rights."""
    return () if request.param == "as_is" else ordinary_user()

"""Running programs by `fakesys exec`; skipped where private namespaces are not to be had."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.execution.helpers import fakesys_exec

ORDINARY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs FUSE and namespaces."""
    mine = [item for item in items if Path(__file__).parent in item.path.parents]
    reason = _missing() if mine else None
    for item in mine:
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


def _missing() -> str | None:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse is not usable here"
    done = fakesys_exec("true", scenario="empty")
    return None if done.returncode == 0 else f"no private namespaces: {done.stderr.strip()}"


@pytest.fixture(params=["as_is", "ordinary user"])
def prefix(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """What makes a command run as this user, and as one without any rights."""
    if request.param == "as_is":
        return ()
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can become another user, by setpriv")
    done = fakesys_exec("true", scenario="empty", prefix=ORDINARY)
    if done.returncode != 0:
        pytest.skip(f"not for ordinary users here: {done.stderr.strip()}")
    return ORDINARY

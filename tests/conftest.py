"""Options of the whole test suite, and how it is shared out among processes."""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# These are run by one process: the last of them asks what all others have provoked.
TOGETHER = "tests/files/"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--root /` runs the tests of tests/native on the files of the running kernel."""
    parser.addoption("--root", help="tests/native: use the files below this folder, not a mount")


class ByModule(LoadScopeScheduling):
    """With `-n 2` a module stays in one process, and so do its mounts."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.split("::")[0]
        return TOGETHER if path.startswith(TOGETHER) else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByModule:
    """Whatever `--dist` says."""
    return ByModule(config, log)

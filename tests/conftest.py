"""Options of the whole test suite, and how it is shared out among processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from fakesys.transport import mounting

# These are run by one process: the last of them asks what all others have provoked.
TOGETHER = "tests/files/"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this test suite.

    `--root /` runs the tests of tests/native on the files of the running kernel.
    """
    parser.addoption("--root", help="tests/native: use the files below this folder, not a mount")
    parser.addoption(
        "--regen", action="store_true", help="write recorded texts again, to be read in review"
    )


class ByModule(LoadScopeScheduling):
    """With `-n 2` a module stays in one process, and so do its mounts."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.split("::")[0]
        return TOGETHER if path.startswith(TOGETHER) else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByModule:
    """Whatever `--dist` says."""
    return ByModule(config, log)


@pytest.fixture
def own_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of mounts are kept apart from the user's own."""
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))


@pytest.fixture
def point(tmp_path: Path, own_records: None) -> Iterator[Path]:
    """A mount point, free again afterwards."""
    point = tmp_path / "mnt"
    point.mkdir()
    yield point
    while mounting.find(point) is not None:
        mounting.unmount(point, lazy=True)

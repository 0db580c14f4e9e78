"""Mounts as fixtures. The whole folder is skipped where FUSE is not to be had."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.mounts import Mount, mounted

needs_fuse = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="/dev/fuse is not usable here"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs the device."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(needs_fuse)


@pytest.fixture(scope="module")
def public_folder() -> Iterator[Path]:
    """A folder that every user can enter, unlike those of pytest."""
    with TemporaryDirectory(prefix="fakesys-test-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def shared_mount(public_folder: Path) -> Iterator[Mount]:
    """One mount of the selftest machine for all tests of a module."""
    with mounted(public_folder) as mount:
        yield mount


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """A mount of the selftest machine for one test."""
    with mounted(tmp_path) as mount:
        yield mount


@pytest.fixture(params=["epoch", "entry"])
def each_way(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mount]:
    """A mount for one test, with each way of telling clients that names changed."""
    with mounted(tmp_path, "--names", request.param) as mount:
        yield mount

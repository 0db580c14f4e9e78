"""Mounts as fixtures. The whole folder is skipped where FUSE is not to be had."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from fakesys.transport.mounting import MountError
from tests.mounts import Mount, mounted

needs_fuse = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="/dev/fuse is not usable here"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs the device; what fusepy cannot do must fail there."""
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        item.add_marker(needs_fuse)
        marker = item.get_closest_marker("differs_on_fusepy")
        if marker is not None and "fusepy" in _parameters(item):
            item.add_marker(pytest.mark.xfail(reason=marker.args[0], strict=True))


def _parameters(item: pytest.Item) -> set[object]:
    call = getattr(item, "callspec", None)
    return set() if call is None else {str(value) for value in call.params.values()}


@pytest.fixture(scope="module", params=["native", "fusepy"])
def transport(request: pytest.FixtureRequest) -> str:
    """Each way in which the tree is served."""
    name = str(request.param)
    if name == "fusepy":
        need_libfuse()
    return name


def need_libfuse() -> None:
    """Skip where there is no libfuse 2."""
    from fakesys.transport.fusepy import library

    try:
        library.load()
    except MountError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def public_folder() -> Iterator[Path]:
    """A folder that every user can enter, unlike those of pytest."""
    with TemporaryDirectory(prefix="fakesys-test-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def shared_mount(public_folder: Path, transport: str) -> Iterator[Mount]:
    """One mount of the selftest machine for all tests of a module."""
    folder = public_folder / transport
    folder.mkdir(mode=0o755)
    with mounted(folder, transport=transport) as mount:
        yield mount


@pytest.fixture
def mount(tmp_path: Path, transport: str) -> Iterator[Mount]:
    """A mount of the selftest machine for one test."""
    with mounted(tmp_path, transport=transport) as mount:
        yield mount


@pytest.fixture(params=["epoch", "entry", "fusepy"])
def each_way(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mount]:
    """A mount for one test, with each way of telling clients that names changed.

    fusepy cannot tell: nothing is cached there.
    """
    if request.param == "fusepy":
        need_libfuse()
        served = mounted(tmp_path, transport="fusepy")
    else:
        served = mounted(tmp_path, "--names", request.param)
    with served as mount:
        yield mount


@pytest.fixture
def on_cpu0() -> Iterator[None]:
    """Keep the test on one CPU: a marker is recorded on the CPU of its writer."""
    allowed = os.sched_getaffinity(0)
    if 0 not in allowed:
        pytest.skip("this process may not run on CPU 0")
    os.sched_setaffinity(0, {0})
    yield
    os.sched_setaffinity(0, allowed)

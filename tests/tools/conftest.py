"""Mounts on which unmodified programs are run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.execution.helpers import ordinary_user, why_no_world
from tests.mounts import Mount
from tests.tools import kernel_source, s390
from tests.tools.kept import Unavailable, kept
from tests.tools.machines import S390, Mounts

PROFILES = ("seed", "6.1", "6.12", "6.18")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs the device."""
    needs_fuse = pytest.mark.skipif(
        not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="/dev/fuse is not usable here"
    )
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(needs_fuse)


@pytest.fixture(scope="session")
def private_world() -> None:
    """For programs that are run by `fakesys exec`."""
    if reason := why_no_world():
        pytest.skip(reason)


@pytest.fixture(params=["as_is", "ordinary user"])
def prefix(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """What makes a command run as this user, and as one without any rights."""
    return () if request.param == "as_is" else ordinary_user()


@pytest.fixture(scope="session")
def user_of_a_host_with_debugfs() -> tuple[str, ...]:
    """What makes a command run as one without rights, where debugfs and tracefs are mounted."""
    places = {"debugfs": "/sys/kernel/debug", "tracefs": "/sys/kernel/tracing"}
    # Mounting it twice on one place is EBUSY.
    steps = [
        f'{{ [ "$(stat -fc %T {place})" = {fstype} ] || mount -t {fstype} none {place}; }}'
        for fstype, place in places.items()
    ]
    script = " && ".join([*steps, 'exec "$@"'])
    prefix = ("unshare", "-m", "sh", "-c", script, "sh", *ordinary_user())
    done = subprocess.run([*prefix, "true"], capture_output=True, text=True, cwd="/", check=False)
    if done.returncode != 0:
        pytest.skip(f"no debugfs and tracefs here: {done.stderr.strip()}")
    return prefix


@pytest.fixture(scope="session")
def s390_root() -> Path:
    """The unpacked s390x programs."""
    try:
        with kept("s390x-programs") as folder:
            return s390.unpacked(folder)
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def kernel_tools() -> kernel_source.Source:
    """The programs that come with the kernel's source."""
    try:
        with kept("kernel-source") as folder:
            return kernel_source.unpacked(folder)
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def mounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounts]:
    """The mounts of this folder's tests."""
    with ExitStack() as stack:
        yield Mounts(tmp_path_factory.mktemp("tools"), stack)


@pytest.fixture
def plain(mounts: Mounts) -> Mount:
    """A default machine as at mount time."""
    return mounts.fresh()


@pytest.fixture
def machine(plain: Mount, s390_root: Path) -> S390:
    """A default machine as at mount time, and the s390x programs pointed at it."""
    return S390(plain, s390_root)


@pytest.fixture(params=PROFILES)
def each_kernel(request: pytest.FixtureRequest, s390_root: Path, mounts: Mounts) -> S390:
    """The same, once for each kernel."""
    return S390(mounts.fresh("--profile", request.param), s390_root)

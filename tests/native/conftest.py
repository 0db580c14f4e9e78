"""Files of each kind, of a mount or of the running kernel: `pytest tests/native --root /`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mounts import mounted


@dataclass(frozen=True)
class Specimens:
    """What the contract is tried on. `number`: a sysfs attribute that takes 1000 and 2000."""

    root: Path
    number: Path
    read_only: Path
    write_only: Path
    device: Path

    @property
    def tracing(self) -> Path:
        """tracefs."""
        return self.root / "sys/kernel/tracing"


def _of_kernel(root: Path) -> Specimens:
    device = root / "sys/class/net/lo"
    return Specimens(
        root,
        number=device / "tx_queue_len",
        read_only=device / "addr_len",
        write_only=root / "sys/bus/platform/drivers_probe",
        device=device.resolve(),
    )


def _of_mount(root: Path) -> Specimens:
    device = root / "sys/devices/virtual/selftest/selftest0"
    return Specimens(
        root,
        number=device / "rw",
        read_only=device / "ro",
        write_only=device / "wo",
        device=device,
    )


@pytest.fixture(scope="session")
def specimens(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Specimens]:
    """Those of the running kernel with `--root /`, else those of a mount."""
    if os.geteuid() != 0:
        pytest.skip("the contract is that of root")
    if root := request.config.getoption("--root"):
        yield _of_kernel(Path(root))
        return
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse is not usable here")
    with mounted(tmp_path_factory.mktemp("native")) as mount:
        yield _of_mount(mount.root)


@pytest.fixture
def number(specimens: Specimens) -> Iterator[Path]:
    """The number, 1000 at first and afterwards as it was."""
    before = specimens.number.read_text()
    specimens.number.write_text("1000\n")
    yield specimens.number
    specimens.number.write_text(before)


@pytest.fixture
def instance(specimens: Specimens) -> Iterator[Path]:
    """A tracing instance of this test."""
    folder = specimens.tracing / "instances/fakesys-contract"
    if not folder.parent.is_dir():
        pytest.skip(f"{specimens.tracing} is no tracefs")
    folder.mkdir()
    yield folder
    with suppress(FileNotFoundError):
        folder.rmdir()

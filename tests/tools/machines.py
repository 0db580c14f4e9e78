"""Mounts that many tests share, the AP side of one, and the s390x programs that look at it."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.mounts import Mount, mounted
from tests.tools import s390
from tests.tools.helpers import SECONDS, bits

MDEV = "10d9f0ff-1111-2222-3333-444444444444"
TYPE = "sys/class/mdev_bus/matrix/mdev_supported_types/vfio_ap-passthrough"


class Mounts:
    """One mount for each set of options, as new for each test: reset is quicker than a mount."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._mounts: dict[tuple[str, ...], Mount] = {}

    def fresh(self, *options: str) -> Mount:
        """A default machine with these options of `fakesys mount`, as at mount time."""
        mount = self._mounts.get(options)
        if mount is None:
            folder = self._folder / str(len(self._mounts))
            folder.mkdir()
            mount = self._stack.enter_context(mounted(folder, *options, scenario="default"))
            self._mounts[options] = mount
        mount.command("reset")
        return mount


@dataclass(frozen=True)
class S390:
    """One mount and the folder of the s390x programs."""

    mount: Mount
    root: Path

    @property
    def bus(self) -> Path:
        """bus/ap."""
        return self.mount.root / "sys/bus/ap"

    def read(self, path: str) -> str:
        """The text of a file of the AP bus, without its newline."""
        return (self.bus / path).read_text().rstrip("\n")

    def write(self, path: str, text: str) -> None:
        """`echo TEXT > FILE` below the AP bus."""
        (self.bus / path).write_text(f"{text}\n")

    def control(self, path: str, text: str) -> None:
        """`echo TEXT > FILE` below the control files of the AP part."""
        self.mount.command(f"ap/{path}", f"{text}\n")

    def mask(self, name: str) -> set[int]:
        """The ids that a mask holds."""
        return bits(self.read(name))

    def make_mdev(self, adapters: list[int], domains: list[int]) -> Path:
        """A mediated device with these ids; its folder."""
        (self.mount.root / TYPE / "create").write_text(MDEV)
        folder = self.mount.root / "sys/bus/mdev/devices" / MDEV
        for adapter in adapters:
            (folder / "assign_adapter").write_text(f"{adapter}\n")
        for domain in domains:
            (folder / "assign_domain").write_text(f"{domain}\n")
        return folder

    def run(
        self, program: str, *arguments: str, sysfs: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """One of the s390x programs, unmodified, on this mount or with another `sysfs`."""
        return subprocess.run(
            [*s390.command(self.root, program), *arguments],
            env={**os.environ, "SYSFS_ROOT": str(sysfs or self.mount.root / "sys"), "LC_ALL": "C"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def ok(self, program: str, *arguments: str) -> str:
        """The same; it must succeed. What it says."""
        done = self.run(program, *arguments)
        assert done.returncode == 0, f"{program} {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def refused(
        self, program: str, *arguments: str, status: int = 1, sysfs: Path | None = None
    ) -> str:
        """The same; it must fail with this status. All it says."""
        done = self.run(program, *arguments, sysfs=sysfs)
        assert done.returncode == status, f"{program} {arguments}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

"""One `/sys` out of two: directories of the simulated machine, and for all others the host's.

Real sysfs takes no new directories, so those with entries of both sides are made in memory and
every entry is bound into them. Links of sysfs are relative and remain right.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from fakesys.execution.base.missing import remove_entry, show_entry
from fakesys.execution.base.syscalls import detach

# Directories with entries of both sides, by their paths in /sys.
JOINED = frozenset(
    (
        "",
        "bus",
        "class",
        "class/misc",
        "devices",
        "devices/virtual",
        "devices/virtual/misc",
        "kernel",
        "module",
    )
)
# Only ever of the simulated kernel: where it lacks one, that of the host is hidden too. Every
# machine has its own of the first two.
SIMULATED = frozenset(
    (
        "kernel/debug",
        "kernel/tracing",
        "bus/ap",
        "bus/matrix",
        "bus/mdev",
        "class/mdev_bus",
        "devices/ap",
        "devices/vfio_ap",
        "kernel/iommu_groups",
        "module/kvm",
        "module/kvm_amd",
        "module/kvm_intel",
        "module/mdev",
        "module/vfio_ap",
    )
)


def bound_directories(fake: Path) -> Iterator[str]:
    """Yield the paths in `/sys` of the simulated directories that are bound as a whole."""
    for path in JOINED:
        for below, entry in _entries(fake, path):
            if below not in JOINED and entry.is_dir(follow_symlinks=False):
                yield below


class Join:
    """Fills `target`, an empty directory in memory, with the entries of `fake` and `real`.

    `fake` and `real` are the `/sys` of the simulated machine and of the host. `prepare` is called
    with the path in `/sys` and the empty directory before a simulated one is bound on it. `bound`:
    the paths in `/sys` of the simulated directories that are bound as a whole.

        join.show_host()
        join.show_fake()        # what both have is now that of the machine
    """

    def __init__(
        self,
        fake: Path,
        real: Path,
        target: Path,
        *,
        prepare: Callable[[str, Path], None],
    ) -> None:
        self._fake = fake
        self._real = real
        self._target = target
        self._prepare = prepare
        self._directories = {""}
        # What is shown of the host: whether it is a directory, None for a link.
        self._of_host: dict[str, bool | None] = {}
        self.bound: set[str] = set()

    def show_host(self) -> None:
        """Show all of the host that the simulated machine never replaces. Raises StepError."""
        for path in sorted(JOINED):
            for below, entry in _entries(self._real, path):
                if below in JOINED:
                    self._make_directory(below)
                elif below not in SIMULATED:
                    link = entry.is_symlink()
                    self._of_host[below] = None if link else entry.is_dir()
                    show_entry(entry, f"{self._target}/{below}")

    def show_fake(self) -> None:
        """Show all of the simulated machine, instead of what the host has. Raises StepError."""
        for path in sorted(JOINED):
            for below, entry in _entries(self._fake, path):
                if below in JOINED:
                    self._make_directory(below)
                else:
                    self._replace(below, entry)

    def _make_directory(self, path: str) -> None:
        if path not in self._directories:
            self._directories.add(path)
            os.mkdir(f"{self._target}/{path}")

    def _replace(self, path: str, entry: os.DirEntry[str]) -> None:
        """Show an entry of the machine.

        What the host has is removed: it must not come back when the machine has it no longer.
        """
        target = f"{self._target}/{path}"
        if path in self._of_host:
            folder = self._of_host.pop(path)
            if folder is not None:
                detach(target)
            remove_entry(target, folder=bool(folder))
        if entry.is_dir(follow_symlinks=False):
            self.bound.add(path)
        show_entry(entry, target, lambda: self._prepare(path, Path(target)))


def _entries(root: Path, path: str) -> list[tuple[str, os.DirEntry[str]]]:
    """Return the entries of a directory with their paths from the root; none if it is missing."""
    try:
        with os.scandir(root / path) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
    return [(f"{path}/{entry.name}".lstrip("/"), entry) for entry in entries]

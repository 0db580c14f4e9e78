"""One `/sys` out of two: directories of the simulated machine, and for all others the host's.

Real sysfs takes no new directories, so those with entries of both sides are made in memory and
every entry is bound into them. Links of sysfs are relative and remain right.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from fakesys.execution.base.syscalls import bind

# Directories with entries of both sides, by their paths in /sys.
JOINED = frozenset(
    ("", "bus", "class", "class/misc", "devices", "devices/virtual", "kernel", "module")
)
# Only ever of the simulated kernel: where it lacks one, that of the host is hidden too.
SIMULATED = frozenset(
    (
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
        for name in _names(fake / path):
            below = f"{path}/{name}".lstrip("/")
            whole = fake / below
            if below not in JOINED and whole.is_dir() and not whole.is_symlink():
                yield below


class Join:
    """Fills `target`, an empty directory in memory, with the entries of `fake` and `real`.

    `fake` and `real` are the `/sys` of the simulated machine and of the host. `prepare` is called
    with the path in `/sys` and the empty directory before a simulated one is bound on it.
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

    def run(self) -> None:
        """Make all directories and binds. Raises StepError."""
        self._join("")

    def _join(self, path: str) -> None:
        simulated = _names(self._fake / path)
        for name in sorted(simulated | _names(self._real / path)):
            below = f"{path}/{name}".lstrip("/")
            if below in JOINED:
                (self._target / below).mkdir()
                self._join(below)
            elif name in simulated or below not in SIMULATED:
                self._show(below, fake=name in simulated)

    def _show(self, path: str, *, fake: bool) -> None:
        source, target = (self._fake if fake else self._real) / path, self._target / path
        if source.is_symlink():
            target.symlink_to(source.readlink())
            return
        if source.is_dir():
            target.mkdir()
        else:
            target.touch()
        if fake:
            self._prepare(path, target)
        bind(source, target)


def _names(directory: Path) -> set[str]:
    try:
        return set(os.listdir(directory))
    except FileNotFoundError:
        return set()

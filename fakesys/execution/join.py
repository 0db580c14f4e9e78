"""One `/sys` out of two: the fake's folders where it has them, the machine's own elsewhere.

Real sysfs takes no new folders, so the joined ones are made in memory and every entry is bound
into them; the links of sysfs are relative and go on leading to where they should.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from fakesys.execution.syscalls import bind

# Folders with entries of both sides, from the root of /sys.
JOINED = frozenset(
    ("", "bus", "class", "class/misc", "devices", "devices/virtual", "kernel", "module")
)
# Of the simulated kernel alone: where it lacks one, the machine's own must not show either.
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
    """The directories of the fake that are bound as a whole, by their paths in `/sys`."""
    for path in JOINED:
        for name in _names(fake / path):
            below = f"{path}/{name}".lstrip("/")
            whole = fake / below
            if below not in JOINED and whole.is_dir() and not whole.is_symlink():
                yield below


class Join:
    """Fills `target` (an empty directory in memory) with the entries of `fake` and `real`.

    `prepare` is called with the path in `/sys` and the empty folder before each folder of the
    fake is bound. `instead`: folders of the machine that are taken from elsewhere, by path.
    """

    def __init__(
        self,
        fake: Path,
        real: Path,
        target: Path,
        *,
        prepare: Callable[[str, Path], None],
        instead: Mapping[str, Path],
    ) -> None:
        self._fake = fake
        self._real = real
        self._target = target
        self._prepare = prepare
        self._instead = instead

    def run(self) -> None:
        """Do it. Raises StepError."""
        self._join("")

    def _join(self, path: str) -> None:
        ours = _names(self._fake / path)
        for name in sorted(ours | _names(self._real / path)):
            below = f"{path}/{name}".lstrip("/")
            if below in JOINED:
                (self._target / below).mkdir()
                self._join(below)
            elif name in ours or below not in SIMULATED:
                self._show(below, fake=name in ours)

    def _show(self, path: str, *, fake: bool) -> None:
        machine = self._instead.get(path, self._real / path)
        source, target = self._fake / path if fake else machine, self._target / path
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

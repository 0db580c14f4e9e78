"""Keep the joined `/sys` in line with the simulated machine after the join.

A bind shows the directory that existed when it was made. After a reset of the machine, or after a
module was loaded again, there is another directory of the same name, which must be bound again;
a directory that is gone must be removed.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from fakesys.execution import join
from fakesys.execution.base.syscalls import StepError, bind, detach
from fakesys.execution.nodes import DeviceNodes


class Rebinder:
    """The binds of one private view.

    `bound`: the paths in `sys` of the directories that are bound; `others` maps further mount
    points to what they show of the machine; `nodes`: those in /dev.
    """

    def __init__(
        self,
        fake: Path,
        sys: Path,
        bound: Collection[str],
        others: Mapping[Path, Path],
        nodes: DeviceNodes,
    ) -> None:
        self._fake = fake
        self._sys = sys
        self._others = others
        self._nodes = nodes
        self._shown = set(bound)

    def refresh(self) -> None:
        """Bind what is new and detach what is gone. A bind that fails does not stop the others."""
        present = set(join.bound_directories(self._fake))
        for path in sorted(present | self._shown):
            with suppress(StepError, OSError):
                self._show(self._fake / path, self._sys / path)
        for target, source in self._others.items():
            with suppress(StepError, OSError):
                self._show(source, target)
        with suppress(StepError, OSError):
            self._nodes.refresh()
        self._shown = present

    def _show(self, source: Path, target: Path) -> None:
        wanted, shown = _identity(source), _identity(target)
        if wanted == shown:
            return
        if shown is not None and os.path.ismount(target):
            detach(target)
        if wanted is None:
            target.rmdir()
            return
        if not target.exists():
            target.mkdir()
        bind(source, target)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino

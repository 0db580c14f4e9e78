"""Keeps the joined `/sys` true: what the fake makes anew is bound anew, what is gone goes.

A bind shows one directory for ever. When the machine is reset, or a module is loaded again, the
fake has another directory of the same name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from fakesys.execution import join
from fakesys.execution.syscalls import StepError, bind, detach


class Keeper:
    """The binds of one world. `others`: further places and the directories they show."""

    def __init__(self, fake: Path, sys: Path, others: Mapping[Path, Path]) -> None:
        self._fake = fake
        self._sys = sys
        self._others = others
        self._shown = set(join.bound_directories(fake))

    def refresh(self) -> None:
        """Bring every bind in line with what the fake has now."""
        there = set(join.bound_directories(self._fake))
        for path in sorted(there | self._shown):
            # One that cannot be helped must not keep the others from it.
            with suppress(StepError, OSError):
                self._show(self._fake / path, self._sys / path)
        for target, source in self._others.items():
            with suppress(StepError, OSError):
                self._show(source, target)
        self._shown = there

    def _show(self, source: Path, target: Path) -> None:
        wanted, shown = _identity(source), _identity(target)
        if wanted == shown:
            return
        if shown is not None and os.path.ismount(target):
            detach(target)
        if wanted is None:
            target.rmdir()
            return
        target.mkdir(exist_ok=True)
        bind(source, target)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino

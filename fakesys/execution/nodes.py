"""The nodes of the simulated machine in `/dev`, beside those of the host.

`/dev` becomes a directory in memory. Entries of the host stay where no simulated one has the name;
a node that the host gets later is not seen. Directories of nodes such as `/dev/vfio` are bound as a
whole, so what they contain is always true; a single node is bound after the event of its device.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from fakesys.execution.base.missing import replace_by_copy
from fakesys.execution.base.places import FAKE, PRIVATE
from fakesys.execution.base.syscalls import bind, detach

DEV = Path("/dev")
NODES = FAKE / "dev"


def private_dev() -> None:
    """Replace `/dev` by a directory of this mount namespace, with the same nodes.

    Raises StepError.
    """
    replace_by_copy(DEV, PRIVATE / "draft")


class DeviceNodes:
    """The nodes of the machine that are shown, in a `/dev` that `private_dev` has made.

    `_shown`: by name, what each was when it was bound.
    """

    def __init__(self) -> None:
        self._shown: dict[str, tuple[int, int]] = {}

    def refresh(self) -> None:
        """Show what is new, and remove what is gone. Raises StepError, OSError."""
        present = _present()
        for name in self._shown.keys() - present.keys():
            self._remove(name)
        for name, identity in present.items():
            if self._shown.get(name) != identity:
                self._show(name, identity)

    def _remove(self, name: str) -> None:
        target = DEV / name
        del self._shown[name]
        with suppress(OSError):
            detach(target)
        if target.is_dir():
            target.rmdir()
        else:
            target.unlink()

    def _show(self, name: str, identity: tuple[int, int]) -> None:
        source, target = NODES / name, DEV / name
        if name in self._shown:
            self._remove(name)
        if target.is_symlink():
            target.unlink()
        # That of the host, which must not come back when this one goes.
        with suppress(OSError):
            detach(target)
        if source.is_dir():
            target.mkdir(exist_ok=True)
        elif not target.exists():
            target.touch()
        bind(source, target)
        self._shown[name] = identity


def _present() -> dict[str, tuple[int, int]]:
    """Return the nodes and directories of nodes that the machine has, each with what it is."""
    found = {}
    for name in os.listdir(NODES):
        # One that is gone meanwhile has an event that is still to come.
        with suppress(FileNotFoundError):
            status = os.lstat(NODES / name)
            found[name] = (status.st_ino, status.st_rdev)
    return found

"""The part of a machine that a transport uses."""

from __future__ import annotations

from typing import Protocol

from fakesys.core.clock import Clock
from fakesys.core.kernel import Kernel
from fakesys.tree.filesystem import FileSystem


class ServedMachine(Protocol):
    """A machine as its transport sees it; `fakesys.machine.machine.Machine` is one.

    `kernel` and `clock` are other objects after a reset or after a snapshot was loaded, so a
    transport asks for them at each request and compares them with those it knows.
    """

    @property
    def fs(self) -> FileSystem:
        """The system calls on the machine's tree; the same object for the life of the machine."""

    @property
    def kernel(self) -> Kernel:
        """The present kernel."""

    @property
    def clock(self) -> Clock:
        """The clock of the present kernel."""

    def bug(self, error: BaseException) -> None:
        """Keep an internal error for `fakesys/bugs`."""

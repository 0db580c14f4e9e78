"""Which VMs a command is at work on: those that come meanwhile wait, in their order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from errno import ECANCELED

from fakesys.core.errors import Blocked, KernelError, Waiters
from fakesys.core.scheduling.resched import SlicedCall, running_call


class RunningCommands:
    """The commands at work, by the name of their VM; most end before anyone can ask."""

    def __init__(self) -> None:
        self._calls: dict[str, SlicedCall | None] = {}
        self._ended = Waiters()

    @contextmanager
    def running(self, name: str | None) -> Iterator[None]:
        """Let a command work on the VM of this name in the `with` block; None: on no single VM.

        Raises Blocked while a command of another call is at work on it.
        """
        if name is None or (name in self._calls and self._calls[name] is running_call()):
            yield
            return
        if name in self._calls:
            raise Blocked(self._ended)
        self._calls[name] = running_call()
        try:
            yield
        finally:
            del self._calls[name]
            self._ended.wake()

    def end(self, name: str) -> None:
        """End the command that is at work on this VM, which refuses with ECANCELED."""
        call = self._calls.get(name)
        if call is not None and call is not running_call():
            call.finish(KernelError(ECANCELED, f"{name} was destroyed before the command was done"))

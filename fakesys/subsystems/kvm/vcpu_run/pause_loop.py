"""How long a guest may spin: the window grows with each exit because of PAUSE.

Follows x86.h:__grow_ple_window, svm/svm.c:grow_ple_window (v6.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from fakesys.core.tracepoint import Tracepoint
from fakesys.subsystems.kvm.events.run import KvmPleWindow, KvmPleWindowUpdate


class Spinner(Protocol):
    """A vCPU that spins. `ple_window`: PAUSEs until an exit, 0 before it ever grew."""

    id: int
    ple_window: int

    def emit(self, kind: type[Tracepoint], make: Callable[[], Tracepoint]) -> None:
        """Emit an event if it is recorded."""


class PauseLoop:
    """The parameters of kvm_amd. `settings`: those that were given, as text."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = settings

    def grow(self, vcpu: Spinner) -> None:
        """Let the vCPU spin longer before it exits again."""
        base = self._number("pause_filter_count", 3000)
        factor = self._number("pause_filter_count_grow", 2)
        old = vcpu.ple_window or base
        if factor < 1:
            new = base
        elif factor < base:
            new = old * factor
        else:
            new = old + factor
        new = min(new, self._number("pause_filter_count_max", 65535))
        vcpu.ple_window = new
        if new == old:
            return
        vcpu.emit(KvmPleWindowUpdate, lambda: KvmPleWindowUpdate(vcpu_id=vcpu.id, new=new, old=old))
        vcpu.emit(KvmPleWindow, lambda: KvmPleWindow(grow=True, vcpu_id=vcpu.id, new=new, old=old))

    def _number(self, name: str, default: int) -> int:
        text = self._settings.get(name)
        return default if text is None else int(text)

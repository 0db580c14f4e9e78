"""The zap flows of a VM with the TDP MMU. Like mmu.c:kvm_mmu_zap_all_fast, kvm_mmu_zap_all (v6.1).

Nothing is slow there: what has to go can no longer be reached when the zap begins.
"""

from __future__ import annotations

from collections.abc import Callable

from fakesys.subsystems.kvm_mmu.mmu.zap import (
    UNLIMITED,
    Step,
    ZapAll,
    ZapFast,
    Zapper,
    lock_uncontended,
)
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.tdp.zap import TdpZapper


class TdpZapFast(ZapFast):
    """A new generation, and all roots become invalid and are zapped."""

    def __init__(
        self,
        arch: MmuArch,
        zapper: Zapper,
        tdp: TdpZapper,
        break_wanted: Callable[[], bool] = lock_uncontended,
    ) -> None:
        super().__init__(arch, zapper, break_wanted)
        self._tdp = tdp

    def begin(self) -> None:
        """Make all roots invalid at once."""
        super().begin()
        self._tdp.invalidate_roots()

    def step(self, budget: int = UNLIMITED) -> Step:
        """Zap the invalid roots."""
        self.zapped += self._tdp.zap_invalid_roots()
        return self._done()


class TdpZapAll(ZapAll):
    """All roots are zapped with the lock held for writing: nothing uses them any more."""

    def __init__(
        self,
        arch: MmuArch,
        zapper: Zapper,
        tdp: TdpZapper,
        break_wanted: Callable[[], bool] = lock_uncontended,
    ) -> None:
        super().__init__(arch, zapper, break_wanted)
        self._tdp = tdp

    def step(self, budget: int = UNLIMITED) -> Step:
        """Zap all roots."""
        self.zapped += self._tdp.zap_all()
        return self._done()

"""The zap flows of a VM with the TDP MMU. Like mmu.c:kvm_mmu_zap_all_fast, kvm_mmu_zap_all (v6.1).

Nothing is slow there: what has to go can no longer be reached when the zap begins.
"""

from __future__ import annotations

from collections.abc import Callable

from fakesys.subsystems.kvm_mmu.mmu.flows import ZapAll, ZapFast
from fakesys.subsystems.kvm_mmu.mmu.zap import UNLIMITED, Flow, Step, Zapper, lock_uncontended
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.policy import ZapFlow
from fakesys.subsystems.kvm_mmu.slots.memslots import Memslot
from fakesys.subsystems.kvm_mmu.tdp.zap import TdpZapper


class TdpFlow(Flow):
    """A flow that zaps what the TDP MMU has, in one step."""

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
        """Zap what has to go."""
        self.zapped += self._zap_tables()
        return self._done()

    def _zap_tables(self) -> int:
        """Zap it; return how many tables that were."""
        raise NotImplementedError


class TdpZapFast(TdpFlow, ZapFast):
    """A new generation, and all roots become invalid and are zapped."""

    def begin(self) -> None:
        """Make all roots invalid at once."""
        super().begin()
        self._tdp.invalidate_roots()

    def _zap_tables(self) -> int:
        return self._tdp.zap_invalid_roots()


class TdpZapAll(TdpFlow, ZapAll):
    """All roots are zapped with the lock held for writing: nothing uses them any more."""

    def _zap_tables(self) -> int:
        return self._tdp.zap_all()


class TdpZapSlot(TdpFlow):
    """Only the leaves of one slot. Like mmu.c:kvm_mmu_zap_memslot (v6.12)."""

    flow = ZapFlow.SLOT

    def __init__(
        self,
        arch: MmuArch,
        zapper: Zapper,
        tdp: TdpZapper,
        break_wanted: Callable[[], bool],
        slot: Memslot,
    ) -> None:
        super().__init__(arch, zapper, tdp, break_wanted)
        self._slot = slot

    def _zap_tables(self) -> int:
        slot = self._slot
        if self._tdp.unmap(slot.as_id, slot.base_gfn, slot.npages):
            self._arch.flush_remote_tlbs()
        return 0

"""The old zap flow for a wrap of the MMIO generation, before the series changed that."""

from __future__ import annotations

from fakesys.core.scheduling.resched import cond_resched
from fakesys.subsystems.kvm_mmu.mmu.zap import ZapAll


class ZapMmio(ZapAll):
    """The old flow for a wrap of the MMIO generation: only pages that have had MMIO sptes.

    Like mmu.c:__kvm_mmu_zap_all with `mmio_only` (v5.3).
    """

    def _undisturbed(self) -> bool:
        return False

    def _spares(self, row: int) -> bool:
        cond_resched()
        return super()._spares(row) or not self._arch.sptes.is_mmio_cached(row)

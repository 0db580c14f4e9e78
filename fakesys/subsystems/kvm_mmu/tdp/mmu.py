"""The TDP MMU of a VM put together."""

from __future__ import annotations

from collections.abc import Callable

from fakesys.subsystems.kvm_mmu.mmu.faultin import HostFaults
from fakesys.subsystems.kvm_mmu.mmu.mmio import Mmio
from fakesys.subsystems.kvm_mmu.mmu.zap import Flow, Zapper
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.policy import TdpRules, ZapFlow
from fakesys.subsystems.kvm_mmu.slots.memslots import AddressSpaces, Memslot
from fakesys.subsystems.kvm_mmu.tdp.changes import Changes
from fakesys.subsystems.kvm_mmu.tdp.dirty import TdpDirty
from fakesys.subsystems.kvm_mmu.tdp.faults import TdpFaults
from fakesys.subsystems.kvm_mmu.tdp.flow import TdpZapAll, TdpZapFast, TdpZapSlot
from fakesys.subsystems.kvm_mmu.tdp.mapping import TdpMapper
from fakesys.subsystems.kvm_mmu.tdp.tables import TdpTables
from fakesys.subsystems.kvm_mmu.tdp.values import SpteValues
from fakesys.subsystems.kvm_mmu.tdp.walker import TdpWalker
from fakesys.subsystems.kvm_mmu.tdp.zap import TdpZapper


class TdpMmu:
    """Tables and operations of the TDP MMU of one VM."""

    def __init__(
        self, arch: MmuArch, spaces: AddressSpaces, rules: TdpRules, mmio: Mmio, host: HostFaults
    ) -> None:
        self.tables = TdpTables()
        values = SpteValues(arch, spaces, rules)
        self._arch = arch
        self.changes = Changes(arch, values)
        self.walker = TdpWalker(self.tables)
        self.mapper = TdpMapper(arch, self.tables, self.changes)
        self.zapper = TdpZapper(arch, self.tables, self.changes)
        self.dirty = TdpDirty(arch, self.tables, self.changes, self.mapper)
        self.faults = TdpFaults(
            arch,
            spaces,
            walker=self.walker,
            values=values,
            mapper=self.mapper,
            mmio=mmio,
            host=host,
        )

    def flow(
        self,
        flow: ZapFlow,
        zapper: Zapper,
        break_wanted: Callable[[], bool],
        slot: Memslot | None,
    ) -> Flow:
        """Return a zap, not begun: of everything, or of what `slot` has."""
        if flow is ZapFlow.SLOT:
            assert slot is not None
            return TdpZapSlot(self._arch, zapper, self.zapper, break_wanted, slot)
        kind = TdpZapFast if flow is ZapFlow.FAST else TdpZapAll
        return kind(self._arch, zapper, self.zapper, break_wanted)

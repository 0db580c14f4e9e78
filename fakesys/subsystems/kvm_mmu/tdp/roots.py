"""The roots of vCPUs with the TDP MMU. Like tdp_mmu.c:kvm_tdp_mmu_get_vcpu_root_hpa (v6.1)."""

from __future__ import annotations

from fakesys.subsystems.kvm_mmu.mmu.get_page import PageFinder
from fakesys.subsystems.kvm_mmu.mmu.roots import Roots
from fakesys.subsystems.kvm_mmu.mmu.sync_page import PageSyncer
from fakesys.subsystems.kvm_mmu.mmu.zap import Zapper
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch
from fakesys.subsystems.kvm_mmu.shadow.links import ShadowLinks
from fakesys.subsystems.kvm_mmu.shadow.vcpu import VcpuMmu
from fakesys.subsystems.kvm_mmu.slots.memslots import AddressSpaces
from fakesys.subsystems.kvm_mmu.tdp.changes import Changes
from fakesys.subsystems.kvm_mmu.tdp.tables import TdpTables


class TdpRoots(Roots):
    """Loads roots: one for each address space, whatever its vCPUs run."""

    def __init__(
        self,
        arch: MmuArch,
        links: ShadowLinks,
        zapper: Zapper,
        syncer: PageSyncer,
        finder: PageFinder,
        spaces: AddressSpaces,
    ) -> None:
        super().__init__(arch, links, zapper, syncer, finder, spaces)
        self._tables = TdpTables()
        self._changes: Changes | None = None

    def attach(self, tables: TdpTables, changes: Changes) -> None:
        """Load the roots of these tables."""
        self._tables, self._changes = tables, changes

    def load(self, vcpu: VcpuMmu) -> bool:
        """Load the root of the vCPU's address space; make it if there is none."""
        root = self._tables.find(vcpu.as_id)
        if root is None:
            root = self._tables.make_root(vcpu.as_id)
            assert self._changes is not None
            self._changes.trace_new_page(vcpu.as_id, 0, 4)
        vcpu.roots.append(root.number)
        return True

    def sync(self, vcpu: VcpuMmu) -> None:
        """Do nothing: the guest's tables are not shadowed."""

    def free(self, vcpu: VcpuMmu) -> None:
        """Release the root of a vCPU, which stays."""
        vcpu.roots.clear()

    def _reload(self, vcpu: VcpuMmu) -> None:
        valid = {root.number for root in self._tables.roots if not root.invalid}
        if any(number not in valid for number in vcpu.roots):
            self.free(vcpu)

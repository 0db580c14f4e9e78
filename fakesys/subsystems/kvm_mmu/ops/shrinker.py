"""The shrinker: when the host is short of memory, KVM gives up the oldest shadow pages."""

from __future__ import annotations

from fakesys.subsystems.kvm_mmu.ops.zap import Zapper
from fakesys.subsystems.kvm_mmu.shadow.arch import Kit


class Shrinker:
    """All VMs of the host in the order in which they will be asked (vm_list)."""

    def __init__(self) -> None:
        self._vms: list[tuple[Kit, Zapper]] = []

    def add(self, kit: Kit, zapper: Zapper) -> None:
        """A new VM is asked first."""
        self._vms.insert(0, (kit, zapper))

    def remove(self, kit: Kit) -> None:
        """The VM is gone."""
        self._vms = [entry for entry in self._vms if entry[0] is not kit]

    def count(self) -> int:
        """Shadow pages of all VMs. Like mmu.c:mmu_shrink_count (v5.4)."""
        return sum(kit.pages.used for kit, _ in self._vms if kit.policy.has_shrinker)

    def scan(self) -> int:
        """One call: one VM gives up one page; how many were freed.

        What a fast zap left on the VM's list is freed first, and counts as nothing.
        Like mmu.c:mmu_shrink_scan (v5.4).
        """
        for place, (kit, zapper) in enumerate(self._vms):
            if not kit.policy.has_shrinker:
                continue
            if not kit.pages.used and not kit.zapped_obsolete:
                continue
            self._vms.append(self._vms.pop(place))
            if kit.zapped_obsolete:
                zapper.commit(kit.zapped_obsolete)
                return 0
            return _zap_oldest(kit, zapper)
        return 0


def _zap_oldest(kit: Kit, zapper: Zapper) -> int:
    if kit.policy.recycle_skips_roots:
        return zapper.recycle(1)
    before = kit.pages.used
    zapper.recycle_until(lambda: kit.pages.used < before)
    return before - kit.pages.used

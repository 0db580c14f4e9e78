"""The shrinker: when the host is short of memory, KVM frees the oldest shadow pages."""

from __future__ import annotations

from fakesys.core.scheduling.resched import might_lock
from fakesys.subsystems.kvm_mmu.mmu.zap import Zapper
from fakesys.subsystems.kvm_mmu.shadow.arch import MmuArch


class Shrinker:
    """All VMs of the host in the order in which they will be asked (vm_list)."""

    def __init__(self) -> None:
        self._vms: list[tuple[MmuArch, Zapper]] = []

    def add(self, arch: MmuArch, zapper: Zapper) -> None:
        """Add a new VM, which is asked first."""
        self._vms.insert(0, (arch, zapper))

    @property
    def order(self) -> list[MmuArch]:
        """The memories of all VMs, that which is asked first at the head."""
        return [arch for arch, _ in self._vms]

    def remove(self, arch: MmuArch) -> None:
        """Remove a VM that is destroyed."""
        self._vms = [entry for entry in self._vms if entry[0] is not arch]

    def count(self) -> int:
        """Return the number of shadow pages of all VMs. Like mmu.c:mmu_shrink_count (v5.4)."""
        return sum(arch.pages.used for arch, _ in self._vms if arch.policy.has_shrinker)

    def might_lock(self) -> None:
        """Announce `scan`, which may have to wait. Raises TakesLong, as `might_resched` does."""
        for arch, _ in self._vms:
            might_lock(arch.mmu_lock)

    def scan(self) -> int:
        """Let one VM free one page; return how many pages were freed.

        Pages that a fast zap left on the VM's list are freed first, and are not counted.
        Like mmu.c:mmu_shrink_scan (v5.4).
        """
        for place, (arch, zapper) in enumerate(self._vms):
            if not arch.policy.has_shrinker:
                continue
            if not arch.pages.used and not arch.zapped_obsolete:
                continue
            self._vms.append(self._vms.pop(place))
            if arch.zapped_obsolete:
                zapper.commit(arch.zapped_obsolete)
                return 0
            return _zap_oldest(arch, zapper)
        return 0


def _zap_oldest(arch: MmuArch, zapper: Zapper) -> int:
    if arch.policy.recycle_skips_roots:
        return zapper.recycle(1)
    before = arch.pages.used
    zapper.recycle_until(lambda: arch.pages.used < before)
    return before - arch.pages.used

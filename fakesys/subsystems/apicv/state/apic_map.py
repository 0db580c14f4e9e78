"""Which vCPUs a destination means.

Like arch/x86/kvm/lapic.c: kvm_apic_match_dest, kvm_recalculate_apic_map (v6.18). The map is
rebuilt at the first look-up after an id, LDR, DFR or mode changed; a look-up then costs one
dictionary access.
"""

from __future__ import annotations

from collections.abc import Mapping

from fakesys.subsystems.apicv.chips.lapic import CLUSTER, Lapic
from fakesys.subsystems.apicv.state.vcpu import ApicVcpu

BROADCAST = 0xFF
X2APIC_BROADCAST = 0xFFFFFFFF


class ApicMap:
    """Masks of vCPUs by physical and logical id.

    `all`: the vCPUs whose APIC is enabled. `physical_aliased`, `logical_aliased`: two of them have
    the same id. `id_modified`: the guest changed an xAPIC id. Call `refresh` before reading these.
    """

    def __init__(self, vcpus: Mapping[int, ApicVcpu]) -> None:
        self._vcpus = vcpus
        self._stale = True
        self.all = 0
        self.physical_aliased = self.logical_aliased = self.id_modified = False
        self._physical: dict[int, int] = {}
        self._logical: dict[tuple[bool, int], int] = {}

    def invalidate(self) -> None:
        """Rebuild the map before it is used again."""
        self._stale = True

    def physical(self, dest: int, *, wide: bool = False) -> int:
        """Return the mask of a physical destination. `wide`: the sender is in x2APIC mode."""
        self.refresh()
        if dest == (X2APIC_BROADCAST if wide else BROADCAST):
            return self.all
        return self._physical.get(dest, 0)

    def logical(self, dest: int, *, wide: bool = False) -> int:
        """Return the mask of a logical destination. `wide`: the sender is in x2APIC mode."""
        self.refresh()
        known = self._logical.get((wide, dest))
        if known is None:
            known = sum(
                vcpu.bit
                for vcpu in self._vcpus.values()
                if vcpu.lapic.enabled and match_logical_addr(vcpu.lapic, dest, wide=wide)
            )
            self._logical[wide, dest] = known
        return known

    def refresh(self) -> None:
        """Rebuild the map if it is stale."""
        if not self._stale:
            return
        self._stale = False
        self._logical.clear()
        self._physical.clear()
        self.all = 0
        self.physical_aliased = self.id_modified = False
        vcpus = [vcpu for vcpu in self._vcpus.values() if vcpu.lapic.enabled]
        for vcpu in vcpus:
            self.all |= vcpu.bit
            apic_id = vcpu.lapic.id
            if apic_id in self._physical:
                self.physical_aliased = True
            self._physical[apic_id] = self._physical.get(apic_id, 0) | vcpu.bit
            if not vcpu.lapic.x2apic and apic_id != vcpu.id:
                self.id_modified = True
        self.logical_aliased = _has_aliases([vcpu.lapic for vcpu in vcpus])


def match_logical_addr(lapic: Lapic, dest: int, *, wide: bool) -> bool:
    """Return whether a logical destination includes this APIC.

    Like lapic.c:kvm_apic_match_logical_addr (v6.1).
    """
    if dest == (X2APIC_BROADCAST if wide else BROADCAST):
        return True
    logical_id = lapic.logical_id
    if lapic.x2apic:
        return logical_id >> 16 == dest >> 16 and bool(logical_id & dest & 0xFFFF)
    if lapic.dfr != CLUSTER:
        return bool(logical_id & dest)
    return logical_id >> 4 == dest >> 4 and bool(logical_id & dest & 0xF)


def _has_aliases(lapics: list[Lapic]) -> bool:
    """Return whether some logical id is not that of exactly one vCPU.

    Like lapic.c:kvm_recalculate_logical_map (v6.18).
    """
    used = [lapic for lapic in lapics if not lapic.x2apic and lapic.ldr]
    clustered = {lapic.dfr == CLUSTER for lapic in used}
    if len(clustered) > 1:
        return True
    ids = [lapic.logical_id for lapic in used]
    bits = 0xF if True in clustered else 0xFF
    if any((known & bits).bit_count() != 1 for known in ids):
        return True
    return len(set(ids)) != len(ids)

"""Which vCPUs a destination means. Like arch/x86/kvm/lapic.c: kvm_apic_match_dest,
kvm_recalculate_apic_map (v6.18).

Built anew after an id, LDR, DFR or mode changed; physical look-ups are one dict access.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fakesys.subsystems.apicv.chips.lapic import CLUSTER, Lapic
from fakesys.subsystems.apicv.state.vcpu import ApicVcpu

BROADCAST = 0xFF
X2APIC_BROADCAST = 0xFFFFFFFF


class ApicMap:
    """Masks of vCPUs by physical and logical id."""

    def __init__(self, vcpus: Callable[[], Iterable[ApicVcpu]]) -> None:
        self._vcpus = vcpus
        self._stale = True
        self.all = 0
        self.physical_aliased = self.logical_aliased = self.id_modified = False
        self._physical: dict[int, int] = {}
        self._logical: dict[tuple[bool, int], int] = {}

    def changed(self) -> None:
        """Something that a destination is compared with is different now."""
        self._stale = True

    def physical(self, dest: int, *, wide: bool = False) -> int:
        """The vCPUs that this physical destination means. `wide`: the sender uses x2APIC."""
        self._refresh()
        if dest == (X2APIC_BROADCAST if wide else BROADCAST):
            return self.all
        return self._physical.get(dest, 0)

    def logical(self, dest: int, *, wide: bool = False) -> int:
        """The vCPUs that this logical destination means."""
        self._refresh()
        known = self._logical.get((wide, dest))
        if known is None:
            known = sum(
                vcpu.bit
                for vcpu in self._vcpus()
                if vcpu.lapic.enabled and match_logical_addr(vcpu.lapic, dest, wide=wide)
            )
            self._logical[wide, dest] = known
        return known

    def refresh_aliases(self) -> None:
        """Bring `physical_aliased`, `logical_aliased` and `id_modified` up to date."""
        self._refresh()

    def _refresh(self) -> None:
        if not self._stale:
            return
        self._stale = False
        self._logical.clear()
        self._physical.clear()
        self.all = 0
        self.physical_aliased = self.id_modified = False
        vcpus = [vcpu for vcpu in self._vcpus() if vcpu.lapic.enabled]
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
    """Does this APIC take a logical destination? Like lapic.c:kvm_apic_match_logical_addr."""
    if dest == (X2APIC_BROADCAST if wide else BROADCAST):
        return True
    logical_id = lapic.logical_id
    if lapic.x2apic:
        return logical_id >> 16 == dest >> 16 and bool(logical_id & dest & 0xFFFF)
    if lapic.dfr != CLUSTER:
        return bool(logical_id & dest)
    return logical_id >> 4 == dest >> 4 and bool(logical_id & dest & 0xF)


def _has_aliases(lapics: list[Lapic]) -> bool:
    """Is some logical id not the id of exactly one vCPU? lapic.c:kvm_recalculate_logical_map."""
    used = [lapic for lapic in lapics if not lapic.x2apic and lapic.ldr]
    clustered = {lapic.dfr == CLUSTER for lapic in used}
    if len(clustered) > 1:
        return True
    ids = [lapic.logical_id for lapic in used]
    bits = 0xF if True in clustered else 0xFF
    if any((known & bits).bit_count() != 1 for known in ids):
        return True
    return len(set(ids)) != len(ids)

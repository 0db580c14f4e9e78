"""What happens after an APIC id, LDR, DFR or mode changed: a new map, and inhibit reasons from it.

Like arch/x86/kvm/lapic.c: kvm_recalculate_apic_map (v6.18), kvm_lapic_xapic_id_updated (v6.1).
"""

from __future__ import annotations

from fakesys.subsystems.apicv.state.inhibit_reasons import Reason
from fakesys.subsystems.apicv.state.vm import ApicVm


def ids_changed(vm: ApicVm) -> None:
    """Rebuild the APIC map; set and clear the reasons that follow from aliased or modified ids."""
    vm.map.invalidate()
    vm.map.refresh()
    if vm.policy.watches_map:
        _follow(vm, Reason.PHYSICAL_ID_ALIASED, on=vm.map.physical_aliased)
        _follow(vm, Reason.LOGICAL_ID_ALIASED, on=vm.map.logical_aliased)
        _follow(vm, Reason.APIC_ID_MODIFIED, on=vm.map.id_modified)
    elif vm.map.id_modified and Reason.APIC_ID_MODIFIED in vm.policy.numbers:
        _follow(vm, Reason.APIC_ID_MODIFIED, on=True)


def _follow(vm: ApicVm, reason: Reason, *, on: bool) -> None:
    """Set or clear a reason; there is no call, and so no event, while it stays as it is."""
    number = vm.policy.numbers[reason]
    if bool(vm.inhibit.mask >> number & 1) == on:
        return
    if on:
        vm.inhibit.set(reason)
    else:
        vm.inhibit.clear(reason)

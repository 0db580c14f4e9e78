"""How kernels differ in interrupt virtualization: one row of choices per behaviour.

The engine reads these; it has no paths of its own for a kernel. Which kernel behaves how stands
in `profiles.py`.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

from fakesys.subsystems.apicv.state.inhibit_reasons import (
    FIVE_REASONS,
    FOR_GOOD,
    TEN_REASONS,
    THIRTEEN_REASONS,
    Numbers,
)


class InhibitStyle(Enum):
    """What the VM-wide state is, and when a change of it is traced."""

    # Disabled, suspended, activated; two requests; a line for every call.
    ENUM = "enum"
    # A bit per reason; a line when "any bit set" flips.
    FLIPS = "flips"
    # A bit per reason; a line for every call.
    BITS = "bits"
    # As BITS, and a count of vCPUs that wait for an interrupt window.
    COUNTED = "counted"


class SynicRule(Enum):
    """When Hyper-V's synthetic interrupt controller switches AVIC off."""

    AT_ENABLE = "at enable"
    WITH_AUTO_EOI = "while a vector has AutoEOI"


class NestedRule(Enum):
    """What a guest that can have guests means."""

    # CPUID with SVM switches the VM off.
    AT_CPUID = "at cpuid"
    # Only a vCPU that runs a nested guest does without.
    WHILE_IN_L2 = "while in L2"


class LazyEoi(Enum):
    """What happens at the IOAPIC when it finds that a vector was EOIed behind its back."""

    # Bookkeeping of the RTC and all ack notifiers.
    NOTIFIES = "notifies"
    NOTIFIES_ANY_TRIGGER = "notifies, level pins too"
    # CVE-2020-27152: the RTC only.
    RTC_ONLY = "rtc only"


class TooBig(Enum):
    """What a vCPU id above the hardware's table means."""

    REFUSED = "refused"
    INHIBITS = "inhibits the VM"


class ApicvPolicy(Struct, frozen=True):
    """One kernel's choices. `numbers`: the reasons that it knows, with their bits."""

    style: InhibitStyle
    numbers: Numbers
    synic: SynicRule
    nested: NestedRule
    lazy_eoi: LazyEoi
    too_big: TooBig
    # kvm_create_pit: a VM begins without AVIC for as long as ticks are reinjected.
    pit_reinject_inhibits: bool
    # x2APIC: the CPUID bit is hidden while AVIC is active, or AVIC goes on in that mode.
    hides_x2apic: bool
    # The access page is a memslot that goes and comes; else only its gfn is zapped.
    page_follows: bool
    # A vCPU is born active or not as the VM is; else active, with an update pending.
    born_as_vm: bool
    # Turning a vCPU off marks it as not running and makes it look for events.
    off_clears_running: bool
    off_sets_event: bool
    # kvm_apic_update_apicv: irr_pending is computed then; else it is just set.
    off_scans_irr: bool
    # kvm_vcpu_apicv_activated() also asks whether the APIC is enabled at all.
    off_without_apic: bool
    # i8259.c:pic_irq_request wakes whenever the old output was low.
    pic_wakes_for_nothing: bool
    # The kernel begins with a line for what keeps AVIC off; None: no line.
    absent_and_disabled: bool
    # avic.c: an intercepted IPI is written to the ICR again; an invalid target loses it.
    rewrites_icr: bool
    loses_invalid_ipi: bool
    # svm_complete_interrupt_delivery with its two tracepoints.
    completes_delivery: bool
    # The map of APIC ids decides about aliased ids, and an id can be set back.
    watches_map: bool
    # A vCPU toggles its mark when it blocks: it serves requests before it unblocks, and
    # avic_vcpu_load warns about a mark that is there already.
    toggles_running: bool
    # A new APIC id moves the vCPU's entry in the physical table.
    id_moves_entry: bool
    # Bits of the host's APIC id in a table entry, of vm_id in a GA tag's shift, of the index.
    host_id_bits: int
    ga_tag_shift: int
    index_mask: int
    vm_id_bits: int
    access_page_slot: int


ENUM_STATE = ApicvPolicy(
    style=InhibitStyle.ENUM,
    numbers=FOR_GOOD,
    synic=SynicRule.AT_ENABLE,
    nested=NestedRule.AT_CPUID,
    lazy_eoi=LazyEoi.NOTIFIES,
    too_big=TooBig.REFUSED,
    pit_reinject_inhibits=False,
    hides_x2apic=True,
    page_follows=True,
    born_as_vm=True,
    off_clears_running=False,
    off_sets_event=False,
    off_scans_irr=True,
    off_without_apic=False,
    pic_wakes_for_nothing=True,
    absent_and_disabled=False,
    rewrites_icr=True,
    loses_invalid_ipi=True,
    completes_delivery=False,
    watches_map=False,
    toggles_running=True,
    id_moves_entry=True,
    host_id_bits=8,
    ga_tag_shift=8,
    index_mask=0xFF,
    vm_id_bits=24,
    access_page_slot=510,
)
"""The third version of the series: an enum, and AVIC stays on with a reinjecting PIT."""

FLIP_LINES = replace(
    ENUM_STATE,
    style=InhibitStyle.FLIPS,
    numbers=FIVE_REASONS,
    lazy_eoi=LazyEoi.NOTIFIES_ANY_TRIGGER,
    pit_reinject_inhibits=True,
)
"""As merged: a bit per reason, one request, a line when the VM flips."""

CALL_LINES = replace(
    FLIP_LINES,
    style=InhibitStyle.BITS,
    numbers=TEN_REASONS,
    synic=SynicRule.WITH_AUTO_EOI,
    nested=NestedRule.WHILE_IN_L2,
    lazy_eoi=LazyEoi.RTC_ONLY,
    hides_x2apic=False,
    page_follows=False,
    born_as_vm=False,
    off_clears_running=True,
    off_sets_event=True,
    off_scans_irr=False,
    off_without_apic=True,
    absent_and_disabled=True,
    rewrites_icr=False,
    loses_invalid_ipi=False,
    completes_delivery=True,
    toggles_running=False,
    id_moves_entry=False,
    host_id_bits=12,
    ga_tag_shift=9,
    index_mask=0x1FF,
    vm_id_bits=23,
    access_page_slot=32765,
)
"""Reasons per vCPU as well as per VM, x2AVIC, a line for every call."""

MAPPED_IDS = replace(
    CALL_LINES,
    numbers=THIRTEEN_REASONS,
    too_big=TooBig.INHIBITS,
    pic_wakes_for_nothing=False,
    absent_and_disabled=False,
    watches_map=True,
)
"""Aliased and oversized ids are reasons; the PIC wakes only for a real interrupt."""

COUNTED_WINDOWS = replace(MAPPED_IDS, style=InhibitStyle.COUNTED)
"""vCPUs that wait for a window are counted; the window ends with the injection."""

"""How kernels differ in interrupt virtualization: one field per behaviour.

The engine reads these fields and knows no kernel versions; `profiles.py` gives each kernel its
policy.
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
    TWELVE_REASONS,
    Numbers,
)


class InhibitStyle(Enum):
    """The form of the VM-wide state, and when a change of it is traced."""

    # Disabled, suspended or activated; two requests; every call is traced.
    ENUM = "enum"
    # A bit per reason; traced when AVIC goes off or on.
    FLIPS = "flips"
    # A bit per reason; every call is traced.
    BITS = "bits"
    # As BITS, with a count of the vCPUs that wait for an interrupt window.
    COUNTED = "counted"


class SynicRule(Enum):
    """When Hyper-V's synthetic interrupt controller inhibits AVIC."""

    # It does not: the vCPU goes without AVIC, the VM and its access page stay.
    ONE_VCPU = "one vCPU"
    AT_ENABLE = "at enable"
    WITH_AUTO_EOI = "while a vector has AutoEOI"


class NestedRule(Enum):
    """How nested virtualization (SVM exposed to the guest) affects AVIC."""

    # AVIC stays on; the nested guest runs without, and nobody hears what comes for the guest.
    IGNORED = "ignored"
    # CPUID with SVM disables AVIC for the whole VM.
    AT_CPUID = "at cpuid"
    # AVIC is off only on a vCPU that runs a nested guest, as long as it does.
    WHILE_IN_L2 = "while in L2"


class LazyEoi(Enum):
    """What the IOAPIC does when it finds that AVIC handled an EOI without an exit."""

    # It never looks: an EOI without an exit is not found.
    NEVER = "never"
    # Update the state of the RTC and call all ack notifiers, for edge pins.
    NOTIFIES = "notifies"
    # The same for pins of any trigger mode.
    NOTIFIES_ANY_TRIGGER = "notifies, level pins too"
    # Update the state of the RTC only (the fix of CVE-2020-27152).
    RTC_ONLY = "rtc only"


class TooBig(Enum):
    """What happens to a vCPU whose id is above the last entry of the physical id table."""

    REFUSED = "refused"
    INHIBITS = "inhibits the VM"


class ApicvPolicy(Struct, frozen=True):
    """The choices of one kernel. `numbers`: the inhibit reasons that it knows, with their bits.

    The fields with a default are those of the kernels before the series and after its patches.
    """

    style: InhibitStyle
    numbers: Numbers
    synic: SynicRule
    nested: NestedRule
    lazy_eoi: LazyEoi
    too_big: TooBig
    # kvm_create_pit: AVIC is inhibited while the PIT reinjects ticks.
    pit_reinject_inhibits: bool
    # CPUID shows no x2APIC while AVIC is active; otherwise AVIC stays on in that mode.
    hides_x2apic: bool
    # The memslot of the access page is deleted while AVIC is off; otherwise its gfn is zapped.
    page_follows: bool
    # A new vCPU has AVIC on if the VM has; otherwise always, with an update request pending.
    born_as_vm: bool
    # Switching AVIC off on a vCPU clears IsRunning, and makes KVM_REQ_EVENT.
    off_clears_running: bool
    off_sets_event: bool
    # kvm_vcpu_apicv_activated also asks whether the APIC is enabled at all.
    off_without_apic: bool
    # i8259.c:pic_irq_request wakes a vCPU whenever the previous output was low.
    pic_wakes_for_nothing: bool
    # A VM without AVIC begins with both reasons, ABSENT and DISABLED; otherwise with DISABLED.
    absent_and_disabled: bool
    # avic.c: KVM writes an intercepted IPI to the ICR again; an IPI to an invalid target is lost.
    rewrites_icr: bool
    loses_invalid_ipi: bool
    # svm_complete_interrupt_delivery with its two tracepoints.
    completes_delivery: bool
    # The APIC map sets and clears the reasons of aliased and modified ids.
    watches_map: bool
    # avic_set_running when a vCPU blocks and unblocks: it serves requests before it unblocks, and
    # avic_vcpu_load warns if IsRunning is set already.
    toggles_running: bool
    # A new APIC id moves the vCPU's entry in the physical id table.
    id_moves_entry: bool
    # Widths: host APIC id in a table entry, shift of vm_id in a GA tag, index in EXITINFO2, vm_id.
    host_id_bits: int
    ga_tag_shift: int
    index_mask: int
    vm_id_bits: int
    access_page_slot: int
    # A new vCPU has no entry in the physical id table as long as the VM has AVIC off.
    entry_when_active: bool = False
    # AVIC works with PIC and IOAPIC in the kernel too, not only with those of user space.
    kernel_irqchip: bool = True
    # The VM has a state, which a view shows.
    has_state: bool = True
    # A change of the VM's state is followed: by the access page, by the tables of a vCPU, and
    # before a vCPU that wakes up is marked as running. Otherwise the page is plain memory for a
    # vCPU without AVIC.
    follows_state: bool = True
    # IRTEs leave and enter guest mode with the AVIC of their vCPU.
    devices_follow: bool = True
    # A vCPU that needs an interrupt window switches AVIC off; otherwise no window opens.
    suspends_for_window: bool = True


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
    entry_when_active=True,
)
"""The third version of the series: an enumeration; AVIC stays on while the PIT reinjects."""

FLIP_TRACE = replace(
    ENUM_STATE,
    entry_when_active=False,
    style=InhibitStyle.FLIPS,
    numbers=FIVE_REASONS,
    lazy_eoi=LazyEoi.NOTIFIES_ANY_TRIGGER,
    pit_reinject_inhibits=True,
)
"""5.6, as merged: a bit per reason, one request, traced when AVIC goes off or on."""

CALL_TRACE = replace(
    FLIP_TRACE,
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
"""6.1: reasons per vCPU as well as per VM, x2AVIC, every call traced."""

WATCHED_IDS = replace(
    CALL_TRACE,
    numbers=TWELVE_REASONS,
    absent_and_disabled=False,
    watches_map=True,
)
"""6.12: aliased ids are reasons."""

MAPPED_IDS = replace(
    WATCHED_IDS,
    numbers=THIRTEEN_REASONS,
    too_big=TooBig.INHIBITS,
    pic_wakes_for_nothing=False,
)
"""6.18: oversized ids are a reason; the PIC wakes only for a pending interrupt."""

COUNTED_WINDOWS = replace(MAPPED_IDS, style=InhibitStyle.COUNTED)
"""7.x: vCPUs that wait for a window are counted; the window ends with the injection."""

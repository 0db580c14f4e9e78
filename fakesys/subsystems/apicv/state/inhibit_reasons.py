"""Inhibit reasons: why AVIC is off, by name, and their bit numbers in each kernel.

Source: arch/x86/include/asm/kvm_host.h, enum kvm_apicv_inhibit (v6.1) and its forerunners.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class Reason(Enum):
    """A reason that keeps AVIC off, named as in enum kvm_apicv_inhibit."""

    DISABLED = "DISABLED"
    HYPERV = "HYPERV"
    ABSENT = "ABSENT"
    BLOCKIRQ = "BLOCKIRQ"
    PHYSICAL_ID_ALIASED = "PHYSICAL_ID_ALIASED"
    APIC_ID_MODIFIED = "APIC_ID_MODIFIED"
    APIC_BASE_MODIFIED = "APIC_BASE_MODIFIED"
    NESTED = "NESTED"
    IRQWIN = "IRQWIN"
    PIT_REINJ = "PIT_REINJ"
    SEV = "SEV"
    LOGICAL_ID_ALIASED = "LOGICAL_ID_ALIASED"
    PHYSICAL_ID_TOO_BIG = "PHYSICAL_ID_TOO_BIG"


Numbers = Mapping[Reason, int]

# [v3] has an enumeration instead of bits: these two disable AVIC for the life of the VM.
FOR_GOOD: Numbers = {Reason.HYPERV: 0, Reason.NESTED: 0}

FIVE_REASONS: Numbers = {
    Reason.DISABLED: 0,
    Reason.HYPERV: 1,
    Reason.NESTED: 2,
    Reason.IRQWIN: 3,
    Reason.PIT_REINJ: 4,
}

TEN_REASONS: Numbers = {
    Reason.DISABLED: 0,
    Reason.HYPERV: 1,
    Reason.ABSENT: 2,
    Reason.BLOCKIRQ: 3,
    Reason.APIC_ID_MODIFIED: 4,
    Reason.APIC_BASE_MODIFIED: 5,
    Reason.NESTED: 6,
    Reason.IRQWIN: 7,
    Reason.PIT_REINJ: 8,
    Reason.SEV: 9,
}

TWELVE_REASONS: Numbers = {
    Reason.DISABLED: 0,
    Reason.HYPERV: 1,
    Reason.ABSENT: 2,
    Reason.BLOCKIRQ: 3,
    Reason.PHYSICAL_ID_ALIASED: 4,
    Reason.APIC_ID_MODIFIED: 5,
    Reason.APIC_BASE_MODIFIED: 6,
    Reason.NESTED: 7,
    Reason.IRQWIN: 8,
    Reason.PIT_REINJ: 9,
    Reason.SEV: 10,
    Reason.LOGICAL_ID_ALIASED: 11,
}

THIRTEEN_REASONS: Numbers = {**TWELVE_REASONS, Reason.PHYSICAL_ID_TOO_BIG: 12}


def mask_of(numbers: Numbers, *reasons: Reason) -> int:
    """Return the bits of these reasons."""
    return sum(1 << numbers[reason] for reason in reasons)

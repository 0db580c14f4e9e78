"""A local APIC: its ids, its registers and the bitmaps IRR, ISR and TMR.

Bit N of `irr`, `isr` and `tmr` is vector N. Like arch/x86/kvm/lapic.c (v6.1). Differs: the APIC is
software-enabled from the start, as the guests of this simulator do not write SPIV first.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

BASE = 0xFEE00000

ID, VERSION, TPR, PPR, EOI, RRR = 0x20, 0x30, 0x80, 0xA0, 0xB0, 0xC0
LDR, DFR, SPIV, ESR, ICR, ICR2 = 0xD0, 0xE0, 0xF0, 0x280, 0x300, 0x310
LVTT, LVTTHMR, LVTPC, LVT0, LVT1, LVTERR = 0x320, 0x330, 0x340, 0x350, 0x360, 0x370
TMICT, TMCCT, TDCR = 0x380, 0x390, 0x3E0
ISR, TMR, IRR = 0x100, 0x180, 0x200

MASKED = 0x10000
EXTINT = 0x700
NMI = 0x400
MODE_MASK = 0x700
FLAT = 0xFFFFFFFF
CLUSTER = 0x0FFFFFFF
VERSION_VALUE = 0x50014


class Mode(IntEnum):
    """Delivery mode: bits 8-10 of ICR, of LVT entries and of redirection entries."""

    FIXED = 0
    LOWEST = 1
    SMI = 2
    RES = 3
    NMI = 4
    INIT = 5
    SIPI = 6
    EXTINT = 7


class Lapic:
    """Registers of one local APIC.

    `enabled`: set in MSR_IA32_APICBASE. `x2apic`: in x2APIC mode. `id`: matched with physical
    destinations; an id above 255 can be addressed in xAPIC mode too, as user space that creates
    such vCPUs enables KVM_CAP_X2APIC_API. `others`: values of registers without a field here, by
    offset.
    """

    __slots__ = (
        "base",
        "dfr",
        "enabled",
        "icr",
        "icr2",
        "id",
        "irr",
        "isr",
        "ldr",
        "lvt0",
        "others",
        "tmr",
        "tpr",
        "x2apic",
    )

    def __init__(self, vcpu_id: int) -> None:
        self.id = vcpu_id
        self.base = BASE
        self.enabled = True
        self.x2apic = False
        self.reset(first=vcpu_id == 0)

    def reset(self, *, first: bool) -> None:
        """Reset all registers as INIT does.

        `first`: this is the boot CPU, whose LINT0 takes ExtINT; LINT0 of the others is masked.
        """
        self.irr = self.isr = self.tmr = 0
        self.tpr = 0
        self.ldr = 0
        self.dfr = FLAT
        self.lvt0 = EXTINT if first else MASKED
        self.icr = self.icr2 = 0
        self.others: dict[int, int] = {SPIV: 0x1FF}

    @property
    def logical_id(self) -> int:
        """Logical id: bits 24-31 of LDR; in x2APIC mode cluster and bit derived from the id."""
        if self.x2apic:
            return (self.id >> 4) << 16 | 1 << (self.id & 0xF)
        return self.ldr >> 24

    @property
    def ppr(self) -> int:
        """Processor priority: the larger of TPR and the class of the highest vector in ISR."""
        served = (self.isr.bit_length() - 1) & 0xF0 if self.isr else 0
        return max(self.tpr, served)

    @property
    def accepts_pic(self) -> bool:
        """Whether the PIC interrupts this vCPU. Like lapic.c:kvm_apic_accept_pic_intr (v6.1)."""
        return not self.enabled or self.lvt0 & (MASKED | MODE_MASK) == EXTINT

    def deliverable(self) -> int:
        """Return the highest vector in IRR if its class is above that of PPR, else -1."""
        if not self.irr or not self.enabled:
            return -1
        vector = self.irr.bit_length() - 1
        return vector if vector >> 4 > self.ppr >> 4 else -1

    def request(self, vector: int) -> None:
        """Set the vector in IRR."""
        self.irr |= 1 << vector

    def set_trigger(self, vector: int, *, level: bool) -> None:
        """Set or clear the vector in TMR."""
        bit = 1 << vector
        self.tmr = self.tmr | bit if level else self.tmr & ~bit

    def is_level(self, vector: int) -> bool:
        """Return whether the vector was level-triggered when it was last accepted."""
        return bool(self.tmr >> vector & 1)

    def is_busy(self, vector: int) -> bool:
        """Return whether the vector is in IRR or ISR. Like lapic.c:kvm_apic_pending_eoi (v6.1)."""
        return bool((self.irr | self.isr) >> vector & 1)

    def serve(self, vector: int) -> None:
        """Move the vector from IRR to ISR."""
        bit = 1 << vector
        self.irr &= ~bit
        self.isr |= bit

    def end(self) -> int:
        """Clear and return the highest vector in ISR; -1 when ISR is empty."""
        if not self.isr:
            return -1
        vector = self.isr.bit_length() - 1
        self.isr &= ~(1 << vector)
        return vector

    def read(self, offset: int) -> int:
        """Return the 32-bit register at this offset; 0 where none is simulated."""
        if offset in _GETTERS:
            return _GETTERS[offset](self)
        for start, bits in ((ISR, self.isr), (TMR, self.tmr), (IRR, self.irr)):
            if start <= offset < start + 0x80:
                return bits >> ((offset - start) // 0x10 * 32) & 0xFFFFFFFF
        return self.others.get(offset, 0)


_GETTERS: dict[int, Callable[[Lapic], int]] = {
    ID: lambda lapic: lapic.id if lapic.x2apic else (lapic.id & 0xFF) << 24,
    VERSION: lambda _lapic: VERSION_VALUE,
    TPR: lambda lapic: lapic.tpr,
    PPR: lambda lapic: lapic.ppr,
    LDR: lambda lapic: lapic.logical_id if lapic.x2apic else lapic.ldr,
    DFR: lambda lapic: lapic.dfr,
    ICR: lambda lapic: lapic.icr,
    ICR2: lambda lapic: lapic.icr2,
    LVT0: lambda lapic: lapic.lvt0,
}

"""A local APIC: its ids, registers, and the three vector bitmaps. Knows no VM.

Bit N of `irr`, `isr`, `tmr` is vector N. Like arch/x86/kvm/lapic.c (v6.1). Differs: the APIC is
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
    """Delivery modes; bits 8-10 of ICR, LVT and redirection entries."""

    FIXED = 0
    LOWEST = 1
    SMI = 2
    RES = 3
    NMI = 4
    INIT = 5
    SIPI = 6
    EXTINT = 7


class Lapic:
    """Registers of one local APIC. `enabled`: by the base MSR; `x2apic`: in that mode.

    `id` is what a physical destination must be. Ids above 255 need no x2APIC mode of the target,
    as user space that makes such vCPUs asks for wide ids (KVM_CAP_X2APIC_API).
    """

    __slots__ = (
        "base",
        "dfr",
        "enabled",
        "icr",
        "icr2",
        "id",
        "irr",
        "irr_pending",
        "isr",
        "isr_count",
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
        self.irr_pending = True
        self.isr_count = 1
        self.reset(first=vcpu_id == 0)

    def reset(self, *, first: bool) -> None:
        """As INIT leaves it. `first`: LINT0 of the boot CPU takes ExtINT, others are masked."""
        self.irr = self.isr = self.tmr = 0
        self.tpr = 0
        self.ldr = 0
        self.dfr = FLAT
        self.lvt0 = EXTINT if first else MASKED
        self.icr = self.icr2 = 0
        self.others: dict[int, int] = {SPIV: 0x1FF}

    @property
    def logical_id(self) -> int:
        """LDR, in x2APIC mode the one that follows from the id."""
        if self.x2apic:
            return (self.id >> 4) << 16 | 1 << (self.id & 0xF)
        return self.ldr >> 24

    @property
    def ppr(self) -> int:
        """Priority below which nothing is delivered: that of the task or of what is served."""
        served = (self.isr.bit_length() - 1) & 0xF0 if self.isr else 0
        return max(self.tpr, served)

    @property
    def accepts_pic(self) -> bool:
        """Like lapic.c:kvm_apic_accept_pic_intr (v6.1)."""
        return not self.enabled or self.lvt0 & (MASKED | MODE_MASK) == EXTINT

    def deliverable(self) -> int:
        """The highest requested vector whose class is above PPR's; -1 for none."""
        if not self.irr or not self.enabled:
            return -1
        vector = self.irr.bit_length() - 1
        return vector if vector >> 4 > self.ppr >> 4 else -1

    def request(self, vector: int) -> None:
        """Set the vector in IRR."""
        self.irr |= 1 << vector
        self.irr_pending = True

    def set_trigger(self, vector: int, *, level: bool) -> None:
        """Remember how the vector was triggered."""
        bit = 1 << vector
        self.tmr = self.tmr | bit if level else self.tmr & ~bit

    def is_level(self, vector: int) -> bool:
        """Was the vector last triggered by level?"""
        return bool(self.tmr >> vector & 1)

    def is_busy(self, vector: int) -> bool:
        """Is the vector requested or served? Like lapic.c:kvm_apic_pending_eoi (v6.1)."""
        return bool((self.irr | self.isr) >> vector & 1)

    def serve(self, vector: int) -> None:
        """From IRR to ISR."""
        bit = 1 << vector
        self.irr &= ~bit
        self.isr |= bit

    def end(self) -> int:
        """Clear the highest vector in ISR; -1 when it is empty."""
        if not self.isr:
            return -1
        vector = self.isr.bit_length() - 1
        self.isr &= ~(1 << vector)
        return vector

    def note_active(self, *, active: bool, scans: bool) -> None:
        """What the caches hold from now on. `scans`: inactive, IRR is looked at.

        Like lapic.c:kvm_apic_update_apicv (v6.1).
        """
        if active:
            self.irr_pending, self.isr_count = True, 1
            return
        self.irr_pending = bool(self.irr) or not scans
        self.isr_count = self.isr.bit_count()

    def read(self, offset: int) -> int:
        """A register of 32 bits."""
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

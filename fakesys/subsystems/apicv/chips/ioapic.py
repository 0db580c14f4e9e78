"""The I/O APIC: 24 pins with their redirection entries. Like arch/x86/kvm/ioapic.c (v6.1).

Knows no vCPU: it answers whether a pin must be delivered; `irqs.py` and `eoi.py` do that.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

PINS = 24
RTC_PIN = 8
SUCCESSIVE_MAX = 10000
"""IOAPIC_SUCCESSIVE_IRQ_MAX_COUNT."""


class RedirectEntry(Struct):
    """Where a pin's interrupt goes. `mode`: delivery mode, 0 Fixed, 1 LowPrio ... 7 ExtINT."""

    vector: int = 0
    dest: int = 0
    mode: int = 0
    logical: bool = False
    level: bool = False
    masked: bool = True
    remote_irr: bool = False

    @property
    def bits(self) -> int:
        """The entry as hardware has it."""
        return (
            self.vector
            | self.mode << 8
            | self.logical << 11
            | self.remote_irr << 14
            | self.level << 15
            | self.masked << 16
            | self.dest << 56
        )


class PinResult(Enum):
    """What a raised pin comes to."""

    DELIVER = "deliver"
    COALESCED = "coalesced"
    HELD = "masked, or level with remote IRR"


class Ioapic:
    """Pins, `irr` with a bit for each, and how often a level pin was re-sent at once.

    `delayed`: pins that are sent again after a pause only.
    """

    def __init__(self) -> None:
        self.pins = [RedirectEntry() for _ in range(PINS)]
        self.irr = self.delayed = 0
        self._sources = [0] * PINS
        self._resent = [0] * PINS

    def share(self, pin: int, source: int, *, level: bool) -> bool:
        """A source raises or lowers its share of the line; is the line high now?"""
        bit = 1 << source
        shares = self._sources[pin]
        self._sources[pin] = shares | bit if level else shares & ~bit
        return bool(self._sources[pin])

    def lower(self, pin: int) -> None:
        """The line is low."""
        self.irr &= ~(1 << pin)

    def raise_pin(self, pin: int) -> PinResult:
        """The line is high: is there something to deliver?"""
        entry = self.pins[pin]
        before = self.irr
        self.irr |= 1 << pin
        if not entry.level and before == self.irr:
            return PinResult.COALESCED
        return self.service(pin)

    def service(self, pin: int) -> PinResult:
        """May the pin be delivered now? Like ioapic.c:ioapic_service."""
        entry = self.pins[pin]
        if entry.masked or (entry.level and entry.remote_irr):
            return PinResult.HELD
        return PinResult.DELIVER

    def delivered(self, pin: int, count: int) -> None:
        """It was delivered to so many APICs; level pins wait for EOI then."""
        if count and self.pins[pin].level:
            self.pins[pin].remote_irr = True

    def ended(self, pin: int) -> bool:
        """EOI of a level pin: must it be sent again, because the line is still high?"""
        entry = self.pins[pin]
        entry.remote_irr = False
        again = not entry.masked and bool(self.irr >> pin & 1)
        self._resent[pin] = self._resent[pin] + 1 if again else 0
        return again

    def is_storm(self, pin: int) -> bool:
        """Was it re-sent so often in a row that it must wait? Begins to count anew then."""
        if self._resent[pin] != SUCCESSIVE_MAX:
            return False
        self._resent[pin] = 0
        self.delayed |= 1 << pin
        return True

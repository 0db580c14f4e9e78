"""The I/O APIC: 24 pins with their redirection entries. Like arch/x86/kvm/ioapic.c (v6.1).

It decides whether a pin must be delivered; `engine/routing.py` delivers and handles EOIs.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

PINS = 24
RTC_PIN = 8
SUCCESSIVE_MAX = 10000
"""IOAPIC_SUCCESSIVE_IRQ_MAX_COUNT: immediate re-sends of a level pin before it is delayed."""


class RedirectEntry(Struct):
    """Redirection entry of a pin: union kvm_ioapic_redirect_entry (v6.1).

    `mode`: delivery mode, see `lapic.Mode`. `logical`: `dest` is a logical destination. `level`:
    level-triggered. `remote_irr`: a level interrupt was delivered and its EOI has not come.
    """

    vector: int = 0
    dest: int = 0
    mode: int = 0
    logical: bool = False
    level: bool = False
    masked: bool = True
    remote_irr: bool = False

    @property
    def bits(self) -> int:
        """The 64-bit entry as the tracepoints show it."""
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
    """What is to be done with a pin whose line is high."""

    DELIVER = "deliver"
    COALESCED = "coalesced"
    HELD = "masked, or level with remote IRR"


class Ioapic:
    """The chip. Bit N of `irr` is set while the line of pin N is high.

    `delayed`: mask of level pins that storm; they are sent again after a pause only. `sources`: by
    pin, the mask of sources that hold the line high. `resent`: by pin, re-sends in a row.
    """

    def __init__(self) -> None:
        self.pins = [RedirectEntry() for _ in range(PINS)]
        self.irr = self.delayed = 0
        self.sources = [0] * PINS
        self.resent = [0] * PINS

    def set_source(self, pin: int, source: int, *, level: bool) -> bool:
        """Set the level of one source of a line; return whether the line is high now."""
        bit = 1 << source
        shares = self.sources[pin]
        self.sources[pin] = shares | bit if level else shares & ~bit
        return bool(self.sources[pin])

    def lower(self, pin: int) -> None:
        """Clear the pin in IRR: its line is low."""
        self.irr &= ~(1 << pin)

    def raise_pin(self, pin: int) -> PinResult:
        """Set the pin in IRR: its line is high. Return what is to be done with it."""
        entry = self.pins[pin]
        before = self.irr
        self.irr |= 1 << pin
        if not entry.level and before == self.irr:
            return PinResult.COALESCED
        return self.service(pin)

    def service(self, pin: int) -> PinResult:
        """Return whether the pin can be delivered now. Like ioapic.c:ioapic_service (v6.1)."""
        entry = self.pins[pin]
        if entry.masked or (entry.level and entry.remote_irr):
            return PinResult.HELD
        return PinResult.DELIVER

    def record_delivery(self, pin: int, count: int) -> None:
        """Note that `count` APICs got the interrupt; a level pin then waits for an EOI."""
        if count and self.pins[pin].level:
            self.pins[pin].remote_irr = True

    def end_level(self, pin: int) -> bool:
        """Handle the EOI of a level pin; return whether its line is still high and not masked."""
        entry = self.pins[pin]
        entry.remote_irr = False
        again = not entry.masked and bool(self.irr >> pin & 1)
        self.resent[pin] = self.resent[pin] + 1 if again else 0
        return again

    def is_storm(self, pin: int) -> bool:
        """Return whether the pin was re-sent SUCCESSIVE_MAX times in a row; it is delayed then.

        While it is delayed, EOIs of the same vector count on, so there can be more.
        """
        if self.resent[pin] < SUCCESSIVE_MAX:
            return False
        self.resent[pin] = 0
        self.delayed |= 1 << pin
        return True

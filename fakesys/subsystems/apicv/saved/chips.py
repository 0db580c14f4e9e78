"""Interrupt controllers and timers in a snapshot: their registers."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fakesys.core.saved import (
    U8,
    U16,
    U32,
    Mask,
    Natural,
    Saved,
    check,
    check_range,
    mask_of,
    mask_text,
)
from fakesys.subsystems.apicv.chips.ioapic import PINS, Ioapic, RedirectEntry
from fakesys.subsystems.apicv.chips.lapic import Lapic, Mode
from fakesys.subsystems.apicv.chips.pic import Chip, Pic
from fakesys.subsystems.apicv.chips.pit import Pit
from fakesys.subsystems.apicv.devices.apic_access import LAST_REGISTER

PINS_OF_PICS = 16
PinMask = Annotated[int, Meta(ge=0, lt=1 << PINS)]
# Owed ticks; the kernel counts them in 32 bits with a sign.
Ticks = Annotated[int, Meta(ge=0, lt=1 << 31)]


class SavedLapic(Saved, frozen=True):
    """Registers of a local APIC; see `Lapic`."""

    id: U32
    base: Natural
    enabled: bool
    x2apic: bool
    irr: Mask
    isr: Mask
    tmr: Mask
    tpr: U8
    ldr: U32
    dfr: Natural
    lvt0: U32
    icr: Natural
    icr2: Natural
    others: dict[Natural, U32]


class SavedChip(Saved, frozen=True):
    """Registers of one 8259; see `Chip`."""

    irr: U8
    isr: U8
    imr: U8
    last_irr: U8
    elcr: U8
    base: U16
    auto_eoi: bool


class SavedPic(Saved, frozen=True):
    """Both PICs. `sources`: by pin, the mask of sources that hold it high."""

    master: SavedChip
    slave: SavedChip
    sources: Annotated[list[U8], Meta(min_length=PINS_OF_PICS, max_length=PINS_OF_PICS)]


class SavedPin(Saved, frozen=True):
    """A pin of the IOAPIC with its redirection entry."""

    vector: U8
    dest: U8
    mode: Mode
    logical: bool
    level: bool
    masked: bool
    remote_irr: bool
    sources: U8
    resent: U32


class SavedIoapic(Saved, frozen=True):
    """The IOAPIC. `delayed`: pins that are sent again after a pause only."""

    pins: Annotated[list[SavedPin], Meta(min_length=PINS, max_length=PINS)]
    irr: PinMask
    delayed: PinMask


class SavedPit(Saved, frozen=True):
    """Channel 0 of the PIT; see `Pit`."""

    reinject: bool
    irq_ack: bool
    pending: Ticks


def save_lapic(lapic: Lapic) -> SavedLapic:
    """Return what a snapshot holds of a local APIC."""
    return SavedLapic(
        id=lapic.id,
        base=lapic.base,
        enabled=lapic.enabled,
        x2apic=lapic.x2apic,
        irr=mask_text(lapic.irr),
        isr=mask_text(lapic.isr),
        tmr=mask_text(lapic.tmr),
        tpr=lapic.tpr,
        ldr=lapic.ldr,
        dfr=lapic.dfr,
        lvt0=lapic.lvt0,
        icr=lapic.icr,
        icr2=lapic.icr2,
        others=dict(lapic.others),
    )


def restore_lapic(saved: SavedLapic, lapic: Lapic) -> None:
    """Set the registers of a local APIC. Raises BadSnapshotError."""
    for value in (saved.base, saved.dfr, saved.icr, saved.icr2):
        check_range(value, 1 << 64, f"a register of APIC {saved.id}")
    for offset in saved.others:
        known = offset % 0x10 == 0 and offset <= LAST_REGISTER
        check(known, f"APIC {saved.id} has no register {offset:#x}")
    lapic.id, lapic.base = saved.id, saved.base
    lapic.enabled, lapic.x2apic = saved.enabled, saved.x2apic
    lapic.irr, lapic.isr, lapic.tmr = (mask_of(mask) for mask in (saved.irr, saved.isr, saved.tmr))
    lapic.tpr, lapic.ldr, lapic.dfr, lapic.lvt0 = saved.tpr, saved.ldr, saved.dfr, saved.lvt0
    lapic.icr, lapic.icr2 = saved.icr, saved.icr2
    lapic.others = dict(saved.others)


def save_pic(pic: Pic) -> SavedPic:
    """Return what a snapshot holds of both PICs; their output follows from the registers."""
    return SavedPic(
        master=_save_chip(pic.master), slave=_save_chip(pic.slave), sources=list(pic.sources)
    )


def restore_pic(saved: SavedPic, pic: Pic) -> None:
    """Set the registers of both PICs. No vCPU is woken."""
    _restore_chip(saved.master, pic.master)
    _restore_chip(saved.slave, pic.slave)
    pic.sources = list(saved.sources)
    pic.output = pic.master.requested() >= 0


def save_ioapic(ioapic: Ioapic) -> SavedIoapic:
    """Return what a snapshot holds of the IOAPIC."""
    return SavedIoapic(
        pins=[_save_pin(ioapic, pin) for pin in range(PINS)],
        irr=ioapic.irr,
        delayed=ioapic.delayed,
    )


def restore_ioapic(saved: SavedIoapic, ioapic: Ioapic) -> None:
    """Set the registers of the IOAPIC. Nothing is delivered."""
    ioapic.pins = [
        RedirectEntry(
            pin.vector, pin.dest, pin.mode, pin.logical, pin.level, pin.masked, pin.remote_irr
        )
        for pin in saved.pins
    ]
    ioapic.sources = [pin.sources for pin in saved.pins]
    ioapic.resent = [pin.resent for pin in saved.pins]
    ioapic.irr, ioapic.delayed = saved.irr, saved.delayed


def save_pit(pit: Pit) -> SavedPit:
    """Return what a snapshot holds of the PIT."""
    return SavedPit(reinject=pit.reinject, irq_ack=pit.irq_ack, pending=pit.pending)


def pit_of(saved: SavedPit) -> Pit:
    """Return the PIT of a snapshot."""
    pit = Pit(reinject=saved.reinject)
    pit.irq_ack, pit.pending = saved.irq_ack, saved.pending
    return pit


def _save_chip(chip: Chip) -> SavedChip:
    return SavedChip(
        irr=chip.irr,
        isr=chip.isr,
        imr=chip.imr,
        last_irr=chip.last_irr,
        elcr=chip.elcr,
        base=chip.base,
        auto_eoi=chip.auto_eoi,
    )


def _restore_chip(saved: SavedChip, chip: Chip) -> None:
    chip.irr, chip.isr, chip.imr = saved.irr, saved.isr, saved.imr
    chip.last_irr, chip.elcr = saved.last_irr, saved.elcr
    chip.base, chip.auto_eoi = saved.base, saved.auto_eoi


def _save_pin(ioapic: Ioapic, pin: int) -> SavedPin:
    entry = ioapic.pins[pin]
    return SavedPin(
        vector=entry.vector,
        dest=entry.dest,
        mode=Mode(entry.mode),
        logical=entry.logical,
        level=entry.level,
        masked=entry.masked,
        remote_irr=entry.remote_irr,
        sources=ioapic.sources[pin],
        resent=ioapic.resent[pin],
    )

"""Commands for PIC, IOAPIC and their lines, for PIT and RTC, and for a PIC in user space."""

from __future__ import annotations

from errno import EBUSY, EEXIST, EINVAL, ENXIO

from fakesys.core.commands import (
    Args,
    Operand,
    Option,
    OptionalOperand,
    Verb,
    flag,
    number,
    number_within,
    words_of,
)
from fakesys.subsystems.apicv.chips.ioapic import RedirectEntry
from fakesys.subsystems.apicv.chips.lapic import Mode
from fakesys.subsystems.apicv.commands.operands import (
    COUNT,
    NO_CHIP,
    apic_vm,
    delivery_mode,
    vector,
)
from fakesys.subsystems.apicv.devices import vm_ioctls
from fakesys.subsystems.apicv.model import Apicv
from fakesys.subsystems.kvm.files.commands import NO_VM, VM

PIC_BASE = Option("base", vector, 0, "vector of pin 0; the slave begins 8 above", required=True)
IMR = Option("imr", number_within(0, 0xFFFF), 0, "masks of pins 0-15", required=True)
AEOI = Option("aeoi", flag, False, "interrupts end themselves")
PIN = Operand("PIN", number)
PIN_VEC: Option[int | None] = Option("vec", vector, None, "vector; as it was by default")
PIN_DST: Option[int | None] = Option("dst", vector, None, "destination; as it was by default")
PIN_DM: Option[Mode | None] = Option("dm", delivery_mode, None, "delivery mode")
PIN_MODE: Option[str | None] = Option("mode", words_of("phys", "logical"), None, "of dst=")
TRIGGER: Option[str | None] = Option("trig", words_of("edge", "level"), None, "trigger mode")
MASK: Option[bool | None] = Option("mask", flag, None, "0 lets interrupts through")
GSI = Operand("GSI", number)
WITH_STATUS = OptionalOperand("status", words_of("status"), "")
ON = Operand("0|1", flag)
VECTOR = Operand("V", vector)


def _pic(apicv: Apicv, args: Args) -> str:
    vm = apic_vm(apicv, args)
    vm_ioctls.configure_pic(vm, args[PIC_BASE], args[IMR], auto_eoi=args[AEOI])
    return ""


def _ioapic(apicv: Apicv, args: Args) -> str:
    vm = apic_vm(apicv, args)
    old = vm_ioctls.pin_of(vm, args[PIN])
    mode = args[PIN_DM]
    new = RedirectEntry(
        vector=_or(args[PIN_VEC], old.vector),
        dest=_or(args[PIN_DST], old.dest),
        mode=old.mode if mode is None else mode,
        logical=old.logical if args[PIN_MODE] is None else args[PIN_MODE] == "logical",
        level=old.level if args[TRIGGER] is None else args[TRIGGER] == "level",
        # A pin that is set up lets interrupts through unless it says otherwise.
        masked=bool(_or(args[MASK], 0)),
    )
    vm_ioctls.configure_pin(vm, args[PIN], new)
    return ""


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _irq(apicv: Apicv, args: Args) -> str:
    status = bool(args[WITH_STATUS])
    result = vm_ioctls.set_line(apic_vm(apicv, args), args[GSI], high=args[ON], status=status)
    return f"status={result}" if status else ""


def _pulse(apicv: Apicv, args: Args) -> str:
    vm_ioctls.pulse(apic_vm(apicv, args), args[GSI])
    return ""


def _rtc(apicv: Apicv, args: Args) -> str:
    return f"coalesced={vm_ioctls.tick_rtc(apic_vm(apicv, args), args[COUNT])}"


def _pit_tick(apicv: Apicv, args: Args) -> str:
    vm_ioctls.tick_pit(apic_vm(apicv, args), args[COUNT])
    return ""


def _pit_reinject(apicv: Apicv, args: Args) -> str:
    vm_ioctls.set_reinject(apic_vm(apicv, args), on=args[ON])
    return ""


def _pit_load(apicv: Apicv, args: Args) -> str:
    vm_ioctls.load_pit(apic_vm(apicv, args))
    return ""


def _extint(apicv: Apicv, args: Args) -> str:
    vm_ioctls.queue_extint(apic_vm(apicv, args), args[VECTOR])
    return ""


BAD_PIN = NO_CHIP | {EINVAL: "there is no such pin"}


def _lines() -> tuple[Verb[Apicv], ...]:
    return (
        Verb(
            words=(VM, "pic"),
            options=(PIC_BASE, IMR, AEOI),
            run=_pic,
            errors=NO_CHIP,
            doc="The host sets both PICs.",
        ),
        Verb(
            words=(VM, "ioapic", PIN),
            options=(PIN_VEC, PIN_DST, PIN_DM, PIN_MODE, TRIGGER, MASK),
            run=_ioapic,
            errors=BAD_PIN,
            doc="The host sets a redirection entry; what is not given stays, but the mask goes.",
        ),
        Verb(
            words=(VM, "irq", GSI, ON, WITH_STATUS),
            run=_irq,
            errors=BAD_PIN,
            doc="KVM_IRQ_LINE, with `status` KVM_IRQ_LINE_STATUS: 0 is coalesced, -1 masked.",
        ),
        Verb(
            words=(VM, "pulse", GSI),
            run=_pulse,
            errors=BAD_PIN,
            doc="A line goes high and low.",
        ),
    )


def _timers() -> tuple[Verb[Apicv], ...]:
    return (
        Verb(
            words=(VM, "rtc", "tick", COUNT),
            run=_rtc,
            errors=NO_CHIP,
            doc="Ticks of the real time clock: pulses of GSI 8 with status.",
        ),
        Verb(
            words=(VM, "pit", "tick", COUNT),
            run=_pit_tick,
            errors=NO_CHIP,
            doc="Ticks of the PIT, each to its end.",
        ),
        Verb(
            words=(VM, "pit", "reinject", ON),
            run=_pit_reinject,
            errors=NO_CHIP,
            doc="KVM_REINJECT_CONTROL.",
        ),
        Verb(
            words=(VM, "pit", "load"),
            run=_pit_load,
            errors=NO_CHIP,
            doc="Loads the counter, which drops pending ticks.",
        ),
    )


def _user_pic() -> tuple[Verb[Apicv], ...]:
    return (
        Verb(
            words=(VM, "extint", VECTOR),
            run=_extint,
            errors=NO_VM
            | {
                ENXIO: "the PIC is in the kernel",
                EEXIST: "a vector waits already",
                EINVAL: "there is no vCPU 0",
                EBUSY: "vCPU 0 neither runs nor sleeps",
            },
            doc="User space's PIC has a vector for vCPU 0: now, or when a window opens.",
        ),
    )


VERBS: tuple[Verb[Apicv], ...] = (*_lines(), *_timers(), *_user_pic())

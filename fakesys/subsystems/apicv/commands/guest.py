"""Commands by which a guest uses its local APIC and the PIC."""

from __future__ import annotations

from errno import EINVAL, ENODEV

from fakesys.core.commands import (
    Args,
    Operand,
    Option,
    Verb,
    number,
    number_within,
    word,
    words_of,
)
from fakesys.core.errors import KernelError
from fakesys.subsystems.apicv.chips import lapic
from fakesys.subsystems.apicv.commands.operands import (
    DESTINATION,
    DST,
    NOT_IN_GUEST,
    VEC,
    apic_vcpu,
    by_guest,
    require_lapics,
)
from fakesys.subsystems.apicv.devices import apic_access, ipi
from fakesys.subsystems.apicv.engine import guest_steps, vcpu_run
from fakesys.subsystems.apicv.engine.quiesce import command
from fakesys.subsystems.apicv.model import Apicv
from fakesys.subsystems.kvm.files.commands import VCPU, VM

LVT0 = Operand("extint|nmi|masked", word, one_of=("extint", "nmi", "masked"))
LVT0_VALUES = {"extint": lapic.EXTINT, "nmi": lapic.NMI, "masked": lapic.MASKED}
SHORTHANDS = {"none": 0, "self": ipi.SELF, "all": ipi.ALL, "others": ipi.OTHERS}
IPI_MODES = {
    "fixed": 0,
    "lowest": 0x100,
    "smi": 0x200,
    "nmi": 0x400,
    "init": 0xC500,
    "init-deassert": 0x8500,
    "sipi": 0x600,
}
SHORTHAND = Option("sh", words_of(*SHORTHANDS), "none", "shorthand in place of dst=")
IPI_MODE = Option("dm", words_of(*IPI_MODES), "fixed", "delivery mode")
OFFSET = Operand("OFF", number_within(0, 0xFFF))
VALUE = Operand("VAL", number_within(0, 0xFFFFFFFFFFFFFFFF))
BASE = Operand("ADDR|off|x2apic", word)


def _lvt0(apicv: Apicv, args: Args) -> str:
    return _access(apicv, args, lapic.LVT0, LVT0_VALUES[args[LVT0]])


def _access(apicv: Apicv, args: Args, offset: int, value: int) -> str:
    vm, vcpu = apic_vcpu(apicv, args)
    require_lapics(vm)
    vcpu_run.require_in_guest(vcpu)
    apic_access.require_register(offset)
    with command(vm, vcpu):
        apic_access.write(vm, vcpu, offset, value)
    return ""


def _apic_write(apicv: Apicv, args: Args) -> str:
    return _access(apicv, args, args[OFFSET], args[VALUE])


def _apic_read(apicv: Apicv, args: Args) -> str:
    vm, vcpu = apic_vcpu(apicv, args)
    require_lapics(vm)
    vcpu_run.require_in_guest(vcpu)
    apic_access.require_register(args[OFFSET])
    with command(vm, vcpu):
        value = apic_access.read(vm, vcpu, args[OFFSET])
    return f"value={value:#x}"


def _eoi(apicv: Apicv, args: Args) -> str:
    return _access(apicv, args, lapic.EOI, 0)


def _ipi(apicv: Apicv, args: Args) -> str:
    vm, vcpu = apic_vcpu(apicv, args)
    require_lapics(vm)
    vcpu_run.require_in_guest(vcpu)
    shorthand = SHORTHANDS[args[SHORTHAND]]
    if not shorthand and DST.name not in args.given:
        raise KernelError(EINVAL, "dst= is missing")
    logical = ipi.LOGICAL if args[DESTINATION] == "logical" else 0
    icrl = args[VEC] | IPI_MODES[args[IPI_MODE]] | logical | shorthand
    with command(vm, vcpu):
        ipi.send(vm, vcpu, args[DST], icrl)
    return ""


def _apic_base(apicv: Apicv, args: Args) -> str:
    vm, vcpu = apic_vcpu(apicv, args)
    require_lapics(vm)
    vcpu_run.require_in_guest(vcpu)
    text = args[BASE]
    x2apic, enabled = text == "x2apic", text != "off"
    base = None if x2apic or not enabled else number(text)
    if base is not None and (base % 0x1000 or base >> 52):
        raise KernelError(EINVAL, f"{base:#x} is not the address of a page")
    apic_access.require_base(vcpu, x2apic=x2apic)
    with command(vm, vcpu):
        apic_access.write_base(vm, vcpu, base=base, enabled=enabled, x2apic=x2apic)
    return ""


def _guest_apic() -> tuple[Verb[Apicv], ...]:
    errors = NOT_IN_GUEST | {ENODEV: "the VM has no local APICs in the kernel"}
    bad = errors | {EINVAL: "there is no such register, or the guest would fault"}
    return (
        Verb(
            words=(VM, "vcpu", VCPU, "lvt0", LVT0),
            run=_lvt0,
            errors=errors,
            doc="The guest writes LVT0: who may interrupt it through LINT0.",
        ),
        Verb(
            words=(VM, "vcpu", VCPU, "ipi"),
            options=(DST, VEC, DESTINATION, SHORTHAND, IPI_MODE),
            run=_ipi,
            errors=errors | {EINVAL: "neither a destination nor a shorthand"},
            doc="The guest writes ICR2 and ICR.",
        ),
        Verb(
            words=(VM, "vcpu", VCPU, "eoi"),
            run=_eoi,
            errors=errors,
            doc="The guest ends the highest interrupt of its local APIC.",
        ),
        Verb(
            words=(VM, "vcpu", VCPU, "piceoi"),
            run=by_guest(guest_steps.pic_eoi),
            errors=NOT_IN_GUEST,
            doc="The guest writes 0x20 to port 0x20.",
        ),
        Verb(
            words=(VM, "vcpu", VCPU, "apic", "read", OFFSET),
            run=_apic_read,
            errors=bad,
            doc="The guest reads a register of its local APIC.",
        ),
        Verb(
            words=(VM, "vcpu", VCPU, "apic", "write", OFFSET, VALUE),
            run=_apic_write,
            errors=bad,
            doc="The guest writes a register of its local APIC.",
        ),
        Verb(
            words=(VM, "vcpu", VCPU, "apicbase", BASE),
            run=_apic_base,
            errors=bad,
            doc="The guest moves or disables its local APIC, or turns on x2APIC.",
        ),
    )


VERBS: tuple[Verb[Apicv], ...] = _guest_apic()

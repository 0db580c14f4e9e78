"""Events of local APICs: registers, interrupts between vCPUs, EOI, injection into the guest."""

from __future__ import annotations

from fakesys.core import c_types as c
from fakesys.core.tracepoint import Tracepoint, Variant
from fakesys.subsystems.kvm.features import KvmFeature
from fakesys.subsystems.kvm.symbols import (
    APIC_REGISTERS,
    DELIVERY_MODES,
    DESTINATIONS,
    EXCEPTIONS,
    OLD_EXCEPTIONS,
    Symbols,
)


def _apic_format(conversion: str) -> str:
    return (
        f'"apic_%s %s = 0x%{conversion}", REC->rw ? "write" : "read", '
        f"__print_symbolic(REC->reg, {APIC_REGISTERS.listing}), REC->val"
    )


def _exception_format(names: Symbols) -> str:
    return (
        f'"%s%s%s%s%s", __print_symbolic(REC->exception, {names.listing}), '
        '!REC->has_error ? "" : " (", '
        '!REC->has_error ? "" : __print_symbolic(REC->error_code, { }), '
        '!REC->has_error ? "" : ")", REC->reinjected ? " [reinjected]" : ""'
    )


def _exception(event: KvmInjException, names: Symbols) -> str:
    code = f" ({event.error_code:#x})" if event.has_error else ""
    again = " [reinjected]" if event.reinjected else ""
    return f"{names.name(event.exception)}{code}{again}"


def _old_exception(event: KvmInjException) -> str:
    code = event.error_code if event.has_error else 0
    return f"{OLD_EXCEPTIONS.name(event.exception)} (0x{code:x})"


class KvmApic(Tracepoint):
    """The guest accessed a register of its local APIC. `rw`: 1 writes."""

    system = "kvm"
    event = "kvm_apic"
    print_fmt = _apic_format("llx")

    rw: c.UnsignedInt
    reg: c.UnsignedInt
    val: c.KU64

    def text(self) -> str:
        return (
            f"apic_{'write' if self.rw else 'read'} {APIC_REGISTERS.name(self.reg)}"
            f" = 0x{self.val:x}"
        )

    variants = (
        Variant(
            unless=KvmFeature.TRACE_STATE,
            fields=("rw", "reg", ("val", c.c_type(c.UnsignedInt))),
            print_fmt=_apic_format("x"),
        ),
    )


class KvmApicIpi(Tracepoint):
    """A local APIC sends an interrupt to others (IPI)."""

    system = "kvm"
    event = "kvm_apic_ipi"
    print_fmt = (
        '"dst %x vec %u (%s|%s|%s|%s|%s)", REC->dest_id, (u8)REC->icr_low, '
        f"__print_symbolic((REC->icr_low >> 8 & 0x7), {DELIVERY_MODES.listing}), "
        '(REC->icr_low & (1<<11)) ? "logical" : "physical", '
        '(REC->icr_low & (1<<14)) ? "assert" : "de-assert", '
        '(REC->icr_low & (1<<15)) ? "level" : "edge", '
        f"__print_symbolic((REC->icr_low >> 18 & 0x3), {DESTINATIONS.listing})"
    )

    icr_low: c.U32
    dest_id: c.U32

    def text(self) -> str:
        return (
            f"dst {self.dest_id:x} vec {self.icr_low & 0xFF}"
            f" ({DELIVERY_MODES.name(self.icr_low >> 8 & 0x7)}|"
            f"{'logical' if self.icr_low & (1 << 11) else 'physical'}|"
            f"{'assert' if self.icr_low & (1 << 14) else 'de-assert'}|"
            f"{'level' if self.icr_low & (1 << 15) else 'edge'}|"
            f"{DESTINATIONS.name(self.icr_low >> 18 & 0x3)})"
        )


class KvmApicAcceptIrq(Tracepoint):
    """A local APIC accepts an interrupt. `tm`: 1 is level triggered."""

    system = "kvm"
    event = "kvm_apic_accept_irq"
    print_fmt = (
        '"apicid %x vec %u (%s|%s)", REC->apicid, REC->vec, '
        f"__print_symbolic((REC->dm >> 8 & 0x7), {DELIVERY_MODES.listing}), "
        'REC->tm ? "level" : "edge"'
    )

    apicid: c.U32
    dm: c.U16
    tm: c.U16
    vec: c.U8

    def text(self) -> str:
        return (
            f"apicid {self.apicid:x} vec {self.vec}"
            f" ({DELIVERY_MODES.name(self.dm >> 8 & 0x7)}|{'level' if self.tm else 'edge'}"
            ")"
        )

    variants = (
        Variant(
            unless=KvmFeature.TRACE_VCPU,
            fields=("apicid", "dm", ("tm", c.c_type(c.U8)), "vec"),
        ),
    )


class KvmEoi(Tracepoint):
    """The guest sent an EOI."""

    system = "kvm"
    event = "kvm_eoi"
    print_fmt = '"apicid %x vector %d", REC->apicid, REC->vector'

    apicid: c.U32
    vector: c.Int

    def text(self) -> str:
        return f"apicid {self.apicid:x} vector {self.vector}"


class KvmPvEoi(Tracepoint):
    """The guest sent an EOI by memory that it shares with KVM."""

    system = "kvm"
    event = "kvm_pv_eoi"
    print_fmt = '"apicid %x vector %d", REC->apicid, REC->vector'

    apicid: c.U32
    vector: c.Int

    def text(self) -> str:
        return f"apicid {self.apicid:x} vector {self.vector}"


class KvmInjVirq(Tracepoint):
    """An interrupt is injected. `irq`: its vector under its name in older kernels."""

    system = "kvm"
    event = "kvm_inj_virq"
    print_fmt = (
        '"%s 0x%x%s", REC->soft ? "Soft/INTn" : "IRQ", REC->vector, '
        'REC->reinjected ? " [reinjected]" : ""'
    )

    vector: c.UnsignedInt
    soft: c.Bool
    reinjected: c.Bool
    irq: c.UnsignedInt

    def text(self) -> str:
        return (
            f"{'Soft/INTn' if self.soft else 'IRQ'} 0x{self.vector:x}"
            f"{' [reinjected]' if self.reinjected else ''}"
        )

    variants = (
        Variant(
            unless=KvmFeature.TRACE_STATE,
            fields=("irq",),
            print_fmt='"irq %u", REC->irq',
            text=lambda self: f"irq {self.irq}",
        ),
        Variant(
            needs=KvmFeature.TRACE_STATE,
            fields=("vector", "soft", "reinjected"),
        ),
    )


class KvmInjException(Tracepoint):
    """An exception is injected."""

    system = "kvm"
    event = "kvm_inj_exception"
    print_fmt = _exception_format(EXCEPTIONS)

    exception: c.KU8
    has_error: c.KU8
    error_code: c.KU32
    reinjected: c.Bool

    def text(self) -> str:
        return _exception(self, EXCEPTIONS)

    variants = (
        Variant(
            unless=KvmFeature.TRACE_STATE,
            fields=("exception", "has_error", "error_code"),
            print_fmt=(
                f'"%s (0x%x)", __print_symbolic(REC->exception, {OLD_EXCEPTIONS.listing}), '
                "REC->has_error ? REC->error_code : 0"
            ),
            text=_old_exception,
        ),
        Variant(
            unless=KvmFeature.TRACE_REQUESTS,
            print_fmt=_exception_format(OLD_EXCEPTIONS),
            text=lambda self: _exception(self, OLD_EXCEPTIONS),
        ),
    )


EVENTS: tuple[type[Tracepoint], ...] = (
    KvmApic,
    KvmApicIpi,
    KvmApicAcceptIrq,
    KvmEoi,
    KvmPvEoi,
    KvmInjVirq,
    KvmInjException,
)

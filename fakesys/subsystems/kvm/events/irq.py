"""Events of interrupts on their way to local APICs: lines, controllers, messages, the IOMMU."""

from __future__ import annotations

from fakesys.core import c_types as c
from fakesys.core.tracepoint import Tracepoint, Variant
from fakesys.subsystems.kvm.features import KvmFeature
from fakesys.subsystems.kvm.symbols import DELIVERY_MODES, IRQCHIPS, unsigned32

_POSTED = (
    "host_irq",
    ("vcpu_id", c.c_type(c.UnsignedInt)),
    "gsi",
    "gvec",
    "pi_desc_addr",
    "set",
)


def _posted_format(kind: str) -> str:
    return (
        f'"{kind} is %s for irq %u, vcpu %u, gsi: 0x%x, gvec: 0x%x, pi_desc_addr: 0x%llx", '
        'REC->set ? "enabled and being updated" : "disabled", REC->host_irq, REC->vcpu_id, '
        "REC->gsi, REC->gvec, REC->pi_desc_addr"
    )


def _posted(event: KvmPiIrteUpdate) -> str:
    return f"PI is {_updated(event)}, pi_desc_addr: 0x{event.pi_desc_addr:x}"


def _updated(event: KvmPiIrteUpdate) -> str:
    return (
        f"{'enabled and being updated' if event.set else 'disabled'} for irq {event.host_irq},"
        f" vcpu {event.vcpu_id}, gsi: 0x{event.gsi:x}, gvec: 0x{event.gvec:x}"
    )


class KvmSetIrq(Tracepoint):
    """The level of an interrupt line was set."""

    system = "kvm"
    event = "kvm_set_irq"
    print_fmt = '"gsi %u level %d source %d", REC->gsi, REC->level, REC->irq_source_id'

    gsi: c.UnsignedInt
    level: c.Int
    irq_source_id: c.Int

    def text(self) -> str:
        return f"gsi {self.gsi} level {self.level} source {self.irq_source_id}"


class KvmPicSetIrq(Tracepoint):
    """A pin of the PIC was set."""

    system = "kvm"
    event = "kvm_pic_set_irq"
    print_fmt = (
        '"chip %u pin %u (%s%s)%s", REC->chip, REC->pin, '
        '(REC->elcr & (1 << REC->pin)) ? "level":"edge", '
        '(REC->imr & (1 << REC->pin)) ? "|masked":"", REC->coalesced ? " (coalesced)" : ""'
    )

    chip: c.U8
    pin: c.U8
    elcr: c.U8
    imr: c.U8
    coalesced: c.Bool

    def text(self) -> str:
        return (
            f"chip {self.chip} pin {self.pin}"
            f" ({'level' if self.elcr & (1 << self.pin) else 'edge'}"
            f"{'|masked' if self.imr & (1 << self.pin) else ''})"
            f"{' (coalesced)' if self.coalesced else ''}"
        )


class KvmIoapicSetIrq(Tracepoint):
    """A pin of the IOAPIC was set. `e`: its redirection entry."""

    system = "kvm"
    event = "kvm_ioapic_set_irq"
    print_fmt = (
        '"pin %u dst %x vec %u (%s|%s|%s%s)%s", REC->pin, (u8)(REC->e >> 56), (u8)REC->e, '
        f"__print_symbolic((REC->e >> 8 & 0x7), {DELIVERY_MODES.listing}), "
        '(REC->e & (1<<11)) ? "logical" : "physical", (REC->e & (1<<15)) ? "level" : "edge", '
        '(REC->e & (1<<16)) ? "|masked" : "", REC->coalesced ? " (coalesced)" : ""'
    )

    e: c.U64
    pin: c.Int
    coalesced: c.Bool

    def text(self) -> str:
        return (
            f"pin {unsigned32(self.pin)} dst {self.e >> 56 & 0xFF:x} vec {self.e & 0xFF}"
            f" ({DELIVERY_MODES.name(self.e >> 8 & 0x7)}|"
            f"{'logical' if self.e & (1 << 11) else 'physical'}|"
            f"{'level' if self.e & (1 << 15) else 'edge'}"
            f"{'|masked' if self.e & (1 << 16) else ''})"
            f"{' (coalesced)' if self.coalesced else ''}"
        )


class KvmIoapicDelayedEoiInj(Tracepoint):
    """A level interrupt that came back too often is injected again after a delay."""

    system = "kvm"
    event = "kvm_ioapic_delayed_eoi_inj"
    print_fmt = (
        '"dst %x vec %u (%s|%s|%s%s)", (u8)(REC->e >> 56), (u8)REC->e, '
        f"__print_symbolic((REC->e >> 8 & 0x7), {DELIVERY_MODES.listing}), "
        '(REC->e & (1<<11)) ? "logical" : "physical", (REC->e & (1<<15)) ? "level" : "edge", '
        '(REC->e & (1<<16)) ? "|masked" : ""'
    )

    e: c.U64

    def text(self) -> str:
        return (
            f"dst {self.e >> 56 & 0xFF:x} vec {self.e & 0xFF}"
            f" ({DELIVERY_MODES.name(self.e >> 8 & 0x7)}|"
            f"{'logical' if self.e & (1 << 11) else 'physical'}|"
            f"{'level' if self.e & (1 << 15) else 'edge'}"
            f"{'|masked' if self.e & (1 << 16) else ''})"
        )


class KvmMsiSetIrq(Tracepoint):
    """A message signalled interrupt (MSI) was sent."""

    system = "kvm"
    event = "kvm_msi_set_irq"
    print_fmt = (
        '"dst %llx vec %u (%s|%s|%s%s)", '
        "(u8)(REC->address >> 12) | ((REC->address >> 32) & 0xffffff00), (u8)REC->data, "
        f"__print_symbolic((REC->data >> 8 & 0x7), {DELIVERY_MODES.listing}), "
        '(REC->address & (1<<2)) ? "logical" : "physical", '
        '(REC->data & (1<<15)) ? "level" : "edge", (REC->address & (1<<3)) ? "|rh" : ""'
    )

    address: c.U64
    data: c.U64

    def text(self) -> str:
        destination = self.address >> 12 & 0xFF | self.address >> 32 & 0xFFFFFF00
        mode = "logical" if self.address & 1 << 2 else "physical"
        trigger = "level" if self.data & 1 << 15 else "edge"
        hint = "|rh" if self.address & 1 << 3 else ""
        delivery = DELIVERY_MODES.name(self.data >> 8 & 7)
        vector = self.data & 0xFF
        return f"dst {destination:x} vec {vector} ({delivery}|{mode}|{trigger}{hint})"


class KvmAckIrq(Tracepoint):
    """A pin of an interrupt controller was acknowledged."""

    system = "kvm"
    event = "kvm_ack_irq"
    print_fmt = f'"irqchip %s pin %u", __print_symbolic(REC->irqchip, {IRQCHIPS.listing}), REC->pin'

    irqchip: c.UnsignedInt
    pin: c.UnsignedInt

    def text(self) -> str:
        return f"irqchip {IRQCHIPS.name(self.irqchip)} pin {self.pin}"


class KvmPiIrteUpdate(Tracepoint):
    """An assigned device's interrupt is posted directly to a vCPU from now on, or no longer."""

    system = "kvm"
    event = "kvm_pi_irte_update"
    print_fmt = (
        '"PI is %s for irq %u, vcpu %d, gsi: 0x%x, gvec: 0x%x", '
        'REC->set ? "enabled and being updated" : "disabled", REC->host_irq, REC->vcpu_id, '
        "REC->gsi, REC->gvec"
    )

    host_irq: c.UnsignedInt
    vcpu_id: c.Int
    gsi: c.UnsignedInt
    gvec: c.UnsignedInt
    set: c.Bool
    pi_desc_addr: c.KU64

    def text(self) -> str:
        return f"PI is {_updated(self)}"

    variants = (
        Variant(
            unless=KvmFeature.TRACE_NAMES,
            fields=_POSTED,
            print_fmt=_posted_format("VT-d PI"),
            text=lambda self: f"VT-d {_posted(self)}",
        ),
        Variant(
            unless=KvmFeature.TRACE_REQUESTS,
            fields=_POSTED,
            print_fmt=_posted_format("PI"),
            text=_posted,
        ),
        Variant(
            needs=KvmFeature.TRACE_REQUESTS,
            fields=("host_irq", "vcpu_id", "gsi", "gvec", "set"),
        ),
    )


EVENTS: tuple[type[Tracepoint], ...] = (
    KvmSetIrq,
    KvmPicSetIrq,
    KvmIoapicSetIrq,
    KvmIoapicDelayedEoiInj,
    KvmMsiSetIrq,
    KvmAckIrq,
    KvmPiIrteUpdate,
)

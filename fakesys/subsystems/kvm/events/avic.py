"""Events of APICv: requests to activate it and to stop it, inhibit reasons, exits of AVIC."""

from __future__ import annotations

from collections.abc import Mapping

from fakesys.core import c_types as c
from fakesys.core.tracepoint import Tracepoint, Variant
from fakesys.subsystems.kvm.features import KvmFeature
from fakesys.subsystems.kvm.symbols import APIC_REGISTERS, DELIVERY_MODES, Flags, unsigned32

# arch/x86/include/asm/kvm_host.h:APICV_INHIBIT_REASONS (v6.18): bit N is reason N.
_INHIBITS = {
    1 << 0: "DISABLED",
    1 << 1: "HYPERV",
    1 << 2: "ABSENT",
    1 << 3: "BLOCKIRQ",
    1 << 4: "PHYSICAL_ID_ALIASED",
    1 << 5: "APIC_ID_MODIFIED",
    1 << 6: "APIC_BASE_MODIFIED",
    1 << 7: "NESTED",
    1 << 8: "IRQWIN",
    1 << 9: "PIT_REINJ",
    1 << 10: "SEV",
    1 << 11: "LOGICAL_ID_ALIASED",
}


def _inhibits(names: Mapping[int, str]) -> Flags:
    return Flags(
        names,
        "|",
        lambda _mask, name: f'{{ ((((1UL))) << (APICV_INHIBIT_REASON_{name})), "{name}" }}',
    )


INHIBITS = _inhibits(_INHIBITS | {1 << 12: "PHYSICAL_ID_TOO_BIG"})
# Until 6.16.
OLD_INHIBITS = _inhibits(_INHIBITS)


def _inhibit_format(inhibits: Flags) -> str:
    return (
        '"%s reason=%u, inhibits=0x%lx%s%s", REC->set ? "set" : "cleared", REC->reason, '
        '(REC->inhibits), (REC->inhibits) ? " " : "", '
        f'(REC->inhibits) ? __print_flags(REC->inhibits, "|", {inhibits.listing}) : ""'
    )


def _named_inhibit(event: KvmApicvInhibitChanged, inhibits: Flags) -> str:
    names = inhibits.names(event.inhibits)
    return f"{_inhibit(event)} {names}" if names else _inhibit(event)


def _inhibit(event: KvmApicvInhibitChanged) -> str:
    return (
        f"{'set' if event.set else 'cleared'} reason={unsigned32(event.reason)},"
        f" inhibits=0x{event.inhibits:x}"
    )


class KvmApicvActivateRequest(Tracepoint):
    """A request to activate APICv again."""

    system = "kvm"
    event = "kvm_apicv_activate_request"
    print_fmt = '"vcpu=%u", REC->vcpu'
    needs = KvmFeature.TRACE_APICV_REQUEST_PAIR

    vcpu: c.KU32

    def text(self) -> str:
        return f"vcpu={self.vcpu}"


class KvmApicvDeactivateRequest(Tracepoint):
    """A request to stop APICv: `disable` for the life of the VM, else until the next request."""

    system = "kvm"
    event = "kvm_apicv_deactivate_request"
    print_fmt = '"vcpu=%u, disable=%s", REC->vcpu, REC->disable ? "disabled" : "suspended"'
    needs = KvmFeature.TRACE_APICV_REQUEST_PAIR

    vcpu: c.KU32
    disable: c.Bool

    def text(self) -> str:
        return f"vcpu={self.vcpu}, disable={'disabled' if self.disable else 'suspended'}"


class KvmApicvUpdateRequest(Tracepoint):
    """A request to activate or stop APICv. `bit`: the number of the inhibit reason."""

    system = "kvm"
    event = "kvm_apicv_update_request"
    print_fmt = '"%s bit=%lu", REC->activate ? "activate" : "deactivate", REC->bit'
    needs = KvmFeature.TRACE_APICV_REQUEST_BIT

    activate: c.Bool
    bit: c.UnsignedLong

    def text(self) -> str:
        return f"{'activate' if self.activate else 'deactivate'} bit={self.bit}"


class KvmApicvInhibitChanged(Tracepoint):
    """An inhibit reason was set or cleared. `inhibits`: the mask of all that are set."""

    system = "kvm"
    event = "kvm_apicv_inhibit_changed"
    print_fmt = _inhibit_format(INHIBITS)
    needs = KvmFeature.TRACE_STATE

    reason: c.Int
    set: c.Bool
    inhibits: c.UnsignedLong

    def text(self) -> str:
        return _named_inhibit(self, INHIBITS)

    variants = (
        Variant(
            unless=KvmFeature.TRACE_NAMES,
            print_fmt=(
                '"%s reason=%u, inhibits=0x%lx", REC->set ? "set" : "cleared", '
                "REC->reason, REC->inhibits"
            ),
            text=_inhibit,
        ),
        Variant(
            unless=KvmFeature.TRACE_REQUESTS,
            print_fmt=_inhibit_format(OLD_INHIBITS),
            text=lambda self: _named_inhibit(self, OLD_INHIBITS),
        ),
    )


class KvmApicvAcceptIrq(Tracepoint):
    """APICv delivers an interrupt to a vCPU without an injection."""

    system = "kvm"
    event = "kvm_apicv_accept_irq"
    print_fmt = (
        '"apicid %x vec %u (%s|%s)", REC->apicid, REC->vec, '
        f"__print_symbolic((REC->dm >> 8 & 0x7), {DELIVERY_MODES.listing}), "
        'REC->tm ? "level" : "edge"'
    )
    needs = KvmFeature.TRACE_STATE

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


class KvmAvicIncompleteIpi(Tracepoint):
    """The processor exits at an IPI that it cannot deliver. `id`: the cause."""

    system = "kvm"
    event = "kvm_avic_incomplete_ipi"
    print_fmt = (
        '"vcpu=%u, icrh:icrl=%#010x:%08x, id=%u, index=%u", REC->vcpu, REC->icrh, REC->icrl, '
        "REC->id, REC->index"
    )

    vcpu: c.KU32
    icrh: c.KU32
    icrl: c.KU32
    id: c.KU32
    index: c.KU32

    def text(self) -> str:
        return (
            f"vcpu={self.vcpu}, icrh:icrl={self.icrh:#010x}:{self.icrl:08x}, id="
            f"{self.id}, index={self.index}"
        )


class KvmAvicUnacceleratedAccess(Tracepoint):
    """The processor exits at an access to a register of the APIC. `ft`: 1 is a trap, 0 a fault."""

    system = "kvm"
    event = "kvm_avic_unaccelerated_access"
    print_fmt = (
        '"vcpu=%u, offset=%#x(%s), %s, %s, vec=%#x", REC->vcpu, REC->offset, '
        f"__print_symbolic(REC->offset, {APIC_REGISTERS.listing}), "
        'REC->ft ? "trap" : "fault", REC->rw ? "write" : "read", REC->vec'
    )

    vcpu: c.KU32
    offset: c.KU32
    ft: c.Bool
    rw: c.Bool
    vec: c.KU32

    def text(self) -> str:
        return (
            f"vcpu={self.vcpu}, offset={self.offset:#x}"
            f"({APIC_REGISTERS.name(self.offset)}), {'trap' if self.ft else 'fault'}, "
            f"{'write' if self.rw else 'read'}, vec={self.vec:#x}"
        )


class KvmAvicGaLog(Tracepoint):
    """The IOMMU reports an interrupt for a vCPU that was not running."""

    system = "kvm"
    event = "kvm_avic_ga_log"
    # Of 5.7: neither the kernel of the series nor 5.6 has it.
    needs = KvmFeature.TRACE_STATE
    print_fmt = '"vmid=%u, vcpuid=%u", REC->vmid, REC->vcpuid'

    vmid: c.KU32
    vcpuid: c.KU32

    def text(self) -> str:
        return f"vmid={self.vmid}, vcpuid={self.vcpuid}"


class KvmAvicKickVcpuSlowpath(Tracepoint):
    """KVM searched all vCPUs for the target of an interrupt."""

    system = "kvm"
    event = "kvm_avic_kick_vcpu_slowpath"
    print_fmt = '"icrh:icrl=%#08x:%08x, index=%u", REC->icrh, REC->icrl, REC->index'
    needs = KvmFeature.TRACE_STATE

    icrh: c.KU32
    icrl: c.KU32
    index: c.KU32

    def text(self) -> str:
        return f"icrh:icrl={self.icrh:#08x}:{self.icrl:08x}, index={self.index}"


class KvmAvicDoorbell(Tracepoint):
    """KVM rings the doorbell of the host CPU on which the target of an interrupt runs."""

    system = "kvm"
    event = "kvm_avic_doorbell"
    print_fmt = '"vcpuid=%u, apicid=%u", REC->vcpuid, REC->apicid'
    needs = KvmFeature.TRACE_STATE

    vcpuid: c.KU32
    apicid: c.KU32

    def text(self) -> str:
        return f"vcpuid={self.vcpuid}, apicid={self.apicid}"


EVENTS: tuple[type[Tracepoint], ...] = (
    KvmApicvActivateRequest,
    KvmApicvDeactivateRequest,
    KvmApicvUpdateRequest,
    KvmApicvInhibitChanged,
    KvmApicvAcceptIrq,
    KvmAvicIncompleteIpi,
    KvmAvicUnacceleratedAccess,
    KvmAvicGaLog,
    KvmAvicKickVcpuSlowpath,
    KvmAvicDoorbell,
)

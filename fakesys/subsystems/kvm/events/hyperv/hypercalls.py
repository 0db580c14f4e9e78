"""Events of Hyper-V hypercalls."""

from __future__ import annotations

from fakesys.core import c_types as c
from fakesys.core.tracepoint import Tracepoint, Variant
from fakesys.subsystems.kvm.features import KvmFeature


def _mask(event: KvmHvFlushTlb) -> str:
    return (
        f"processor_mask 0x{event.processor_mask:x} address_space 0x{event.address_space:x}"
        f" flags 0x{event.flags:x}"
    )


def _banks(event: KvmHvFlushTlbEx) -> str:
    return (
        f"valid_bank_mask 0x{event.valid_bank_mask:x} format 0x{event.format:x}"
        f" address_space 0x{event.address_space:x} flags 0x{event.flags:x}"
    )


class KvmHvHypercall(Tracepoint):
    """The guest made a Hyper-V hypercall."""

    system = "kvm"
    event = "kvm_hv_hypercall"
    print_fmt = (
        '"code 0x%x %s var_cnt 0x%x rep_cnt 0x%x idx 0x%x in 0x%llx out 0x%llx", REC->code, '
        'REC->fast ? "fast" : "slow", REC->var_cnt, REC->rep_cnt, REC->rep_idx, REC->ingpa, '
        "REC->outgpa"
    )

    rep_cnt: c.U16
    rep_idx: c.U16
    ingpa: c.U64
    outgpa: c.U64
    code: c.U16
    var_cnt: c.U16
    fast: c.Bool

    def text(self) -> str:
        return (
            f"code 0x{self.code:x} {'fast' if self.fast else 'slow'}"
            f" var_cnt 0x{self.var_cnt:x} rep_cnt 0x{self.rep_cnt:x} idx 0x{self.rep_idx:x}"
            f" in 0x{self.ingpa:x} out 0x{self.outgpa:x}"
        )

    variants = (
        Variant(
            unless=KvmFeature.TRACE_STATE,
            fields=("rep_cnt", "rep_idx", "ingpa", "outgpa", "code", "fast"),
            print_fmt=(
                '"code 0x%x %s cnt 0x%x idx 0x%x in 0x%llx out 0x%llx", REC->code, '
                'REC->fast ? "fast" : "slow", REC->rep_cnt, REC->rep_idx, REC->ingpa, REC->outgpa'
            ),
            text=lambda self: (
                f"code 0x{self.code:x} {'fast' if self.fast else 'slow'} cnt 0x{self.rep_cnt:x}"
                f" idx 0x{self.rep_idx:x} in 0x{self.ingpa:x} out 0x{self.outgpa:x}"
            ),
        ),
    )


class KvmHvHypercallDone(Tracepoint):
    """A Hyper-V hypercall is done."""

    system = "kvm"
    event = "kvm_hv_hypercall_done"
    print_fmt = '"result 0x%llx", REC->result'
    needs = KvmFeature.TRACE_STATE

    result: c.U64

    def text(self) -> str:
        return f"result 0x{self.result:x}"


class KvmHvFlushTlb(Tracepoint):
    """The guest asks to flush TLBs of some vCPUs."""

    system = "kvm"
    event = "kvm_hv_flush_tlb"
    print_fmt = (
        '"processor_mask 0x%llx address_space 0x%llx flags 0x%llx %s", REC->processor_mask, '
        'REC->address_space, REC->flags, REC->guest_mode ? "(L2)" : ""'
    )

    processor_mask: c.KU64
    address_space: c.KU64
    flags: c.KU64
    guest_mode: c.Bool

    def text(self) -> str:
        return f"{_mask(self)} {'(L2)' if self.guest_mode else ''}"

    variants = (
        Variant(
            unless=KvmFeature.TRACE_NAMES,
            fields=("processor_mask", "address_space", "flags"),
            print_fmt=(
                '"processor_mask 0x%llx address_space 0x%llx flags 0x%llx", '
                "REC->processor_mask, REC->address_space, REC->flags"
            ),
            text=_mask,
        ),
    )


class KvmHvFlushTlbEx(Tracepoint):
    """The guest asks to flush TLBs of vCPUs in banks."""

    system = "kvm"
    event = "kvm_hv_flush_tlb_ex"
    print_fmt = (
        '"valid_bank_mask 0x%llx format 0x%llx address_space 0x%llx flags 0x%llx %s", '
        "REC->valid_bank_mask, REC->format, REC->address_space, REC->flags, "
        'REC->guest_mode ? "(L2)" : ""'
    )

    valid_bank_mask: c.KU64
    format: c.KU64
    address_space: c.KU64
    flags: c.KU64
    guest_mode: c.Bool

    def text(self) -> str:
        return f"{_banks(self)} {'(L2)' if self.guest_mode else ''}"

    variants = (
        Variant(
            unless=KvmFeature.TRACE_NAMES,
            fields=("valid_bank_mask", "format", "address_space", "flags"),
            print_fmt=(
                '"valid_bank_mask 0x%llx format 0x%llx address_space 0x%llx flags 0x%llx", '
                "REC->valid_bank_mask, REC->format, REC->address_space, REC->flags"
            ),
            text=_banks,
        ),
    )


class KvmHvSendIpi(Tracepoint):
    """The guest sends an interrupt to some vCPUs."""

    system = "kvm"
    event = "kvm_hv_send_ipi"
    print_fmt = '"vector %x processor_mask 0x%llx", REC->vector, REC->processor_mask'

    vector: c.KU32
    processor_mask: c.KU64

    def text(self) -> str:
        return f"vector {self.vector:x} processor_mask 0x{self.processor_mask:x}"


class KvmHvSendIpiEx(Tracepoint):
    """The guest sends an interrupt to vCPUs in banks."""

    system = "kvm"
    event = "kvm_hv_send_ipi_ex"
    print_fmt = (
        '"vector %x format %llx valid_bank_mask 0x%llx", REC->vector, REC->format, '
        "REC->valid_bank_mask"
    )

    vector: c.KU32
    format: c.KU64
    valid_bank_mask: c.KU64

    def text(self) -> str:
        return (
            f"vector {self.vector:x} format {self.format:x}"
            f" valid_bank_mask 0x{self.valid_bank_mask:x}"
        )


EVENTS: tuple[type[Tracepoint], ...] = (
    KvmHvHypercall,
    KvmHvHypercallDone,
    KvmHvFlushTlb,
    KvmHvFlushTlbEx,
    KvmHvSendIpi,
    KvmHvSendIpiEx,
)

"""Events of encrypted guests (SEV-ES, SEV-SNP)."""

from __future__ import annotations

from fakesys.core import c_types as c
from fakesys.core.tracepoint import Tracepoint
from fakesys.subsystems.kvm.features import KvmFeature


class KvmVmgexitEnter(Tracepoint):
    """An encrypted guest exits with a request (VMGEXIT)."""

    system = "kvm"
    event = "kvm_vmgexit_enter"
    print_fmt = (
        '"vcpu %u, exit_reason %llx, exit_info1 %llx, exit_info2 %llx", REC->vcpu_id, '
        "REC->exit_reason, REC->info1, REC->info2"
    )
    needs = KvmFeature.TRACE_STATE

    vcpu_id: c.UnsignedInt
    exit_reason: c.KU64
    info1: c.KU64
    info2: c.KU64

    def text(self) -> str:
        return (
            f"vcpu {self.vcpu_id}, exit_reason {self.exit_reason:x}, exit_info1 "
            f"{self.info1:x}, exit_info2 {self.info2:x}"
        )


class KvmVmgexitExit(Tracepoint):
    """KVM has served a request of an encrypted guest."""

    system = "kvm"
    event = "kvm_vmgexit_exit"
    print_fmt = (
        '"vcpu %u, exit_reason %llx, exit_info1 %llx, exit_info2 %llx", REC->vcpu_id, '
        "REC->exit_reason, REC->info1, REC->info2"
    )
    needs = KvmFeature.TRACE_STATE

    vcpu_id: c.UnsignedInt
    exit_reason: c.KU64
    info1: c.KU64
    info2: c.KU64

    def text(self) -> str:
        return (
            f"vcpu {self.vcpu_id}, exit_reason {self.exit_reason:x}, exit_info1 "
            f"{self.info1:x}, exit_info2 {self.info2:x}"
        )


class KvmVmgexitMsrProtocolEnter(Tracepoint):
    """An encrypted guest makes a request by the GHCB register."""

    system = "kvm"
    event = "kvm_vmgexit_msr_protocol_enter"
    print_fmt = '"vcpu %u, ghcb_gpa %016llx", REC->vcpu_id, REC->ghcb_gpa'
    needs = KvmFeature.TRACE_STATE

    vcpu_id: c.UnsignedInt
    ghcb_gpa: c.KU64

    def text(self) -> str:
        return f"vcpu {self.vcpu_id}, ghcb_gpa {self.ghcb_gpa:016x}"


class KvmVmgexitMsrProtocolExit(Tracepoint):
    """KVM has served a request made by the GHCB register."""

    system = "kvm"
    event = "kvm_vmgexit_msr_protocol_exit"
    print_fmt = '"vcpu %u, ghcb_gpa %016llx, result %d", REC->vcpu_id, REC->ghcb_gpa, REC->result'
    needs = KvmFeature.TRACE_STATE

    vcpu_id: c.UnsignedInt
    ghcb_gpa: c.KU64
    result: c.Int

    def text(self) -> str:
        return f"vcpu {self.vcpu_id}, ghcb_gpa {self.ghcb_gpa:016x}, result {self.result}"


class KvmRmpFault(Tracepoint):
    """A page of an encrypted guest has the wrong owner or size in the RMP."""

    system = "kvm"
    event = "kvm_rmp_fault"
    print_fmt = (
        '"vcpu %u gpa %016llx pfn 0x%llx error_code 0x%llx rmp_level %d psmash_ret %d", '
        "REC->vcpu_id, REC->gpa, REC->pfn, REC->error_code, REC->rmp_level, REC->psmash_ret"
    )
    needs = KvmFeature.TRACE_NAMES

    vcpu_id: c.UnsignedInt
    gpa: c.KU64
    pfn: c.KU64
    error_code: c.KU64
    rmp_level: c.Int
    psmash_ret: c.Int

    def text(self) -> str:
        return (
            f"vcpu {self.vcpu_id} gpa {self.gpa:016x} pfn 0x{self.pfn:x}"
            f" error_code 0x{self.error_code:x} rmp_level {self.rmp_level} psmash_ret "
            f"{self.psmash_ret}"
        )


EVENTS: tuple[type[Tracepoint], ...] = (
    KvmVmgexitEnter,
    KvmVmgexitExit,
    KvmVmgexitMsrProtocolEnter,
    KvmVmgexitMsrProtocolExit,
    KvmRmpFault,
)

"""Events of a guest that runs a guest of its own.

Follows svm/nested.c: enter_svm_guest_mode, nested_svm_vmexit; svm.c:svm_handle_exit (v6.1); before
5.18 the first was called kvm_nested_vmrun.
"""

from __future__ import annotations

from fakesys.subsystems.kvm.events.nested import (
    KvmNestedIntercepts,
    KvmNestedInterceptsOld,
    KvmNestedVmenter,
    KvmNestedVmexit,
    KvmNestedVmexitInject,
    KvmNestedVmexitOld,
    KvmNestedVmrun,
)
from fakesys.subsystems.kvm.exits import SVM
from fakesys.subsystems.kvm.vcpu_run.reasons import NO_INFO, ExitInfo, Reason
from fakesys.subsystems.kvm.vcpu_run.run import VcpuRun

# The control block of the nested guest, where it begins, and its page tables.
VMCB12, L2_RIP, L2_CR3 = 0x100000, 0xFFFFFFFF82000000, 0x200000
# V_INTR_MASKING, and what every hypervisor intercepts: interrupts, CPUID, HLT, VMRUN, VMMCALL.
_INT_CTL = 1 << 24
_WORD3, _WORD4 = 1 | 1 << 18 | 1 << 24, 0b11
_U32 = 0xFFFFFFFF


def vmenter(run: VcpuRun) -> None:
    """Trace that KVM enters the nested guest, and go on there."""
    isa, rip = run.processor.isa, run.rip
    run.emit(
        KvmNestedVmenter,
        lambda: KvmNestedVmenter(
            rip=rip,
            vmcb=VMCB12,
            nested_rip=L2_RIP,
            int_ctl=_INT_CTL,
            event_inj=0,
            tdp_enabled=True,
            guest_pgd=L2_CR3,
            isa=isa,
        ),
    )
    run.emit(
        KvmNestedVmrun,
        lambda: KvmNestedVmrun(
            rip=rip, vmcb=VMCB12, nested_rip=L2_RIP, int_ctl=_INT_CTL, event_inj=0, npt=True
        ),
    )
    if isa == SVM:
        _intercepts(run)
    run.l1_rip, run.rip = rip, L2_RIP


def _intercepts(run: VcpuRun) -> None:
    run.emit(
        KvmNestedIntercepts,
        lambda: KvmNestedIntercepts(
            cr_read=0, cr_write=0, exceptions=0, intercept1=_WORD3, intercept2=_WORD4, intercept3=0
        ),
    )
    run.emit(
        KvmNestedInterceptsOld,
        lambda: KvmNestedInterceptsOld(
            cr_read=0, cr_write=0, exceptions=0, intercept=_WORD4 << 32 | _WORD3
        ),
    )


def trace_exit(run: VcpuRun, reason: Reason, info: ExitInfo = NO_INFO) -> None:
    """Trace an exit from the nested guest, whether KVM or the guest's hypervisor handles it."""
    code, isa, rip = run.processor.code(reason) & _U32, run.processor.isa, run.rip
    run.emit(
        KvmNestedVmexit,
        lambda: KvmNestedVmexit(
            exit_reason=code,
            guest_rip=rip,
            isa=isa,
            info1=info.info1,
            info2=info.info2,
            intr_info=info.intr_info,
            error_code=info.error_code,
            vcpu_id=run.id,
            requests=0,
        ),
    )
    run.emit(
        KvmNestedVmexitOld,
        lambda: KvmNestedVmexitOld(
            rip=rip,
            exit_code=code,
            exit_info1=info.info1,
            exit_info2=info.info2,
            exit_int_info=0,
            exit_int_info_err=0,
            isa=isa,
        ),
    )


def vmexit(run: VcpuRun, reason: Reason, info: ExitInfo = NO_INFO) -> None:
    """Trace that the guest's hypervisor gets this exit, and go on there."""
    code, isa = run.processor.code(reason) & _U32, run.processor.isa
    run.rip, run.l1_rip = run.l1_rip, 0
    run.emit(
        KvmNestedVmexitInject,
        lambda: KvmNestedVmexitInject(
            exit_code=code,
            exit_info1=info.info1,
            exit_info2=info.info2,
            exit_int_info=0,
            exit_int_info_err=0,
            isa=isa,
        ),
    )

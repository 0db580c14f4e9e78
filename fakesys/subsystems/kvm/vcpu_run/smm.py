"""A round trip through system management mode: SMI, the handler's RSM, and back.

Follows x86.c:enter_smm, emulate.c:em_rsm (v6.1). The handler at SMBASE + 0x8000 returns at once.
"""

from __future__ import annotations

from fakesys.subsystems.kvm.events.run import KvmSmmTransition
from fakesys.subsystems.kvm.vcpu_run.reasons import RSM
from fakesys.subsystems.kvm.vcpu_run.run import VcpuRun

SMBASE, HANDLER = 0x30000, 0x8000
_RSM = b"\x0f\xaa"
# kvm_emulate_insn: CR0.PE is clear.
_REAL_MODE = 0


def transition(run: VcpuRun, *, entering: bool) -> None:
    """Trace that the vCPU enters or leaves system management mode."""
    event = KvmSmmTransition(vcpu_id=run.id, smbase=SMBASE, entering=entering)
    run.emit(KvmSmmTransition, lambda: event)


def round_trip(run: VcpuRun) -> None:
    """Handle a pending SMI. Precondition: the vCPU is in KVM; the caller enters the guest then."""
    interrupted = run.rip
    transition(run, entering=True)
    run.rip = HANDLER
    run.enter()
    run.exit(RSM)
    run.emulate_insn(HANDLER, _RSM, _REAL_MODE, csbase=SMBASE)
    transition(run, entering=False)
    run.rip = interrupted

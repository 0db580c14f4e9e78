"""The page by which a guest reads the time. Follows x86.c:kvm_guest_time_update (v6.1)."""

from __future__ import annotations

from fakesys.subsystems.kvm.events.clock import KvmPvclockUpdate
from fakesys.subsystems.kvm.vcpu_run.clock import TSC_PER_NS
from fakesys.subsystems.kvm.vcpu_run.run import VcpuRun

# MSR_KVM_SYSTEM_TIME, old and new.
PVCLOCK_MSRS = frozenset({0x12, 0x4B564D01})
# tsc_to_system_mul of the host's frequency, and PVCLOCK_TSC_STABLE_BIT.
_MUL, _STABLE = 0x80000000, 1
# An odd version means that the page is being written.
_VERSION_STEP = 2


def update_pvclock(run: VcpuRun) -> None:
    """Write the pvclock page, as a write to its MSR asks for. Like kvm_guest_time_update."""
    run.pvclock_version += _VERSION_STEP
    now = run.now_ns()
    run.emit(
        KvmPvclockUpdate,
        lambda: KvmPvclockUpdate(
            vcpu_id=run.id,
            version=run.pvclock_version,
            tsc_timestamp=now * TSC_PER_NS,
            system_time=now,
            tsc_to_system_mul=_MUL,
            tsc_shift=0,
            flags=_STABLE,
        ),
    )

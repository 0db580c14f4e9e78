"""The guest's clocks: the offset of its time stamp counter, and the master clock.

The host's counter has 2 GHz and is that of the simulated clock. Follows x86.c:kvm_synchronize_tsc,
kvm_track_tsc_matching, pvclock_update_vm_gtod_copy (v6.1).
"""

from __future__ import annotations

from fakesys.core.events import Bus
from fakesys.subsystems.kvm.events.clock import (
    KvmTrackTsc,
    KvmUpdateMasterClock,
    KvmWriteTscOffset,
)
from fakesys.subsystems.kvm.vm import Vcpu

TSC_PER_NS = 2
# VDSO_CLOCKMODE_TSC
HOST_TSC = 1
_U64 = (1 << 64) - 1


def trace_master_clock(bus: Bus, *, used: bool) -> None:
    """Emit that the VM's master clock was updated. `used`: all vCPUs have the same offset."""
    if KvmUpdateMasterClock in bus.wanted:
        event = KvmUpdateMasterClock(
            use_master_clock=used, host_clock=HOST_TSC, offset_matched=used
        )
        bus.emit(event)


def synchronize_tsc(bus: Bus, vcpu: Vcpu, now_ns: int) -> None:
    """Let a new vCPU's counter begin with 0; those that come later go with the first one."""
    vcpus = vcpu.vm.vcpus
    first = next(iter(vcpus.values()))
    vcpu.tsc_offset = -now_ns * TSC_PER_NS if vcpu is first else first.tsc_offset
    if KvmWriteTscOffset in bus.wanted:
        event = KvmWriteTscOffset(
            vcpu_id=vcpu.id,
            previous_tsc_offset=0,
            next_tsc_offset=vcpu.tsc_offset & _U64,
        )
        bus.emit(event)
    if KvmTrackTsc in bus.wanted:
        bus.emit(
            KvmTrackTsc(
                vcpu_id=vcpu.id,
                nr_vcpus_matched_tsc=vcpu.index,
                online_vcpus=vcpu.index + 1,
                # The first vCPU's run turns it on.
                use_master_clock=any(other.last_pid for other in vcpus.values()),
                host_clock=HOST_TSC,
            )
        )

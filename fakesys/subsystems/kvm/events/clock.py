"""Events of the guest's clocks."""

from __future__ import annotations

from fakesys.core import c_types as c
from fakesys.core.tracepoint import IRQS_OFF, Tracepoint
from fakesys.subsystems.kvm.symbols import HOST_CLOCKS


class KvmWriteTscOffset(Tracepoint):
    """The offset of a vCPU's time stamp counter was written."""

    system = "kvm"
    event = "kvm_write_tsc_offset"
    common_flags = IRQS_OFF
    common_preempt_count = 1
    print_fmt = (
        '"vcpu=%u prev=%llu next=%llu", REC->vcpu_id, REC->previous_tsc_offset, '
        "REC->next_tsc_offset"
    )

    vcpu_id: c.UnsignedInt
    previous_tsc_offset: c.U64
    next_tsc_offset: c.U64

    def text(self) -> str:
        return f"vcpu={self.vcpu_id} prev={self.previous_tsc_offset} next={self.next_tsc_offset}"


class KvmUpdateMasterClock(Tracepoint):
    """The master clock, which all vCPUs share, was updated."""

    system = "kvm"
    event = "kvm_update_master_clock"
    common_flags = IRQS_OFF
    common_preempt_count = 1
    print_fmt = (
        '"masterclock %d hostclock %s offsetmatched %u", REC->use_master_clock, '
        f"__print_symbolic(REC->host_clock, {HOST_CLOCKS.listing}), REC->offset_matched"
    )

    use_master_clock: c.Bool
    host_clock: c.UnsignedInt
    offset_matched: c.Bool

    def text(self) -> str:
        return (
            f"masterclock {self.use_master_clock:d} hostclock "
            f"{HOST_CLOCKS.name(self.host_clock)} offsetmatched {self.offset_matched:d}"
        )


class KvmTrackTsc(Tracepoint):
    """The time stamp counters of the vCPUs were compared."""

    system = "kvm"
    event = "kvm_track_tsc"
    common_flags = IRQS_OFF
    common_preempt_count = 1
    print_fmt = (
        '"vcpu_id %u masterclock %u offsetmatched %u nr_online %u hostclock %s", '
        "REC->vcpu_id, REC->use_master_clock, REC->nr_vcpus_matched_tsc, REC->online_vcpus, "
        f"__print_symbolic(REC->host_clock, {HOST_CLOCKS.listing})"
    )

    vcpu_id: c.UnsignedInt
    nr_vcpus_matched_tsc: c.UnsignedInt
    online_vcpus: c.UnsignedInt
    use_master_clock: c.Bool
    host_clock: c.UnsignedInt

    def text(self) -> str:
        return (
            f"vcpu_id {self.vcpu_id} masterclock {self.use_master_clock:d}"
            f" offsetmatched {self.nr_vcpus_matched_tsc} nr_online {self.online_vcpus}"
            f" hostclock {HOST_CLOCKS.name(self.host_clock)}"
        )


class KvmPvclockUpdate(Tracepoint):
    """The pvclock page of a vCPU was written."""

    system = "kvm"
    event = "kvm_pvclock_update"
    print_fmt = (
        '"vcpu_id %u, pvclock { version %u, tsc_timestamp 0x%llx, system_time 0x%llx, '
        'tsc_to_system_mul 0x%x, tsc_shift %d, flags 0x%x }", REC->vcpu_id, REC->version, '
        "REC->tsc_timestamp, REC->system_time, REC->tsc_to_system_mul, REC->tsc_shift, "
        "REC->flags"
    )

    vcpu_id: c.UnsignedInt
    version: c.U32
    tsc_timestamp: c.U64
    system_time: c.U64
    tsc_to_system_mul: c.U32
    tsc_shift: c.S8
    flags: c.U8

    def text(self) -> str:
        return (
            f"vcpu_id {self.vcpu_id}, pvclock {{ version {self.version}"
            f", tsc_timestamp 0x{self.tsc_timestamp:x}"
            f", system_time 0x{self.system_time:x}, tsc_to_system_mul 0x{self.tsc_to_system_mul:x}"
            f", tsc_shift {self.tsc_shift}, flags 0x{self.flags:x} }}"
        )


EVENTS: tuple[type[Tracepoint], ...] = (
    KvmWriteTscOffset,
    KvmUpdateMasterClock,
    KvmTrackTsc,
    KvmPvclockUpdate,
)

"""Events of Hyper-V's SynIC (synthetic interrupt controller), synthetic timers and debugger."""

from __future__ import annotations

from fakesys.core import c_types as c
from fakesys.core.tracepoint import Tracepoint
from fakesys.subsystems.kvm.features import KvmFeature


class KvmHvNotifyAckedSint(Tracepoint):
    """An interrupt of the SynIC was acknowledged."""

    system = "kvm"
    event = "kvm_hv_notify_acked_sint"
    print_fmt = '"vcpu_id %d sint %u", REC->vcpu_id, REC->sint'

    vcpu_id: c.Int
    sint: c.KU32

    def text(self) -> str:
        return f"vcpu_id {self.vcpu_id} sint {self.sint}"


class KvmHvSynicSetIrq(Tracepoint):
    """The SynIC raises an interrupt."""

    system = "kvm"
    event = "kvm_hv_synic_set_irq"
    print_fmt = (
        '"vcpu_id %d sint %u vector %d ret %d", REC->vcpu_id, REC->sint, REC->vector, REC->ret'
    )

    vcpu_id: c.Int
    sint: c.KU32
    vector: c.Int
    ret: c.Int

    def text(self) -> str:
        return f"vcpu_id {self.vcpu_id} sint {self.sint} vector {self.vector} ret {self.ret}"


class KvmHvSynicSendEoi(Tracepoint):
    """The guest sent an EOI for an interrupt of the SynIC."""

    system = "kvm"
    event = "kvm_hv_synic_send_eoi"
    print_fmt = '"vcpu_id %d vector %d", REC->vcpu_id, REC->vector'

    vcpu_id: c.Int
    sint: c.KU32
    vector: c.Int
    ret: c.Int

    def text(self) -> str:
        return f"vcpu_id {self.vcpu_id} vector {self.vector}"


class KvmHvSynicSetMsr(Tracepoint):
    """A register of the SynIC was written."""

    system = "kvm"
    event = "kvm_hv_synic_set_msr"
    print_fmt = (
        '"vcpu_id %d msr 0x%x data 0x%llx host %d", REC->vcpu_id, REC->msr, REC->data, REC->host'
    )

    vcpu_id: c.Int
    msr: c.KU32
    data: c.KU64
    host: c.Bool

    def text(self) -> str:
        return f"vcpu_id {self.vcpu_id} msr 0x{self.msr:x} data 0x{self.data:x} host {self.host:d}"


class KvmHvStimerSetConfig(Tracepoint):
    """A synthetic timer was configured."""

    system = "kvm"
    event = "kvm_hv_stimer_set_config"
    print_fmt = (
        '"vcpu_id %d timer %d config 0x%llx host %d", REC->vcpu_id, REC->timer_index, '
        "REC->config, REC->host"
    )

    vcpu_id: c.Int
    timer_index: c.Int
    config: c.KU64
    host: c.Bool

    def text(self) -> str:
        return (
            f"vcpu_id {self.vcpu_id} timer {self.timer_index} config 0x{self.config:x}"
            f" host {self.host:d}"
        )


class KvmHvStimerSetCount(Tracepoint):
    """A synthetic timer's count was written."""

    system = "kvm"
    event = "kvm_hv_stimer_set_count"
    print_fmt = (
        '"vcpu_id %d timer %d count %llu host %d", REC->vcpu_id, REC->timer_index, '
        "REC->count, REC->host"
    )

    vcpu_id: c.Int
    timer_index: c.Int
    count: c.KU64
    host: c.Bool

    def text(self) -> str:
        return (
            f"vcpu_id {self.vcpu_id} timer {self.timer_index} count {self.count} host {self.host:d}"
        )


class KvmHvStimerStartPeriodic(Tracepoint):
    """A periodic synthetic timer was started."""

    system = "kvm"
    event = "kvm_hv_stimer_start_periodic"
    print_fmt = (
        '"vcpu_id %d timer %d time_now %llu exp_time %llu", REC->vcpu_id, REC->timer_index, '
        "REC->time_now, REC->exp_time"
    )

    vcpu_id: c.Int
    timer_index: c.Int
    time_now: c.KU64
    exp_time: c.KU64

    def text(self) -> str:
        return (
            f"vcpu_id {self.vcpu_id} timer {self.timer_index} time_now {self.time_now}"
            f" exp_time {self.exp_time}"
        )


class KvmHvStimerStartOneShot(Tracepoint):
    """A synthetic timer was started for one expiration."""

    system = "kvm"
    event = "kvm_hv_stimer_start_one_shot"
    print_fmt = (
        '"vcpu_id %d timer %d time_now %llu count %llu", REC->vcpu_id, REC->timer_index, '
        "REC->time_now, REC->count"
    )

    vcpu_id: c.Int
    timer_index: c.Int
    time_now: c.KU64
    count: c.KU64

    def text(self) -> str:
        return (
            f"vcpu_id {self.vcpu_id} timer {self.timer_index} time_now {self.time_now}"
            f" count {self.count}"
        )


class KvmHvStimerCallback(Tracepoint):
    """The host timer behind a synthetic timer has expired."""

    system = "kvm"
    event = "kvm_hv_stimer_callback"
    print_fmt = '"vcpu_id %d timer %d", REC->vcpu_id, REC->timer_index'

    vcpu_id: c.Int
    timer_index: c.Int

    def text(self) -> str:
        return f"vcpu_id {self.vcpu_id} timer {self.timer_index}"


class KvmHvStimerExpiration(Tracepoint):
    """The message of an expired synthetic timer was sent."""

    system = "kvm"
    event = "kvm_hv_stimer_expiration"
    print_fmt = (
        '"vcpu_id %d timer %d direct %d send result %d", REC->vcpu_id, REC->timer_index, '
        "REC->direct, REC->msg_send_result"
    )

    vcpu_id: c.Int
    timer_index: c.Int
    direct: c.Int
    msg_send_result: c.Int

    def text(self) -> str:
        return (
            f"vcpu_id {self.vcpu_id} timer {self.timer_index} direct {self.direct}"
            f" send result {self.msg_send_result}"
        )


class KvmHvStimerCleanup(Tracepoint):
    """A synthetic timer was stopped."""

    system = "kvm"
    event = "kvm_hv_stimer_cleanup"
    print_fmt = '"vcpu_id %d timer %d", REC->vcpu_id, REC->timer_index'

    vcpu_id: c.Int
    timer_index: c.Int

    def text(self) -> str:
        return f"vcpu_id {self.vcpu_id} timer {self.timer_index}"


class KvmHvSyndbgSetMsr(Tracepoint):
    """A register of the synthetic debugger was written."""

    system = "kvm"
    event = "kvm_hv_syndbg_set_msr"
    print_fmt = (
        '"vcpu_id %d vp_index %u msr 0x%x data 0x%llx", REC->vcpu_id, REC->vp_index, '
        "REC->msr, REC->data"
    )
    needs = KvmFeature.TRACE_STATE

    vcpu_id: c.Int
    vp_index: c.KU32
    msr: c.KU32
    data: c.KU64

    def text(self) -> str:
        return (
            f"vcpu_id {self.vcpu_id} vp_index {self.vp_index} msr 0x{self.msr:x}"
            f" data 0x{self.data:x}"
        )


class KvmHvSyndbgGetMsr(Tracepoint):
    """A register of the synthetic debugger was read."""

    system = "kvm"
    event = "kvm_hv_syndbg_get_msr"
    print_fmt = (
        '"vcpu_id %d vp_index %u msr 0x%x data 0x%llx", REC->vcpu_id, REC->vp_index, '
        "REC->msr, REC->data"
    )
    needs = KvmFeature.TRACE_STATE

    vcpu_id: c.Int
    vp_index: c.KU32
    msr: c.KU32
    data: c.KU64

    def text(self) -> str:
        return (
            f"vcpu_id {self.vcpu_id} vp_index {self.vp_index} msr 0x{self.msr:x}"
            f" data 0x{self.data:x}"
        )


EVENTS: tuple[type[Tracepoint], ...] = (
    KvmHvNotifyAckedSint,
    KvmHvSynicSetIrq,
    KvmHvSynicSendEoi,
    KvmHvSynicSetMsr,
    KvmHvStimerSetConfig,
    KvmHvStimerSetCount,
    KvmHvStimerStartPeriodic,
    KvmHvStimerStartOneShot,
    KvmHvStimerCallback,
    KvmHvStimerExpiration,
    KvmHvStimerCleanup,
    KvmHvSyndbgSetMsr,
    KvmHvSyndbgGetMsr,
)

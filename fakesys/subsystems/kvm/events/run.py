"""Events of running a vCPU: entries, exits, returns to user space, halts."""

from __future__ import annotations

from errno import EINTR

from fakesys.core import c_types as c
from fakesys.core.tracepoint import IRQS_OFF, Tracepoint, Variant
from fakesys.subsystems.kvm.exits import OLD_REASONS, REASONS, VMX, Reasons
from fakesys.subsystems.kvm.features import KvmFeature
from fakesys.subsystems.kvm.symbols import LOADS, USER_EXITS, signed32, signed64

EXIT_STATE = (
    "exit_reason",
    "guest_rip",
    "isa",
    "info1",
    "info2",
    "intr_info",
    "error_code",
    "vcpu_id",
)


def exit_format(reasons: Reasons, more: str = "", arguments: str = "") -> str:
    """Return the print fmt of an exit, with `more` and its `arguments` at the end."""
    return (
        '"vcpu %u reason %s%s%s rip 0x%lx info1 0x%016llx info2 0x%016llx intr_info 0x%08x'
        f' error_code 0x%08x{more}", REC->vcpu_id, {reasons.format("exit_reason")}, '
        f"REC->guest_rip, REC->info1, REC->info2, REC->intr_info, REC->error_code{arguments}"
    )


def _exit_state(event: GuestExit, reasons: Reasons) -> str:
    return (
        f"vcpu {event.vcpu_id} reason {reasons.name(event.exit_reason, event.isa)}"
        f" rip 0x{event.guest_rip:x} info1 0x{event.info1:016x} info2 0x{event.info2:016x}"
        f" intr_info 0x{event.intr_info:08x} error_code 0x{event.error_code:08x}"
    )


def old_exit_state(event: GuestExit) -> str:
    """Return the text of an exit of a kernel that records no requests."""
    return _exit_state(event, OLD_REASONS)


_OLD_EXIT_FORMAT = (
    '"vcpu %u reason %s rip 0x%lx info %llx %llx", REC->vcpu_id, '
    f"{OLD_REASONS.unflagged_format('exit_reason')}, REC->guest_rip, REC->info1, REC->info2"
)


def _old_exit(event: KvmExit) -> str:
    reason = OLD_REASONS.unflagged_name(event.exit_reason, event.isa)
    return f"reason {reason} rip 0x{event.guest_rip:x} info {event.info1:x} {event.info2:x}"


def _at_once(event: KvmEntry) -> str:
    return "[immediate exit]" if event.immediate_exit else ""


class KvmEntry(Tracepoint):
    """A vCPU enters the guest."""

    system = "kvm"
    event = "kvm_entry"
    common_flags = IRQS_OFF
    common_preempt_count = 1
    print_fmt = (
        '"vcpu %u, rip 0x%lx intr_info 0x%08x error_code 0x%08x%s", REC->vcpu_id, REC->rip, '
        'REC->intr_info, REC->error_code, REC->immediate_exit ? "[immediate exit]" : ""'
    )

    vcpu_id: c.UnsignedInt
    rip: c.UnsignedLong
    immediate_exit: c.Bool
    intr_info: c.KU32
    error_code: c.KU32

    def text(self) -> str:
        return (
            f"vcpu {self.vcpu_id}, rip 0x{self.rip:x} intr_info 0x{self.intr_info:08x}"
            f" error_code 0x{self.error_code:08x}{_at_once(self)}"
        )

    variants = (
        Variant(
            unless=KvmFeature.TRACE_STATE,
            fields=("vcpu_id",),
            print_fmt='"vcpu %u", REC->vcpu_id',
            text=lambda self: f"vcpu {self.vcpu_id}",
        ),
        Variant(
            unless=KvmFeature.TRACE_REQUESTS,
            fields=("vcpu_id", "rip", "immediate_exit"),
            print_fmt=(
                '"vcpu %u, rip 0x%lx%s", REC->vcpu_id, REC->rip, '
                'REC->immediate_exit ? "[immediate exit]" : ""'
            ),
            text=lambda self: f"vcpu {self.vcpu_id}, rip 0x{self.rip:x}{_at_once(self)}",
        ),
    )


class GuestExit(Tracepoint):
    """Base of the exits from a guest. `isa`: VMX or SVM, `exit_reason` in its numbers."""

    system = "kvm"
    print_fmt = exit_format(REASONS, " requests 0x%016llx", ", REC->requests")

    exit_reason: c.UnsignedInt
    guest_rip: c.UnsignedLong
    isa: c.KU32
    info1: c.KU64
    info2: c.KU64
    intr_info: c.KU32
    error_code: c.KU32
    vcpu_id: c.UnsignedInt
    requests: c.KU64

    def text(self) -> str:
        return f"{_exit_state(self, REASONS)} requests 0x{self.requests:016x}"


class KvmExit(GuestExit):
    """A vCPU left the guest."""

    event = "kvm_exit"

    def context(self) -> tuple[int, int]:
        """Return flags and preempt count: vmx.c:vmx_vcpu_run, and svm.c:svm_handle_exit (v6.1)."""
        return (IRQS_OFF, 1) if self.isa == VMX else (0, 0)

    variants = (
        Variant(
            unless=KvmFeature.TRACE_VCPU,
            fields=("exit_reason", "guest_rip", "isa", "info1", "info2"),
            print_fmt=_OLD_EXIT_FORMAT.replace("vcpu %u ", "").replace("REC->vcpu_id, ", ""),
            text=_old_exit,
        ),
        Variant(
            unless=KvmFeature.TRACE_STATE,
            fields=("exit_reason", "guest_rip", "isa", "info1", "info2", "vcpu_id"),
            print_fmt=_OLD_EXIT_FORMAT,
            text=lambda self: f"vcpu {self.vcpu_id} {_old_exit(self)}",
        ),
        Variant(
            unless=KvmFeature.TRACE_REQUESTS,
            fields=(*EXIT_STATE,),
            print_fmt=exit_format(OLD_REASONS),
            text=old_exit_state,
        ),
    )


class KvmUserspaceExit(Tracepoint):
    """KVM_RUN returned. `errno`: negative, or 0 and `reason` is KVM_EXIT_*."""

    system = "kvm"
    event = "kvm_userspace_exit"
    print_fmt = (
        '"reason %s (%d)", '
        'REC->errno < 0 ? (REC->errno == -4 ? "restart" : "error") : '
        f"__print_symbolic(REC->reason, {USER_EXITS.listing}), "
        "REC->errno < 0 ? -REC->errno : REC->reason"
    )

    reason: c.U32
    errno: c.Int

    def text(self) -> str:
        if self.errno < 0:
            return f"reason {'restart' if self.errno == -EINTR else 'error'} ({-self.errno})"
        return f"reason {USER_EXITS.name(self.reason)} ({signed32(self.reason)})"


class KvmVcpuWakeup(Tracepoint):
    """A halted vCPU continues. `ns`: how long it waited or polled."""

    system = "kvm"
    event = "kvm_vcpu_wakeup"
    print_fmt = (
        '"%s time %lld ns, polling %s", REC->waited ? "wait" : "poll", REC->ns, '
        'REC->valid ? "valid" : "invalid"'
    )

    ns: c.U64
    waited: c.Bool
    valid: c.Bool

    def text(self) -> str:
        return (
            f"{'wait' if self.waited else 'poll'} time {signed64(self.ns)} ns, polling "
            f"{'valid' if self.valid else 'invalid'}"
        )


class KvmHaltPollNs(Tracepoint):
    """The time that a halted vCPU polls was changed."""

    system = "kvm"
    event = "kvm_halt_poll_ns"
    print_fmt = (
        '"vcpu %u: halt_poll_ns %u (%s %u)", REC->vcpu_id, REC->new, '
        'REC->grow ? "grow" : "shrink", REC->old'
    )

    grow: c.Bool
    vcpu_id: c.UnsignedInt
    new: c.UnsignedInt
    old: c.UnsignedInt

    def text(self) -> str:
        return (
            f"vcpu {self.vcpu_id}: halt_poll_ns {self.new}"
            f" ({'grow' if self.grow else 'shrink'} {self.old})"
        )


class KvmPleWindowUpdate(Tracepoint):
    """The pause-loop window, how long a guest may spin, was changed."""

    system = "kvm"
    event = "kvm_ple_window_update"
    print_fmt = (
        '"vcpu %u old %u new %u (%s)", REC->vcpu_id, REC->old, REC->new, '
        'REC->old < REC->new ? "growed" : "shrinked"'
    )
    needs = KvmFeature.TRACE_VCPU

    vcpu_id: c.UnsignedInt
    new: c.UnsignedInt
    old: c.UnsignedInt

    def text(self) -> str:
        return (
            f"vcpu {self.vcpu_id} old {self.old} new {self.new}"
            f" ({'growed' if self.old < self.new else 'shrinked'})"
        )


class KvmPleWindow(Tracepoint):
    """The pause-loop window was changed, before 5.4."""

    system = "kvm"
    event = "kvm_ple_window"
    print_fmt = (
        '"vcpu %u: ple_window %d (%s %d)", REC->vcpu_id, REC->new, REC->grow ? "grow" : "shrink", '
        "REC->old"
    )
    unless = KvmFeature.TRACE_VCPU

    grow: c.Bool
    vcpu_id: c.UnsignedInt
    new: c.Int
    old: c.Int

    def text(self) -> str:
        return (
            f"vcpu {self.vcpu_id}: ple_window {self.new}"
            f" ({'grow' if self.grow else 'shrink'} {self.old})"
        )


class KvmFpu(Tracepoint):
    """The guest's floating point state is loaded or unloaded."""

    system = "kvm"
    event = "kvm_fpu"
    print_fmt = f'"%s", __print_symbolic(REC->load, {LOADS.listing})'

    load: c.KU32

    def text(self) -> str:
        return f"{LOADS.name(self.load)}"


class KvmWaitLapicExpire(Tracepoint):
    """The timer of the local APIC fired `delta` TSC cycles late (early if negative)."""

    system = "kvm"
    event = "kvm_wait_lapic_expire"
    print_fmt = (
        '"vcpu %u: delta %lld (%s)", REC->vcpu_id, REC->delta, REC->delta < 0 ? "early" : "late"'
    )

    vcpu_id: c.UnsignedInt
    delta: c.KS64

    def text(self) -> str:
        return f"vcpu {self.vcpu_id}: delta {self.delta} ({'early' if self.delta < 0 else 'late'})"


class KvmHvTimerState(Tracepoint):
    """The processor's timer is used for the guest's timer, or no longer."""

    system = "kvm"
    event = "kvm_hv_timer_state"
    print_fmt = '"vcpu_id %x hv_timer %x", REC->vcpu_id, REC->hv_timer_in_use'

    vcpu_id: c.UnsignedInt
    hv_timer_in_use: c.UnsignedInt

    def text(self) -> str:
        return f"vcpu_id {self.vcpu_id:x} hv_timer {self.hv_timer_in_use:x}"


class KvmPmlFull(Tracepoint):
    """The page-modification log is full."""

    system = "kvm"
    event = "kvm_pml_full"
    print_fmt = '"vcpu %d: PML full", REC->vcpu_id'

    vcpu_id: c.UnsignedInt

    def text(self) -> str:
        return f"vcpu {signed32(self.vcpu_id)}: PML full"


class KvmPvTlbFlush(Tracepoint):
    """A preempted vCPU gets the request to flush its TLB before it runs."""

    system = "kvm"
    event = "kvm_pv_tlb_flush"
    print_fmt = '"vcpu %u need_flush_tlb %s", REC->vcpu_id, REC->need_flush_tlb ? "true" : "false"'

    vcpu_id: c.UnsignedInt
    need_flush_tlb: c.Bool

    def text(self) -> str:
        return f"vcpu {self.vcpu_id} need_flush_tlb {'true' if self.need_flush_tlb else 'false'}"


class KvmSmmTransition(Tracepoint):
    """The vCPU enters or leaves system management mode."""

    system = "kvm"
    event = "kvm_smm_transition"
    print_fmt = (
        '"vcpu %u: %s SMM, smbase 0x%llx", REC->vcpu_id, '
        'REC->entering ? "entering" : "leaving", REC->smbase'
    )

    vcpu_id: c.UnsignedInt
    smbase: c.KU64
    entering: c.Bool

    def text(self) -> str:
        return (
            f"vcpu {self.vcpu_id}: {'entering' if self.entering else 'leaving'}"
            f" SMM, smbase 0x{self.smbase:x}"
        )

    variants = (
        Variant(
            unless=KvmFeature.TRACE_STATE,
            event="kvm_enter_smm",
        ),
    )


EVENTS: tuple[type[Tracepoint], ...] = (
    KvmEntry,
    KvmExit,
    KvmUserspaceExit,
    KvmVcpuWakeup,
    KvmHaltPollNs,
    KvmPleWindowUpdate,
    KvmPleWindow,
    KvmFpu,
    KvmWaitLapicExpire,
    KvmHvTimerState,
    KvmPmlFull,
    KvmPvTlbFlush,
    KvmSmmTransition,
)

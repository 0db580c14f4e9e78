"""Events of nested guests."""

from __future__ import annotations

from fakesys.core import c_types as c
from fakesys.core.tracepoint import Tracepoint, Variant
from fakesys.subsystems.kvm.events.run import EXIT_STATE, GuestExit, exit_format, old_exit_state
from fakesys.subsystems.kvm.exits import OLD_REASONS, REASONS, VMX
from fakesys.subsystems.kvm.features import KvmFeature
from fakesys.subsystems.kvm.symbols import VM_ENTRY_ERRORS

_EXIT_INFO = "ext_inf1: 0x%016llx ext_inf2: 0x%016llx ext_int: 0x%08x ext_int_err: 0x%08x"
_EXIT_INFO_ARGUMENTS = (
    "REC->exit_info1, REC->exit_info2, REC->exit_int_info, REC->exit_int_info_err"
)


def _exit_info(event: KvmNestedVmexitInject | KvmNestedVmexitOld) -> str:
    return (
        f"ext_inf1: 0x{event.exit_info1:016x} ext_inf2: 0x{event.exit_info2:016x}"
        f" ext_int: 0x{event.exit_int_info:08x} ext_int_err: 0x{event.exit_int_info_err:08x}"
    )


class KvmNestedVmenter(Tracepoint):
    """The guest enters a nested guest."""

    system = "kvm"
    event = "kvm_nested_vmenter"
    print_fmt = (
        '"rip: 0x%016llx %s: 0x%016llx nested_rip: 0x%016llx int_ctl: 0x%08x event_inj: '
        '0x%08x nested_%s=%s %s: 0x%016llx", REC->rip, REC->isa == 1 ? "vmcs" : "vmcb", '
        "REC->vmcb, REC->nested_rip, REC->int_ctl, REC->event_inj, "
        'REC->isa == 1 ? "ept" : "npt", REC->tdp_enabled ? "y" : "n", '
        '!REC->tdp_enabled ? "guest_cr3" : REC->isa == 1 ? "nested_eptp" : "nested_cr3", '
        "REC->guest_pgd"
    )
    needs = KvmFeature.TRACE_STATE

    rip: c.U64
    vmcb: c.U64
    nested_rip: c.U64
    int_ctl: c.U32
    event_inj: c.U32
    tdp_enabled: c.Bool
    guest_pgd: c.U64
    isa: c.U32

    def text(self) -> str:
        vmx = self.isa == VMX
        tables = "nested_eptp" if vmx else "nested_cr3"
        return (
            f"rip: 0x{self.rip:016x} {'vmcs' if vmx else 'vmcb'}: 0x{self.vmcb:016x}"
            f" nested_rip: 0x{self.nested_rip:016x} int_ctl: 0x{self.int_ctl:08x}"
            f" event_inj: 0x{self.event_inj:08x} nested_{'ept' if vmx else 'npt'}="
            f"{'y' if self.tdp_enabled else 'n'} {tables if self.tdp_enabled else 'guest_cr3'}:"
            f" 0x{self.guest_pgd:016x}"
        )


class KvmNestedVmrun(Tracepoint):
    """The guest enters a nested guest, before 6.1."""

    system = "kvm"
    event = "kvm_nested_vmrun"
    print_fmt = (
        '"rip: 0x%016llx vmcb: 0x%016llx nrip: 0x%016llx int_ctl: 0x%08x event_inj: 0x%08x '
        'npt: %s", REC->rip, REC->vmcb, REC->nested_rip, REC->int_ctl, REC->event_inj, '
        'REC->npt ? "on" : "off"'
    )
    unless = KvmFeature.TRACE_STATE

    rip: c.U64
    vmcb: c.U64
    nested_rip: c.U64
    int_ctl: c.U32
    event_inj: c.U32
    npt: c.Bool

    def text(self) -> str:
        return (
            f"rip: 0x{self.rip:016x} vmcb: 0x{self.vmcb:016x} nrip: 0x{self.nested_rip:016x}"
            f" int_ctl: 0x{self.int_ctl:08x} event_inj: 0x{self.event_inj:08x}"
            f" npt: {'on' if self.npt else 'off'}"
        )


class KvmNestedVmenterFailed(Tracepoint):
    """The guest failed to enter a nested guest."""

    system = "kvm"
    event = "kvm_nested_vmenter_failed"
    print_fmt = (
        '"%s%s", __get_str(msg), !REC->err ? "" : __print_symbolic(REC->err, '
        f"{VM_ENTRY_ERRORS.listing})"
    )
    needs = KvmFeature.TRACE_VCPU

    msg: c.DynamicString
    err: c.KU32

    def text(self) -> str:
        return f"{self.msg}{VM_ENTRY_ERRORS.name(self.err) if self.err else ''}"


class KvmNestedIntercepts(Tracepoint):
    """What the guest intercepts in a nested guest."""

    system = "kvm"
    event = "kvm_nested_intercepts"
    print_fmt = (
        '"cr_read: %04x cr_write: %04x excp: %08x intercepts: %08x %08x %08x", REC->cr_read, '
        "REC->cr_write, REC->exceptions, REC->intercept1, REC->intercept2, REC->intercept3"
    )
    needs = KvmFeature.TRACE_STATE

    cr_read: c.U16
    cr_write: c.U16
    exceptions: c.U32
    intercept1: c.U32
    intercept2: c.U32
    intercept3: c.U32

    def text(self) -> str:
        return (
            f"cr_read: {self.cr_read:04x} cr_write: {self.cr_write:04x} excp: "
            f"{self.exceptions:08x} intercepts: {self.intercept1:08x} "
            f"{self.intercept2:08x} {self.intercept3:08x}"
        )


class KvmNestedInterceptsOld(Tracepoint):
    """What the guest intercepts in a nested guest, before 6.1."""

    system = "kvm"
    event = "kvm_nested_intercepts"
    print_fmt = (
        '"cr_read: %04x cr_write: %04x excp: %08x intercept: %016llx", REC->cr_read, '
        "REC->cr_write, REC->exceptions, REC->intercept"
    )
    unless = KvmFeature.TRACE_STATE

    cr_read: c.U16
    cr_write: c.U16
    exceptions: c.U32
    intercept: c.U64

    def text(self) -> str:
        return (
            f"cr_read: {self.cr_read:04x} cr_write: {self.cr_write:04x}"
            f" excp: {self.exceptions:08x} intercept: {self.intercept:016x}"
        )


class KvmNestedVmexit(GuestExit):
    """The nested guest exited to KVM."""

    event = "kvm_nested_vmexit"
    needs = KvmFeature.TRACE_STATE

    variants = (
        Variant(
            unless=KvmFeature.TRACE_REQUESTS,
            fields=(*EXIT_STATE,),
            print_fmt=exit_format(OLD_REASONS),
            text=old_exit_state,
        ),
    )


class KvmNestedVmexitOld(Tracepoint):
    """The nested guest exited to KVM, before 6.1."""

    system = "kvm"
    event = "kvm_nested_vmexit"
    print_fmt = (
        f'"rip: 0x%016llx reason: %s {_EXIT_INFO}", REC->rip, '
        f"{OLD_REASONS.unflagged_format('exit_code')}, {_EXIT_INFO_ARGUMENTS}"
    )
    unless = KvmFeature.TRACE_STATE

    rip: c.U64
    exit_code: c.U32
    exit_info1: c.U64
    exit_info2: c.U64
    exit_int_info: c.U32
    exit_int_info_err: c.U32
    isa: c.U32

    def text(self) -> str:
        reason = OLD_REASONS.unflagged_name(self.exit_code, self.isa)
        return f"rip: 0x{self.rip:016x} reason: {reason} {_exit_info(self)}"


class KvmNestedVmexitInject(Tracepoint):
    """The nested guest exits to the guest."""

    system = "kvm"
    event = "kvm_nested_vmexit_inject"
    print_fmt = (
        f'"reason: %s%s%s {_EXIT_INFO}", {REASONS.format("exit_code")}, {_EXIT_INFO_ARGUMENTS}'
    )

    exit_code: c.U32
    exit_info1: c.U64
    exit_info2: c.U64
    exit_int_info: c.U32
    exit_int_info_err: c.U32
    isa: c.U32

    def text(self) -> str:
        return f"reason: {REASONS.name(self.exit_code, self.isa)} {_exit_info(self)}"

    variants = (
        Variant(
            unless=KvmFeature.TRACE_STATE,
            print_fmt=(
                f'"reason: %s {_EXIT_INFO}", {OLD_REASONS.unflagged_format("exit_code")}, '
                f"{_EXIT_INFO_ARGUMENTS}"
            ),
            text=lambda self: (
                f"reason: {OLD_REASONS.unflagged_name(self.exit_code, self.isa)} {_exit_info(self)}"
            ),
        ),
        Variant(
            unless=KvmFeature.TRACE_REQUESTS,
            print_fmt=(
                f'"reason: %s%s%s {_EXIT_INFO}", {OLD_REASONS.format("exit_code")}, '
                f"{_EXIT_INFO_ARGUMENTS}"
            ),
            text=lambda self: (
                f"reason: {OLD_REASONS.name(self.exit_code, self.isa)} {_exit_info(self)}"
            ),
        ),
    )


class KvmNestedIntrVmexit(Tracepoint):
    """The nested guest exits because an interrupt is pending."""

    system = "kvm"
    event = "kvm_nested_intr_vmexit"
    print_fmt = '"rip: 0x%016llx", REC->rip'

    rip: c.U64

    def text(self) -> str:
        return f"rip: 0x{self.rip:016x}"


class KvmInvlpga(Tracepoint):
    """The guest executed INVLPGA."""

    system = "kvm"
    event = "kvm_invlpga"
    print_fmt = '"rip: 0x%016llx asid: %u address: 0x%016llx", REC->rip, REC->asid, REC->address'

    rip: c.U64
    asid: c.UnsignedInt
    address: c.U64

    def text(self) -> str:
        return f"rip: 0x{self.rip:016x} asid: {self.asid} address: 0x{self.address:016x}"

    variants = (
        Variant(
            unless=KvmFeature.TRACE_STATE,
            fields=("rip", ("asid", c.c_type(c.Int)), "address"),
            print_fmt=(
                '"rip: 0x%016llx asid: %d address: 0x%016llx", REC->rip, REC->asid, REC->address'
            ),
        ),
    )


class KvmSkinit(Tracepoint):
    """The guest executed SKINIT."""

    system = "kvm"
    event = "kvm_skinit"
    print_fmt = '"rip: 0x%016llx slb: 0x%08x", REC->rip, REC->slb'

    rip: c.U64
    slb: c.U32

    def text(self) -> str:
        return f"rip: 0x{self.rip:016x} slb: 0x{self.slb:08x}"


EVENTS: tuple[type[Tracepoint], ...] = (
    KvmNestedVmenter,
    KvmNestedVmrun,
    KvmNestedVmenterFailed,
    KvmNestedIntercepts,
    KvmNestedInterceptsOld,
    KvmNestedVmexit,
    KvmNestedVmexitOld,
    KvmNestedVmexitInject,
    KvmNestedIntrVmexit,
    KvmInvlpga,
    KvmSkinit,
)

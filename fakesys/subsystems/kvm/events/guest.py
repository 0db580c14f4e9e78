"""Events of what a guest does: ports, device memory, registers, hypercalls, page faults."""

from __future__ import annotations

from fakesys.core import c_types as c
from fakesys.core.tracepoint import Tracepoint, Variant
from fakesys.subsystems.kvm.features import KvmFeature
from fakesys.subsystems.kvm.symbols import MMIO_KINDS, MODES, signed32


def _registers(event: KvmCpuid) -> str:
    return (
        f"rax {event.rax:x} rbx {event.rbx:x} rcx {event.rcx:x} rdx {event.rdx:x},"
        f" cpuid entry {'found' if event.found else 'not found'}"
    )


def _xen_call(event: KvmXenHypercall) -> str:
    return (
        f"nr 0x{event.nr:x} a0 0x{event.a0:x} a1 0x{event.a1:x} a2 0x{event.a2:x}"
        f" a3 0x{event.a3:x} a4 0x{event.a4:x} a5 {event.a5:x}"
    )


class KvmHypercall(Tracepoint):
    """The guest made a hypercall."""

    system = "kvm"
    event = "kvm_hypercall"
    print_fmt = (
        '"nr 0x%lx a0 0x%lx a1 0x%lx a2 0x%lx a3 0x%lx", REC->nr, REC->a0, REC->a1, REC->a2, '
        "REC->a3"
    )

    nr: c.UnsignedLong
    a0: c.UnsignedLong
    a1: c.UnsignedLong
    a2: c.UnsignedLong
    a3: c.UnsignedLong

    def text(self) -> str:
        return (
            f"nr 0x{self.nr:x} a0 0x{self.a0:x} a1 0x{self.a1:x} a2 0x{self.a2:x} a3 0x{self.a3:x}"
        )


class KvmXenHypercall(Tracepoint):
    """The guest made a hypercall of Xen."""

    system = "kvm"
    event = "kvm_xen_hypercall"
    print_fmt = (
        '"cpl %d nr 0x%lx a0 0x%lx a1 0x%lx a2 0x%lx a3 0x%lx a4 0x%lx a5 %lx", REC->cpl, '
        "REC->nr, REC->a0, REC->a1, REC->a2, REC->a3, REC->a4, REC->a5"
    )
    needs = KvmFeature.TRACE_STATE

    cpl: c.KU8
    nr: c.UnsignedLong
    a0: c.UnsignedLong
    a1: c.UnsignedLong
    a2: c.UnsignedLong
    a3: c.UnsignedLong
    a4: c.UnsignedLong
    a5: c.UnsignedLong

    def text(self) -> str:
        return f"cpl {self.cpl} {_xen_call(self)}"

    variants = (
        Variant(
            unless=KvmFeature.TRACE_NAMES,
            fields=("nr", "a0", "a1", "a2", "a3", "a4", "a5"),
            print_fmt=(
                '"nr 0x%lx a0 0x%lx a1 0x%lx a2 0x%lx a3 0x%lx a4 0x%lx a5 %lx", REC->nr, '
                "REC->a0, REC->a1, REC->a2, REC->a3, REC->a4, REC->a5"
            ),
            text=_xen_call,
        ),
    )


class KvmPio(Tracepoint):
    """The guest accessed an I/O port. `rw`: 1 writes."""

    system = "kvm"
    event = "kvm_pio"
    print_fmt = (
        '"pio_%s at 0x%x size %d count %d val 0x%x %s", REC->rw ? "write" : "read", '
        'REC->port, REC->size, REC->count, REC->val, REC->count > 1 ? "(...)" : ""'
    )

    rw: c.UnsignedInt
    port: c.UnsignedInt
    size: c.UnsignedInt
    count: c.UnsignedInt
    val: c.UnsignedInt

    def text(self) -> str:
        return (
            f"pio_{'write' if self.rw else 'read'} at 0x{self.port:x} size "
            f"{signed32(self.size)} count {signed32(self.count)} val 0x{self.val:x} "
            f"{'(...)' if self.count > 1 else ''}"
        )


class KvmMmio(Tracepoint):
    """The guest accessed memory of an emulated device. `type`: see MMIO_KINDS."""

    system = "kvm"
    event = "kvm_mmio"
    print_fmt = (
        '"mmio %s len %u gpa 0x%llx val 0x%llx", __print_symbolic(REC->type, '
        f"{MMIO_KINDS.listing}), REC->len, REC->gpa, REC->val"
    )

    type: c.KU32
    len: c.KU32
    gpa: c.KU64
    val: c.KU64

    def text(self) -> str:
        return (
            f"mmio {MMIO_KINDS.name(self.type)} len {self.len} gpa 0x{self.gpa:x}"
            f" val 0x{self.val:x}"
        )


class KvmFastMmio(Tracepoint):
    """A write to device memory was passed to an eventfd without emulation."""

    system = "kvm"
    event = "kvm_fast_mmio"
    print_fmt = '"fast mmio at gpa 0x%llx", REC->gpa'

    gpa: c.KU64

    def text(self) -> str:
        return f"fast mmio at gpa 0x{self.gpa:x}"


class VcpuMatchMmio(Tracepoint):
    """An access hit the MMIO page that the vCPU has cached."""

    system = "kvm"
    event = "vcpu_match_mmio"
    print_fmt = (
        '"gva %#lx gpa %#llx %s %s", REC->gva, REC->gpa, REC->write ? "Write" : "Read", '
        'REC->gpa_match ? "GPA" : "GVA"'
    )

    gva: c.Gva
    gpa: c.Gpa
    write: c.Bool
    gpa_match: c.Bool

    def text(self) -> str:
        return (
            f"gva {self.gva:#x} gpa {self.gpa:#x} {'Write' if self.write else 'Read'} "
            f"{'GPA' if self.gpa_match else 'GVA'}"
        )


class KvmEmulateInsn(Tracepoint):
    """An instruction is emulated. `flags`: the mode of the processor, see MODES."""

    system = "kvm"
    event = "kvm_emulate_insn"
    print_fmt = (
        '"%x:%llx:%s (%s)%s", REC->csbase, REC->rip, __print_hex(REC->insn, REC->len), '
        f'__print_symbolic(REC->flags, {MODES.listing}), REC->failed ? " failed" : ""'
    )

    rip: c.U64
    csbase: c.U32
    len: c.U8
    insn: c.Insn
    flags: c.U8
    failed: c.U8

    def text(self) -> str:
        return (
            f"{self.csbase:x}:{self.rip:x}:{self.insn[: self.len].hex(' ')}"
            f" ({MODES.name(self.flags)}){' failed' if self.failed else ''}"
        )


class KvmCpuid(Tracepoint):
    """The guest executed CPUID; the other fields are the result."""

    system = "kvm"
    event = "kvm_cpuid"
    print_fmt = (
        '"func %x idx %x rax %lx rbx %lx rcx %lx rdx %lx, cpuid entry %s%s", REC->function, '
        "REC->index, REC->rax, REC->rbx, REC->rcx, REC->rdx, "
        'REC->found ? "found" : "not found", REC->used_max_basic ? ", used max basic" : ""'
    )

    function: c.UnsignedInt
    index: c.UnsignedInt
    rax: c.UnsignedLong
    rbx: c.UnsignedLong
    rcx: c.UnsignedLong
    rdx: c.UnsignedLong
    found: c.Bool
    used_max_basic: c.Bool

    def text(self) -> str:
        known = ", used max basic" if self.used_max_basic else ""
        return f"func {self.function:x} idx {self.index:x} {_registers(self)}{known}"

    variants = (
        Variant(
            unless=KvmFeature.TRACE_STATE,
            fields=("function", "rax", "rbx", "rcx", "rdx", "found"),
            print_fmt=(
                '"func %x rax %lx rbx %lx rcx %lx rdx %lx, cpuid entry %s", REC->function, '
                'REC->rax, REC->rbx, REC->rcx, REC->rdx, REC->found ? "found" : "not found"'
            ),
            text=lambda self: f"func {self.function:x} {_registers(self)}",
        ),
    )


class KvmMsr(Tracepoint):
    """The guest accessed a model-specific register. `write`: 1 writes."""

    system = "kvm"
    event = "kvm_msr"
    print_fmt = (
        '"msr_%s %x = 0x%llx%s", REC->write ? "write" : "read", REC->ecx, REC->data, '
        'REC->exception ? " (#GP)" : ""'
    )

    write: c.Unsigned
    ecx: c.KU32
    data: c.KU64
    exception: c.KU8

    def text(self) -> str:
        return (
            f"msr_{'write' if self.write else 'read'} {self.ecx:x} = 0x{self.data:x}"
            f"{' (#GP)' if self.exception else ''}"
        )


class KvmCr(Tracepoint):
    """The guest accessed a control register. `rw`: 1 writes."""

    system = "kvm"
    event = "kvm_cr"
    print_fmt = '"cr_%s %x = 0x%lx", REC->rw ? "write" : "read", REC->cr, REC->val'

    rw: c.UnsignedInt
    cr: c.UnsignedInt
    val: c.UnsignedLong

    def text(self) -> str:
        return f"cr_{'write' if self.rw else 'read'} {self.cr:x} = 0x{self.val:x}"


class KvmPageFault(Tracepoint):
    """The guest faulted on a page that KVM must map."""

    system = "kvm"
    event = "kvm_page_fault"
    print_fmt = (
        '"vcpu %u rip 0x%lx address 0x%016llx error_code 0x%llx", REC->vcpu_id, '
        "REC->guest_rip, REC->fault_address, REC->error_code"
    )

    vcpu_id: c.UnsignedInt
    guest_rip: c.UnsignedLong
    fault_address: c.KU64
    error_code: c.KU64

    def text(self) -> str:
        return (
            f"vcpu {self.vcpu_id} rip 0x{self.guest_rip:x}"
            f" address 0x{self.fault_address:016x} error_code 0x{self.error_code:x}"
        )

    variants = (
        Variant(
            unless=KvmFeature.TRACE_FAULT_VCPU,
            fields=(
                ("fault_address", c.c_type(c.UnsignedLong)),
                ("error_code", c.c_type(c.UnsignedInt)),
            ),
            print_fmt='"address %lx error_code %x", REC->fault_address, REC->error_code',
            text=lambda self: f"address {self.fault_address:x} error_code {self.error_code:x}",
        ),
    )


EVENTS: tuple[type[Tracepoint], ...] = (
    KvmHypercall,
    KvmXenHypercall,
    KvmPio,
    KvmMmio,
    KvmFastMmio,
    VcpuMatchMmio,
    KvmEmulateInsn,
    KvmCpuid,
    KvmMsr,
    KvmCr,
    KvmPageFault,
)

"""What a guest does that makes it exit, by the name that its processor's exits have in events.

`leave` makes one exit: the line and the counters, then what KVM does about it, as far as that has
events of its own. Follows svm/svm.c:svm_exit_handlers, vmx/vmx.c:kvm_vmx_exit_handlers and, in
x86.c, kvm_emulate_rdmsr, kvm_emulate_hypercall, kvm_fast_pio (v6.1).
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL

from msgspec import Struct

from fakesys.core.errors import KernelError
from fakesys.subsystems.kvm.events.clock import KvmPvclockUpdate
from fakesys.subsystems.kvm.events.guest import KvmCpuid, KvmCr, KvmFastMmio, KvmHypercall
from fakesys.subsystems.kvm.events.nested import KvmInvlpga, KvmSkinit
from fakesys.subsystems.kvm.events.run import KvmPmlFull
from fakesys.subsystems.kvm.exits import SVM, SVM_EXCEPTIONS
from fakesys.subsystems.kvm.vcpu_run import reasons
from fakesys.subsystems.kvm.vcpu_run.clock import TSC_PER_NS
from fakesys.subsystems.kvm.vcpu_run.reasons import ExitInfo, Reason
from fakesys.subsystems.kvm.vcpu_run.run import VcpuRun

PROT64 = 9
GP, UD, BP, DB, AC = 13, 6, 3, 1, 17
EXIT_IO, EXIT_DEBUG, EXIT_SHUTDOWN = 2, 4, 8
# Vectors of the exceptions that push an error code.
_WITH_CODE = frozenset({8, 10, 11, 12, 13, 14, 17, 21})
_SIGNATURES = {"amd": b"AuthenticAMD", "intel": b"GenuineIntel"}
_KVM_SIGNATURE = 0x40000000


class ExitValues(Struct, frozen=True):
    """What is said of an exit; each kind takes those that mean something for it.

    `info1`, `info2`: instead of what the processor would report. `fails`: the access is refused, so
    that the guest gets #GP. `kernel`: a device in the kernel handles the port.
    """

    info1: int | None = None
    info2: int | None = None
    write: bool = False
    port: int = 0x80
    size: int = 1
    data: int = 0
    ecx: int = 0
    index: int = 0
    cr: int = 0
    nr: int = 0
    args: tuple[int, int, int, int] = (0, 0, 0, 0)
    vector: int = UD
    code: int = 0
    fails: bool = False
    kernel: bool = False


Handler = Callable[[VcpuRun, Reason, ExitValues], None]

# Instructions that are intercepted as a whole, with the bytes of each.
_CODES: dict[str, bytes] = {
    "cpuid": b"\x0f\xa2",
    "invd": b"\x0f\x08",
    "wbinvd": b"\x0f\x09",
    "rdpmc": b"\x0f\x33",
    "rdtsc": b"\x0f\x31",
    "rdtscp": b"\x0f\x01\xf9",
    "invlpg": b"\x0f\x01\x38",
    "invlpga": b"\x0f\x01\xdf",
    "pause": b"\xf3\x90",
    "pause_instruction": b"\xf3\x90",
    "monitor": b"\x0f\x01\xc8",
    "monitor_instruction": b"\x0f\x01\xc8",
    "mwait": b"\x0f\x01\xc9",
    "mwait_instruction": b"\x0f\x01\xc9",
    "xsetbv": b"\x0f\x01\xd1",
    "hypercall": b"\x0f\x01\xd9",
    "vmcall": b"\x0f\x01\xc1",
    "vmload": b"\x0f\x01\xda",
    "vmsave": b"\x0f\x01\xdb",
    "stgi": b"\x0f\x01\xdc",
    "clgi": b"\x0f\x01\xdd",
    "skinit": b"\x0f\x01\xde",
}
_RDMSR, _WRMSR = b"\x0f\x32", b"\x0f\x30"
# What other commands make, with all that belongs to it.
ELSEWHERE = {
    "npf": "access",
    "pf_excp": "access",
    "ept_violation": "access",
    "vmrun": "nested vmrun",
    "vmlaunch": "nested vmrun",
    "vmresume": "nested vmrun",
    "avic_incomplete_ipi": "ipi",
    "avic_unaccelerated_access": "apic",
    "apic_access": "apic",
    "apic_write": "apic",
}
_COUNTERS = {
    (isa, code): reason.counter
    for reason in vars(reasons).values()
    if isinstance(reason, Reason)
    for isa, code in ((SVM, reason.svm), (3 - SVM, reason.vmx))
}


def reason_named(run: VcpuRun, name: str) -> Reason:
    """Return the reason of this name, in which blanks are underscores and case does not matter.

    Raises EINVAL if this processor has no such exit, or if another command makes it.
    """
    word = name.lower()
    number = run.processor.numbers.get(word)
    if number is None:
        raise KernelError(EINVAL, f"a processor of kind {run.processor.name} has no exit {name!r}")
    if word in ELSEWHERE:
        raise KernelError(EINVAL, f"the command `{ELSEWHERE[word]}` makes this exit")
    return Reason(number, number, _COUNTERS.get((run.processor.isa, number), ""))


def leave(run: VcpuRun, name: str, values: ExitValues) -> None:
    """Leave the guest for this reason and handle it; the caller enters the guest again.

    Precondition: `reason_named` accepted the name, and the vCPU is in the guest.
    """
    reason = reason_named(run, name)
    word = name.lower()
    _HANDLERS.get(_kind(word), _skip)(run, reason, values)
    code = _CODES.get(word)
    if code is not None:
        run.skip(code, PROT64)


def _kind(word: str) -> str:
    """Return the key of the handler: one for all control registers, one for all exceptions."""
    if word.endswith("_excp"):
        return "exception"
    if word.startswith(("read_cr", "write_cr", "cr0_sel")):
        return "cr"
    return _ALIASES.get(word, word)


def _info(values: ExitValues, info: ExitInfo) -> ExitInfo:
    if values.info1 is not None:
        info = info._replace(info1=values.info1)
    return info if values.info2 is None else info._replace(info2=values.info2)


def _skip(run: VcpuRun, reason: Reason, values: ExitValues) -> None:
    run.exit(reason, _info(values, reasons.NO_INFO))


def _io(run: VcpuRun, reason: Reason, values: ExitValues) -> None:
    data = (values.data & (1 << 8 * values.size) - 1).to_bytes(values.size, "little")
    if values.write or values.kernel:
        run.io(values.port, data, write=values.write)
    else:
        run.io(values.port, data, write=False, traced=False)
    if values.kernel:
        return
    run.leave(EXIT_IO)
    run.begin()
    if not values.write:
        run.pio(values.port, data, write=False)


def _msr(run: VcpuRun, reason: Reason, values: ExitValues) -> None:
    write = values.write or reason.vmx == reasons.WRMSR.vmx
    run.exit(reason, _info(values, run.processor.details.msr(write=write)))
    run.msr(values.ecx, values.data, write=write, fails=values.fails)
    if values.fails:
        run.queue_exception(GP, 0)
        return
    run.skip(_WRMSR if write else _RDMSR, PROT64)
    if write and values.ecx in PVCLOCK_MSRS and values.data & 1:
        update_pvclock(run)


def _cpuid(run: VcpuRun, reason: Reason, values: ExitValues) -> None:
    _skip(run, reason, values)
    leaf = _leaf(run, values.nr)
    run.emit(
        KvmCpuid,
        lambda: KvmCpuid(
            function=values.nr,
            index=values.index,
            rax=leaf[0],
            rbx=leaf[1],
            rcx=leaf[2],
            rdx=leaf[3],
            found=any(leaf),
            used_max_basic=False,
        ),
    )


def _leaf(run: VcpuRun, function: int) -> tuple[int, int, int, int]:
    """Return the registers of a leaf: those that tell who made the processor and the host."""
    if function == 0:
        name = _SIGNATURES["intel" if run.processor.isa != SVM else "amd"]
        words = [int.from_bytes(name[at : at + 4], "little") for at in (0, 8, 4)]
        return 0x10 if run.processor.isa == SVM else 0x16, words[0], words[1], words[2]
    if function == _KVM_SIGNATURE:
        return 0x40000001, 0x4B4D564B, 0x564B4D56, 0x4D
    if function == _KVM_SIGNATURE + 1:
        return 0x01007EFB, 0, 0, 0
    return 0, 0, 0, 0


def _cr(run: VcpuRun, reason: Reason, values: ExitValues) -> None:
    number, write = values.cr, values.write
    if run.processor.isa == SVM:
        # read_cr0 to read_cr8, then write_cr0 to write_cr8, then writes to CR0 that matter.
        number, write = reason.svm & 0xF, reason.svm >= _WRITE_CR0
        if reason.svm == _CR0_SEL_WRITE:
            number = 0
    details = run.processor.details.cr(number, write=write, decodes=run.processor.decodes)
    run.exit(reason, _info(values, details))
    if run.processor.isa == SVM and not run.processor.decodes:
        # svm.c:cr_interception: without DecodeAssists KVM emulates.
        run.emulate_insn(run.rip, bytes([0x0F, 0x22 if write else 0x20, number << 3]), PROT64)
    else:
        value = values.data
        run.emit(KvmCr, lambda: KvmCr(rw=int(write), cr=number, val=value))
    run.advance(3)


_WRITE_CR0, _CR0_SEL_WRITE = 0x10, 0x65


def _hypercall(run: VcpuRun, reason: Reason, values: ExitValues) -> None:
    _skip(run, reason, values)
    a0, a1, a2, a3 = values.args
    run.emit(KvmHypercall, lambda: KvmHypercall(nr=values.nr, a0=a0, a1=a1, a2=a2, a3=a3))


def _invlpga(run: VcpuRun, reason: Reason, values: ExitValues) -> None:
    _skip(run, reason, values)
    rip = run.rip
    run.emit(KvmInvlpga, lambda: KvmInvlpga(rip=rip, asid=values.ecx, address=values.data))


def _skinit(run: VcpuRun, reason: Reason, values: ExitValues) -> None:
    _skip(run, reason, values)
    rip = run.rip
    run.emit(KvmSkinit, lambda: KvmSkinit(rip=rip, slb=values.data & 0xFFFFFFFF))
    run.queue_exception(UD, None)


def _exception(run: VcpuRun, reason: Reason, values: ExitValues) -> None:
    """Give an intercepted exception to the guest; that of an unknown instruction is decoded first.

    Like svm.c:ud_interception, gp_interception, db_interception, bp_interception.
    """
    svm = run.processor.isa == SVM
    vector = reason.svm - SVM_EXCEPTIONS if svm else values.vector
    code = values.code if vector in _WITH_CODE else None
    info = run.processor.details.exception(vector, code)
    run.exit(reason, _info(values, info))
    if vector == UD:
        run.emulate_insn(run.rip, b"\x0f\x0b", PROT64)
    if vector in (UD, GP, DB, AC):
        run.queue_exception(vector, code)
    elif vector == BP:
        run.leave(EXIT_DEBUG)
        run.begin()


def _shutdown(run: VcpuRun, reason: Reason, values: ExitValues) -> None:
    _skip(run, reason, values)
    run.leave(EXIT_SHUTDOWN)
    run.begin()


def _fast_mmio(run: VcpuRun, reason: Reason, values: ExitValues) -> None:
    """Pass a write to device memory to an eventfd. Like vmx.c:handle_ept_misconfig."""
    _skip(run, reason, values)
    run.emit(KvmFastMmio, lambda: KvmFastMmio(gpa=values.data))
    run.advance(_FAST_STORE)


_FAST_STORE = 6


def _pml_full(run: VcpuRun, reason: Reason, values: ExitValues) -> None:
    _skip(run, reason, values)
    run.emit(KvmPmlFull, lambda: KvmPmlFull(vcpu_id=run.id))


def _pause(run: VcpuRun, reason: Reason, values: ExitValues) -> None:
    _skip(run, reason, values)
    run.pause_loop.grow(run)


_ALIASES = {
    "ept_misconfig": "fast_mmio",
    "pause_instruction": "pause",
    "io_instruction": "io",
    "msr_read": "msr",
    "msr_write": "msr",
    "cr_access": "cr",
    "vmcall": "hypercall",
    "exception_nmi": "exception",
    "triple_fault": "shutdown",
}
_HANDLERS: dict[str, Handler] = {
    "io": _io,
    "msr": _msr,
    "cpuid": _cpuid,
    "cr": _cr,
    "hypercall": _hypercall,
    "invlpga": _invlpga,
    "skinit": _skinit,
    "exception": _exception,
    "shutdown": _shutdown,
    "fast_mmio": _fast_mmio,
    "pml_full": _pml_full,
    "pause": _pause,
}

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

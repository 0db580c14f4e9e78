"""Where the thread of one vCPU is, and each of its steps with its counters and events.

Follows x86.c:kvm_arch_vcpu_ioctl_run, vcpu_enter_guest, x86_emulate_instruction (v6.1).
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EINTR

from fakesys.core.events import Bus
from fakesys.core.tracepoint import Tracepoint
from fakesys.subsystems.kvm.events.guest import (
    KvmEmulateInsn,
    KvmMmio,
    KvmMsr,
    KvmPageFault,
    KvmPio,
)
from fakesys.subsystems.kvm.events.lapic import KvmInjException, KvmInjVirq
from fakesys.subsystems.kvm.events.run import KvmEntry, KvmExit, KvmFpu, KvmUserspaceExit
from fakesys.subsystems.kvm.exits import VMX
from fakesys.subsystems.kvm.stats import VcpuStats
from fakesys.subsystems.kvm.vcpu_run.clock import trace_master_clock
from fakesys.subsystems.kvm.vcpu_run.pause_loop import PauseLoop
from fakesys.subsystems.kvm.vcpu_run.processor import PROCESSORS, Processor
from fakesys.subsystems.kvm.vcpu_run.reasons import (
    IO,
    MISCONFIG,
    NESTED_FAULT,
    NO_INFO,
    PAGE_FAULT,
    ExitInfo,
    Reason,
)

# Where a vCPU that no command has set up runs: the text of a 64-bit Linux.
KERNEL_TEXT = 0xFFFFFFFF81000000
_RSVD = 1 << 3
_U32, _U64 = 0xFFFFFFFF, (1 << 64) - 1
# Bits of an event that an entry injects, the same for both vendors.
_VALID, _HAS_CODE, _EXCEPTION = 1 << 31, 1 << 11, 3 << 8


class VcpuRun:
    """KVM_RUN of one vCPU. `id`, `stats`: of the vCPU. `processor`: that the VM runs on.

    `rip`: of the guest; `l1_rip`: of the guest that runs a nested one, else 0. `in_guest`: it runs
    the guest. `in_kvm_run`: its thread is within KVM_RUN, so the guest's floating point state is
    loaded. `clock_request`: KVM_REQ_MASTERCLOCK_UPDATE is pending, as the vCPU is new.
    `pvclock_version`: of its pvclock page. `halt_poll_ns`: how long it polls when it halts.
    `ple_window`: PAUSEs until it exits, 0 before that ever grew. `requests`: bits of
    vcpu->requests, which the next exit records.
    """

    __slots__ = (
        "_bus",
        "_exception",
        "_wanted",
        "clock_request",
        "halt_poll_ns",
        "id",
        "in_guest",
        "in_kvm_run",
        "l1_rip",
        "now_ns",
        "pause_loop",
        "ple_window",
        "processor",
        "pvclock_version",
        "requests",
        "rip",
        "stats",
    )

    def __init__(
        self, bus: Bus, vcpu_id: int, stats: VcpuStats, processor: Processor = PROCESSORS["amd"]
    ) -> None:
        self._bus = bus
        self._wanted = bus.wanted
        self.id = vcpu_id
        self.stats = stats
        self.processor = processor
        self.rip = KERNEL_TEXT
        self.in_guest = False
        self.in_kvm_run = False
        self.clock_request = False
        self.pvclock_version = 0
        self.halt_poll_ns = 0
        self.ple_window = 0
        self.pause_loop = PauseLoop({})
        self.l1_rip = 0
        self.requests = 0
        self.now_ns: Callable[[], int] = lambda: 0
        # Vector and error code of the exception that the next entry injects.
        self._exception: tuple[int, int | None] | None = None

    @property
    def wants_entries(self) -> bool:
        """Whether entries or exits are recorded."""
        return KvmExit in self._wanted or KvmEntry in self._wanted

    def begin(self, *, blocks: bool = False) -> None:
        """Begin KVM_RUN, if its thread is in user space. Like x86.c:kvm_load_guest_fpu.

        `blocks`: the vCPU waits for something before it can enter the guest.
        """
        if not self.in_kvm_run:
            self.in_kvm_run = True
            if self._bus.scheduler is not None:
                self._bus.scheduler.begin()
            self.emit(KvmFpu, lambda: KvmFpu(load=1))
        if not blocks:
            self._update_clock()

    def _update_clock(self) -> None:
        if self.clock_request:
            self.clock_request = False
            trace_master_clock(self._bus, used=True)

    def enter(
        self, intr_info: int = 0, error_code: int = 0, *, immediate_exit: bool = False
    ) -> None:
        """Enter the guest, if the vCPU is not there; `intr_info`: the event that is injected.

        Precondition: `begin` was called. Like svm.c:svm_vcpu_run.
        """
        if self.in_guest:
            return
        if self._bus.scheduler is not None:
            self._bus.scheduler.run()
        self._update_clock()
        self.in_guest = True
        if self._exception is not None:
            intr_info, error_code = self._inject_exception(*self._exception)
            self._exception = None
        if KvmEntry in self._wanted:
            event = KvmEntry(
                vcpu_id=self.id,
                rip=self.rip,
                immediate_exit=immediate_exit,
                intr_info=intr_info,
                error_code=error_code,
            )
            self._bus.emit(event)

    def inject_irq(self, vector: int, *, reinjected: bool = False) -> None:
        """Count and trace the injection of an interrupt; the entry follows.

        Like svm.c:svm_inject_irq.
        """
        self.stats.irq_injections += 1
        event = KvmInjVirq(vector=vector, soft=False, reinjected=reinjected, irq=vector)
        self.emit(KvmInjVirq, lambda: event)

    def queue_exception(self, vector: int, code: int | None) -> None:
        """Let the next entry inject an exception. `code`: its error code, None if it has none."""
        self._exception = (vector, code)

    def _inject_exception(self, vector: int, code: int | None) -> tuple[int, int]:
        """Trace the exception; return event and error code as the entry has them.

        Like x86.c:kvm_inject_exception.
        """
        event = KvmInjException(
            exception=vector,
            has_error=int(code is not None),
            error_code=code or 0,
            reinjected=False,
        )
        self.emit(KvmInjException, lambda: event)
        return _VALID | _EXCEPTION | vector | (0 if code is None else _HAS_CODE), code or 0

    def emit(self, kind: type[Tracepoint], make: Callable[[], Tracepoint]) -> None:
        """Emit an event if it is recorded."""
        if kind in self._wanted:
            self._bus.emit(make())

    def advance(self, length: int) -> None:
        """Move rip behind an instruction of so many bytes."""
        self.rip = self.rip + length & _U64

    def skip(self, code: bytes, mode: int) -> None:
        """Skip an instruction that KVM has handled; without NRIPS that takes its emulation."""
        if not self.processor.next_rip:
            self.emulate_insn(self.rip, code, mode)
        self.advance(len(code))

    def exit(self, reason: Reason, info: ExitInfo = NO_INFO) -> None:
        """Leave the guest, for KVM to handle the exit; count and trace it.

        Precondition: the vCPU is in the guest. Like svm.c:svm_handle_exit, vmx.c:vmx_vcpu_run.
        """
        self.exit_uncounted(reason, info)
        if reason.counter:
            setattr(self.stats, reason.counter, getattr(self.stats, reason.counter) + 1)

    def exit_uncounted(self, reason: Reason, info: ExitInfo = NO_INFO) -> None:
        """Leave the guest for something that only a nested hypervisor handles: count `exits`."""
        assert self.in_guest, f"vCPU {self.id} is not in the guest"
        self.in_guest = False
        self.stats.exits += 1
        if KvmExit in self._wanted:
            event = KvmExit(
                exit_reason=self.processor.code(reason) & _U32,
                guest_rip=self.rip,
                isa=self.processor.isa,
                info1=info.info1,
                info2=info.info2,
                intr_info=info.intr_info,
                error_code=info.error_code,
                vcpu_id=self.id,
                requests=self.requests,
            )
            self._bus.emit(event)
        self.requests = 0

    def page_fault(
        self, rip: int, address: int, error: int, *, nested: bool, in_tables: bool = False
    ) -> None:
        """Leave the guest because of a page fault.

        `nested`: of the host's tables, by the guest physical `address`; `in_tables`: that of an
        entry of the guest's own tables. Otherwise a #PF at a guest virtual address, with shadow
        paging. `error`: the error code as the MMU sees it.
        """
        self.rip = rip
        error = self.processor.error_code(error)
        details = self.processor.details
        if nested and error & _RSVD and self.processor.isa == VMX:
            self.exit(MISCONFIG)
            return
        if nested:
            info: ExitInfo = details.nested_fault(address, error, in_tables=in_tables)
            self.exit(NESTED_FAULT, info)
            # Both vendors trace what they report: svm.c:npf_interception, handle_ept_violation.
            error = info.info1
        else:
            self.exit(PAGE_FAULT, details.page_fault(address, error))
        if KvmPageFault in self._wanted and (nested or self.processor.traces_faults):
            event = KvmPageFault(
                vcpu_id=self.id, guest_rip=rip, fault_address=address, error_code=error
            )
            self._bus.emit(event)

    def leave(self, reason: int, errno: int = 0) -> None:
        """Return from KVM_RUN: with KVM_EXIT_* `reason`, or with `errno` if that is not 0.

        Precondition: the vCPU is not in the guest. Like x86.c:kvm_put_guest_fpu, then
        kvm_main.c:kvm_vcpu_ioctl.
        """
        assert not self.in_guest, f"vCPU {self.id} is in the guest"
        if errno == EINTR:
            self.stats.signal_exits += 1
        if self.in_kvm_run:
            self.in_kvm_run = False
            self.stats.fpu_reload += 1
            if KvmFpu in self._wanted:
                self._bus.emit(KvmFpu(load=0))
        if KvmUserspaceExit in self._wanted:
            self._bus.emit(KvmUserspaceExit(reason=reason, errno=-errno))

    def emulate_insn(
        self, rip: int, code: bytes, mode: int, *, csbase: int = 0, failed: bool = False
    ) -> None:
        """Count and trace the emulation of one instruction. `mode`: KVM_EMUL_INSN_F_*.

        Like x86.c:x86_decode_emulated_instruction.
        """
        if failed:
            self.stats.insn_emulation_fail += 1
        else:
            self.stats.insn_emulation += 1
        if KvmEmulateInsn in self._wanted:
            event = KvmEmulateInsn(
                rip=rip,
                csbase=csbase,
                len=len(code),
                insn=code.ljust(15, b"\0"),
                flags=mode,
                failed=int(failed),
            )
            self._bus.emit(event)

    def msr(self, number: int, value: int, *, write: bool, fails: bool = False) -> None:
        """Trace an access to a model-specific register. Like x86.c:kvm_emulate_wrmsr."""
        event = KvmMsr(write=int(write), ecx=number, data=value, exception=int(fails))
        self.emit(KvmMsr, lambda: event)

    def io(
        self,
        port: int,
        data: bytes,
        *,
        write: bool,
        length: int = 2,
        address: int = 64,
        traced: bool = True,
    ) -> None:
        """Leave the guest because of IN or OUT, which takes `length` bytes, and trace the access.

        `data`: what is written or read. `address`: how many bits the guest's addresses have.
        `traced`: not so if user space has to answer first.
        """
        info = self.processor.details.io(
            port,
            len(data),
            write=write,
            next_rip=self.rip + length,
            address=address if self.processor.tells_address_size else 0,
        )
        self.exit(IO, info)
        self.advance(length)
        if traced:
            self.pio(port, data, write=write)

    def pio(self, port: int, data: bytes, *, write: bool, count: int = 1) -> None:
        """Trace an access to an I/O port. Like x86.c:emulator_pio_out, emulator_pio_in."""
        if KvmPio in self._wanted:
            value = int.from_bytes(data, "little")
            self._bus.emit(KvmPio(rw=int(write), port=port, size=len(data), count=count, val=value))

    def mmio(self, kind: int, gpa: int, data: bytes) -> None:
        """Trace a part of an access to device memory. `kind`: KVM_TRACE_MMIO_*."""
        if KvmMmio in self._wanted:
            value = int.from_bytes(data, "little")
            self._bus.emit(KvmMmio(type=kind, len=len(data), gpa=gpa, val=value))

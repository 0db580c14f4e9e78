"""Where the thread of one vCPU is, and each of its steps with its counters and events.

Follows x86.c:kvm_arch_vcpu_ioctl_run, vcpu_enter_guest, x86_emulate_instruction (v6.1).
"""

from __future__ import annotations

from errno import EINTR

from fakesys.core.events import Bus
from fakesys.subsystems.kvm.events.guest import KvmEmulateInsn, KvmMmio, KvmPageFault, KvmPio
from fakesys.subsystems.kvm.events.run import KvmEntry, KvmExit, KvmFpu, KvmUserspaceExit
from fakesys.subsystems.kvm.stats import VcpuStats
from fakesys.subsystems.kvm.vcpu_run.processor import PROCESSORS, Processor
from fakesys.subsystems.kvm.vcpu_run.reasons import (
    IO,
    NESTED_FAULT,
    NO_INFO,
    PAGE_FAULT,
    ExitInfo,
    Reason,
)

# Where a vCPU that no command has set up runs: the text of a 64-bit Linux.
KERNEL_TEXT = 0xFFFFFFFF81000000
_U32 = 0xFFFFFFFF


class VcpuRun:
    """KVM_RUN of one vCPU. `id`, `stats`: of the vCPU. `processor`: that the VM runs on.

    `rip`: of the guest. `in_guest`: it runs the guest. `in_kvm_run`: its thread is within KVM_RUN,
    so the guest's floating point state is loaded.
    """

    __slots__ = ("_bus", "_wanted", "id", "in_guest", "in_kvm_run", "processor", "rip", "stats")

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

    @property
    def wants_entries(self) -> bool:
        """Whether entries or exits are recorded."""
        return KvmExit in self._wanted or KvmEntry in self._wanted

    def begin(self) -> None:
        """Begin KVM_RUN, if its thread is in user space. Like x86.c:kvm_load_guest_fpu."""
        if self.in_kvm_run:
            return
        self.in_kvm_run = True
        if KvmFpu in self._wanted:
            self._bus.emit(KvmFpu(load=1))

    def enter(
        self, intr_info: int = 0, error_code: int = 0, *, immediate_exit: bool = False
    ) -> None:
        """Enter the guest, if the vCPU is not there; `intr_info`: the event that is injected.

        Precondition: `begin` was called. Like svm.c:svm_vcpu_run.
        """
        if self.in_guest:
            return
        self.in_guest = True
        if KvmEntry in self._wanted:
            event = KvmEntry(
                vcpu_id=self.id,
                rip=self.rip,
                immediate_exit=immediate_exit,
                intr_info=intr_info,
                error_code=error_code,
            )
            self._bus.emit(event)

    def exit(self, reason: Reason, info: ExitInfo = NO_INFO, *, requests: int = 0) -> None:
        """Leave the guest, for KVM to handle the exit; count and trace it.

        `requests`: bits of vcpu->requests. Precondition: the vCPU is in the guest. Like
        svm.c:svm_handle_exit, vmx.c:vmx_vcpu_run.
        """
        self.exit_uncounted(reason, info, requests=requests)
        if reason.counter:
            setattr(self.stats, reason.counter, getattr(self.stats, reason.counter) + 1)

    def exit_uncounted(
        self, reason: Reason, info: ExitInfo = NO_INFO, *, requests: int = 0
    ) -> None:
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
                requests=requests,
            )
            self._bus.emit(event)

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

    def io(
        self,
        port: int,
        data: bytes,
        *,
        write: bool,
        requests: int = 0,
        length: int = 2,
        address: int = 64,
    ) -> None:
        """Leave the guest because of IN or OUT, which takes `length` bytes, and trace the access.

        `data`: what is written or read. `address`: how many bits the guest's addresses have.
        """
        info = self.processor.details.io(
            port,
            len(data),
            write=write,
            next_rip=self.rip + length,
            address=address if self.processor.tells_address_size else 0,
        )
        self.exit(IO, info, requests=requests)
        self.rip += length
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

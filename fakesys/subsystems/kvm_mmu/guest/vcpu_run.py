"""KVM_RUN of a vCPU: the guest accesses memory, faults, has instructions emulated, exits.

Follows x86.c:vcpu_run, x86_emulate_instruction, vcpu_mmio_gva_to_gpa (v6.1).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from errno import EINVAL
from typing import NamedTuple

from fakesys.core.errors import KernelError
from fakesys.core.scheduling.resched import cond_resched_killable, might_resched
from fakesys.subsystems.kvm.events.guest import KvmEmulateInsn, KvmMmio, KvmPageFault, VcpuMatchMmio
from fakesys.subsystems.kvm.events.run import KvmFpu, KvmUserspaceExit
from fakesys.subsystems.kvm_mmu.guest.page_tables import CR3
from fakesys.subsystems.kvm_mmu.guest.programs import (
    AFTER_DOORBELL,
    CODE,
    DOORBELL,
    DOORBELL_STUB,
    MAX_STEPS,
    Access,
    GuestOp,
    assemble,
    fetch,
    store,
)
from fakesys.subsystems.kvm_mmu.mmu.fast_page_fault import RetPf
from fakesys.subsystems.kvm_mmu.shadow.vcpu import Paging, VcpuMmu
from fakesys.subsystems.kvm_mmu.shadow.walk import PF_FETCH, PF_USER, PF_WRITE
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory

# A fault that is retried this often will never be resolved.
MAX_RETRIES = 16
# More accesses of a program are made in slices.
FEW = 64

# KVM_EMUL_INSN_F_CR0_PE | KVM_EMUL_INSN_F_CS_L
PROT64 = 9


class Exit(IntEnum):
    """Why KVM_RUN returned: KVM_EXIT_*."""

    IO = 2
    HLT = 5
    MMIO = 6
    SHUTDOWN = 8
    INTR = 10
    INTERNAL_ERROR = 17


class MmioType(IntEnum):
    """The field `type` of kvm_mmio."""

    UNSATISFIED_READ = 0
    READ = 1
    WRITE = 2


class VcpuExit(NamedTuple):
    """An exit to user space. `mmio`: address, whether it is a write, length.

    A non-zero `errno` means that KVM_RUN failed and there was no exit.
    """

    reason: Exit | None
    mmio: tuple[int, bool, int] | None = None
    errno: int = 0


@dataclass(eq=False)
class Registers:
    """Those registers of a vCPU that matter here. `mmio_data`: the buffer shared with user space.

    `ready`: they were set, so that the paging mode is known.
    """

    rip: int = CODE
    real_mode: bool = False
    ready: bool = False
    mmio_data: bytes = bytes(8)


class Guest:
    """One vCPU that runs a guest."""

    def __init__(self, memory: VmMemory, vcpu: VcpuMmu) -> None:
        self._memory = memory
        self._vcpu = vcpu
        self._bus = memory.arch.bus
        self.registers = Registers()

    def set_up(self, *, real_mode: bool) -> None:
        """Set the registers: 64-bit user code with CR3 0x10000, or real mode; rip is 0x1000.

        This is KVM_SET_SREGS.
        """
        self.registers = Registers(real_mode=real_mode, ready=True)
        memory = self._memory
        if memory.arch.knobs.tdp:
            memory.roots.reset(self._vcpu, Paging.TDP, 0 if real_mode else CR3)
        elif real_mode:
            memory.roots.reset(self._vcpu, Paging.NONE, 0)
        else:
            memory.roots.reset(self._vcpu, Paging.LONG, CR3)

    def set_cr3(self, cr3: int) -> None:
        """Set CR3 alone: KVM_SET_SREGS."""
        self._memory.roots.reset(self._vcpu, self._vcpu.paging, cr3)

    def enter(self) -> None:
        """Begin KVM_RUN: load the guest FPU, handle requests, load roots."""
        self._trace_fpu(load=True)
        self._memory.roots.enter(self._vcpu)

    def run(self, ops: Iterable[GuestOp]) -> list[VcpuExit]:
        """Run a program: fetches from gfn 1, the operations, the doorbell store.

        Return all exits to user space except that of the doorbell. Raises EINVAL unless the vCPU is
        in 64-bit mode, and for more than `MAX_STEPS` accesses, EINTR after a signal.
        """
        ops = list(ops)
        if not self.registers.ready or self.registers.real_mode:
            raise KernelError(EINVAL, "the vCPU is not set up for programs")
        times = sum(op.times for op in ops)
        if times > MAX_STEPS:
            raise KernelError(EINVAL, f"a program makes at most {MAX_STEPS} accesses")
        if times > FEW:
            might_resched()
        program = list(assemble(ops))
        exits: list[VcpuExit] = []
        self.enter()
        fetches = {self.registers.rip, CODE}
        steps = [fetch(rip) for rip in sorted(fetches, reverse=True)]
        steps += [*program, store(DOORBELL, DOORBELL_STUB)]
        for step in steps:
            self.let_others_in()
            vcpu_exit = self.access(step)
            if vcpu_exit is None:
                continue
            exits.append(vcpu_exit)
            if vcpu_exit.reason is not Exit.MMIO:
                return exits
            if step is not steps[-1]:
                self.resume(vcpu_exit)
        self.registers.rip = AFTER_DOORBELL
        return exits[:-1]

    def let_others_in(self) -> None:
        """Let others in between two accesses; after a signal return from KVM_RUN and raise EINTR.

        Like kvm_main.c:xfer_to_guest_mode_handle_work, x86.c:vcpu_run (v6.1).
        """
        try:
            cond_resched_killable()
        except KernelError:
            self._vcpu.stats.signal_exits += 1
            self.leave(VcpuExit(Exit.INTR))
            raise

    def resume(self, vcpu_exit: VcpuExit) -> None:
        """Call KVM_RUN again after an MMIO exit; a read is completed first."""
        self.enter()
        if vcpu_exit.mmio is None or vcpu_exit.mmio[1]:
            return
        address, _, length = vcpu_exit.mmio
        self._trace_mmio(MmioType.READ, address, self.registers.mmio_data[:length])

    def access(self, access: Access) -> VcpuExit | None:
        """Access memory as the guest; return the exit to user space that this takes, if any."""
        memory, vcpu = self._memory, self._vcpu
        error = access.error | PF_USER
        for _ in range(MAX_RETRIES):
            if vcpu.requests or not vcpu.roots:
                memory.roots.enter(vcpu)
            if memory.shadow_walker.allows(vcpu, access.address, error):
                self._store_data(access)
                return None
            code = memory.shadow_walker.error_code(vcpu, access.address, error)
            vcpu.stats.exits += 1
            self._trace_page_fault(access, code)
            result = memory.faults.page_fault(vcpu, access.address, code)
            if result is RetPf.EMULATE:
                return self._emulate(access)
            if result is RetPf.GUEST:
                return self.leave(VcpuExit(Exit.SHUTDOWN))
            if result is RetPf.FAILED:
                break
        return self._fail()

    def _emulate(self, access: Access) -> VcpuExit | None:
        """Emulate a plain load or store. Like x86.c:x86_emulate_instruction."""
        vcpu = self._vcpu
        vcpu.stats.insn_emulation += 1
        if vcpu.paging is Paging.LONG:
            self._memory.guest_walker.walk(vcpu.cr3, access.rip, PF_USER | PF_FETCH)
        self.trace_emulate_insn(access.rip, access.code, PROT64)
        write = bool(access.error & PF_WRITE)
        gpa, is_mmio = self._translate(access.address, write)
        if gpa is None:
            return self.leave(VcpuExit(Exit.SHUTDOWN))
        if not is_mmio:
            if write and self._memory.guest_memory.write(gpa, access.data):
                self._memory.pte_writer.pte_write(gpa, access.data)
                return None
            if not write and self._memory.guest_memory.read(gpa, 1) is not None:
                return None
        vcpu.stats.mmio_exits += 1
        length = len(access.data)
        if write:
            self.registers.mmio_data = access.data.ljust(8, b"\0")
            self._trace_mmio(MmioType.WRITE, gpa, access.data)
        else:
            self._trace_mmio(MmioType.UNSATISFIED_READ, gpa, bytes(length))
        return self.leave(VcpuExit(Exit.MMIO, (gpa, write, length)))

    def _translate(self, address: int, write: bool) -> tuple[int | None, bool]:
        """Return the guest physical address, or None, and whether it is known to be MMIO.

        Like x86.c:vcpu_mmio_gva_to_gpa.
        """
        memory, vcpu = self._memory, self._vcpu
        cached = memory.mmio.match_gva(vcpu, address)
        if cached is not None:
            self._trace_match_mmio(address, cached, write, by_gpa=False)
            return cached, True
        gpa = address
        if vcpu.paging is Paging.LONG:
            walk = memory.guest_walker.walk(vcpu.cr3, address, PF_USER | (PF_WRITE if write else 0))
            if walk is None:
                return None, False
            gpa = walk.gfn << 12 | address & 0xFFF
        matches = memory.mmio.match_gpa(vcpu, gpa)
        if matches:
            self._trace_match_mmio(address, gpa, write, by_gpa=True)
        return gpa, matches

    def _store_data(self, access: Access) -> None:
        """Write the bytes of a store that did not fault.

        Only the guest's page tables matter, and those only with shadow paging.
        """
        if not access.error & PF_WRITE or self._memory.arch.knobs.tdp:
            return
        row, index, level = self._memory.shadow_walker.last(self._vcpu, access.address)
        gfn = self._memory.arch.sptes.gfn_of(row, index)
        gfn += (access.address >> 12) & (1 << 9 * (level - 1)) - 1
        slot = self._memory.slots.find(gfn)
        if slot is not None and slot.memory is not None:
            slot.memory.write(slot.page(gfn) << 12 | access.address & 0xFFF, access.data)

    def _fail(self) -> VcpuExit:
        """Let KVM_RUN itself fail with EFAULT."""
        self._trace_fpu(load=False)
        if KvmUserspaceExit in self._bus.wanted:
            self._bus.emit(KvmUserspaceExit(reason=0, errno=-14))
        return VcpuExit(None, errno=14)

    def leave(self, vcpu_exit: VcpuExit) -> VcpuExit:
        """Return from KVM_RUN to user space with this exit."""
        self._trace_fpu(load=False)
        if KvmUserspaceExit in self._bus.wanted:
            reason = int(vcpu_exit.reason or 0)
            self._bus.emit(KvmUserspaceExit(reason=reason, errno=0))
        return vcpu_exit

    def trace_emulate_insn(self, rip: int, code: bytes, mode: int) -> None:
        """Emit kvm_emulate_insn, if a listener wants it."""
        if KvmEmulateInsn not in self._bus.wanted:
            return
        event = KvmEmulateInsn(
            rip=rip,
            csbase=0,
            len=len(code),
            insn=code.ljust(15, b"\0"),
            flags=mode,
            failed=0,
        )
        self._bus.emit(event)

    def _trace_fpu(self, *, load: bool) -> None:
        if KvmFpu in self._bus.wanted:
            self._bus.emit(KvmFpu(load=int(load)))

    def _trace_mmio(self, kind: MmioType, gpa: int, data: bytes) -> None:
        if KvmMmio in self._bus.wanted:
            value = int.from_bytes(data, "little")
            self._bus.emit(KvmMmio(type=int(kind), len=len(data), gpa=gpa, val=value))

    def _trace_match_mmio(self, gva: int, gpa: int, write: bool, *, by_gpa: bool) -> None:
        if VcpuMatchMmio in self._bus.wanted:
            event = VcpuMatchMmio(gva=gva, gpa=gpa, write=write, gpa_match=by_gpa)
            self._bus.emit(event)

    def _trace_page_fault(self, access: Access, code: int) -> None:
        if KvmPageFault not in self._bus.wanted or self._vcpu.paging is not Paging.TDP:
            return
        event = KvmPageFault(
            vcpu_id=self._vcpu.id,
            guest_rip=access.rip,
            fault_address=access.address,
            error_code=code,
        )
        self._bus.emit(event)

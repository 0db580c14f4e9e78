"""KVM_RUN of a vCPU: the guest accesses memory, faults, has instructions emulated, exits.

Follows x86.c:vcpu_run, x86_emulate_instruction, vcpu_mmio_gva_to_gpa (v6.1).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from errno import EFAULT, EINTR, EINVAL
from typing import NamedTuple

from fakesys.core.errors import KernelError
from fakesys.core.scheduling.resched import cond_resched_killable, might_resched
from fakesys.subsystems.kvm.events.guest import VcpuMatchMmio
from fakesys.subsystems.kvm.vcpu_run.reasons import INTERRUPT
from fakesys.subsystems.kvm.vcpu_run.run import VcpuRun
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
    """One vCPU that runs a guest. `vcpu_run`: its entries and exits."""

    def __init__(self, memory: VmMemory, vcpu: VcpuMmu, vcpu_run: VcpuRun | None = None) -> None:
        self._memory = memory
        self._vcpu = vcpu
        self._bus = memory.arch.bus
        self.vcpu_run = vcpu_run or VcpuRun(self._bus, vcpu.id, vcpu.stats)
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
        """Begin KVM_RUN, unless that was done: load the guest FPU; then enter the guest."""
        if not self.vcpu_run.in_guest:
            self.begin()
            self.vcpu_run.rip = self.registers.rip
        self.reenter()

    def begin(self) -> None:
        """Begin KVM_RUN: load the guest FPU, handle requests, load roots. No entry yet."""
        self.vcpu_run.begin()
        self._memory.roots.enter(self._vcpu)

    def reenter(self) -> None:
        """Let the guest go on; a request that was made meanwhile makes it exit before that."""
        vcpu, run = self._vcpu, self.vcpu_run
        if vcpu.requests or not vcpu.roots:
            if run.in_guest:
                run.exit(INTERRUPT)
            self._memory.roots.enter(vcpu)
        run.enter()

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
            if self.vcpu_run.in_guest:
                self.vcpu_run.exit(INTERRUPT)
            self.leave(VcpuExit(Exit.INTR, errno=EINTR))
            raise

    def resume(self, vcpu_exit: VcpuExit) -> None:
        """Call KVM_RUN again after an MMIO exit; a read is completed first."""
        self.vcpu_run.begin()
        if vcpu_exit.mmio is not None and not vcpu_exit.mmio[1]:
            address, _, length = vcpu_exit.mmio
            data = self.registers.mmio_data[:length]
            self.vcpu_run.mmio(MmioType.READ, address, data)
        self.reenter()

    def access(self, access: Access) -> VcpuExit | None:
        """Access memory as the guest; return the exit to user space that this takes, if any."""
        memory, vcpu = self._memory, self._vcpu
        error = access.error | PF_USER
        for _ in range(MAX_RETRIES):
            self.reenter()
            if memory.shadow_walker.allows(vcpu, access.address, error):
                self._store_data(access)
                return None
            code = memory.shadow_walker.error_code(vcpu, access.address, error)
            nested = vcpu.paging is Paging.TDP
            self.vcpu_run.page_fault(access.rip, access.address, code, nested=nested)
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
        vcpu, run = self._vcpu, self.vcpu_run
        if vcpu.paging is Paging.LONG and not run.processor.decodes:
            self._memory.guest_walker.walk(vcpu.cr3, access.rip, PF_USER | PF_FETCH)
        run.emulate_insn(access.rip, access.code, PROT64)
        run.rip += len(access.code)
        write = bool(access.error & PF_WRITE)
        gpa, is_mmio = self._translate(access.address, write)
        if gpa is None:
            return self.leave(VcpuExit(Exit.SHUTDOWN))
        if not is_mmio:
            if write and self._memory.guest_memory.write(gpa, access.data):
                self._memory.pte_writer.pte_write(gpa, access.data)
                self.reenter()
                return None
            if not write and self._memory.guest_memory.read(gpa, 1) is not None:
                self.reenter()
                return None
        vcpu.stats.mmio_exits += 1
        length = len(access.data)
        if write:
            self.registers.mmio_data = access.data.ljust(8, b"\0")
            run.mmio(MmioType.WRITE, gpa, access.data)
        else:
            run.mmio(MmioType.UNSATISFIED_READ, gpa, bytes(length))
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
        return self.leave(VcpuExit(None, errno=EFAULT))

    def leave(self, vcpu_exit: VcpuExit) -> VcpuExit:
        """Return from KVM_RUN to user space with this exit."""
        self.vcpu_run.leave(int(vcpu_exit.reason or 0), vcpu_exit.errno)
        return vcpu_exit

    def _trace_match_mmio(self, gva: int, gpa: int, write: bool, *, by_gpa: bool) -> None:
        if VcpuMatchMmio in self._bus.wanted:
            event = VcpuMatchMmio(gva=gva, gpa=gpa, write=write, gpa_match=by_gpa)
            self._bus.emit(event)

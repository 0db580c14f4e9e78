"""KVM_RUN of a vCPU: the guest accesses memory, faults, has instructions emulated, exits.

Follows x86.c:vcpu_run, x86_emulate_instruction (v6.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from errno import EFAULT, EINTR, EINVAL

from fakesys.core.errors import KernelError
from fakesys.core.scheduling.resched import cond_resched_killable, might_resched
from fakesys.subsystems.kvm.events.memory import KvmDirtyRingExit
from fakesys.subsystems.kvm.vcpu_run.reasons import INTERRUPT, RSM, SHUTDOWN
from fakesys.subsystems.kvm.vcpu_run.run import VcpuRun
from fakesys.subsystems.kvm.vcpu_run.smm import HANDLER, SMBASE, transition
from fakesys.subsystems.kvm_mmu.guest.addresses import mmio_address, store_data
from fakesys.subsystems.kvm_mmu.guest.exits import (
    ANSWERED,
    Exit,
    MmioType,
    Registers,
    VcpuExit,
    no_handler,
)
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
from fakesys.subsystems.kvm_mmu.guest.translation import TABLE, Fault, GuestFault, Translation
from fakesys.subsystems.kvm_mmu.mmu.fast_page_fault import RetPf
from fakesys.subsystems.kvm_mmu.shadow.arch import Request
from fakesys.subsystems.kvm_mmu.shadow.vcpu import Paging, VcpuMmu
from fakesys.subsystems.kvm_mmu.shadow.walk import PF_FETCH, PF_USER, PF_WRITE
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory

# A fault that is retried this often will never be resolved.
MAX_RETRIES = 16
# More accesses of a program are made in slices.
FEW = 64

# KVM_EMUL_INSN_F_CR0_PE | KVM_EMUL_INSN_F_CS_L
PROT64 = 9
REAL = 0  # CR0.PE is clear.
MAX_STEPS_REAL = 10_000


class Guest:
    """One vCPU that runs a guest. `vcpu_run`: its entries and exits."""

    def __init__(self, memory: VmMemory, vcpu: VcpuMmu, vcpu_run: VcpuRun | None = None) -> None:
        self._memory = memory
        self._vcpu = vcpu
        self.vcpu_run = vcpu_run or VcpuRun(memory.arch.bus, vcpu.id, vcpu.stats)
        # Whether a processor runs the guest, with its tables and its real mode.
        self.is_hardware = memory.arch.policy.runs_guests and self.vcpu_run.processor.real_mode
        self._translation = Translation(
            memory, vcpu, nested=self.is_hardware and memory.arch.knobs.tdp
        )
        self.registers = Registers()
        # Executes the handler of SMIs until it ends.
        self.run_handler: Callable[[], VcpuExit | None] = no_handler

    def set_up(self, *, real_mode: bool) -> None:
        """Set the registers: 64-bit user code with CR3 0x10000, or real mode; rip is 0x1000.

        This is KVM_SET_SREGS.
        """
        self.registers = Registers(real_mode=real_mode, ready=True)
        self.follow_registers()
        memory = self._memory
        if memory.arch.knobs.tdp:
            memory.roots.reset(self._vcpu, Paging.TDP, 0 if real_mode else CR3)
        elif real_mode:
            memory.roots.reset(self._vcpu, Paging.NONE, 0)
        else:
            memory.roots.reset(self._vcpu, Paging.LONG, CR3)

    def follow_registers(self) -> None:
        """Translate as the registers say."""
        self._translation.paged = self.registers.is_paged

    @property
    def is_flat(self) -> bool:
        """Whether accesses go to physical addresses, without tables of the guest."""
        return not self._translation.walks

    def set_cr3(self, cr3: int) -> None:
        """Set CR3 alone: KVM_SET_SREGS."""
        self._memory.roots.reset(self._vcpu, self._vcpu.paging, cr3)

    def go_on(self, exits: list[VcpuExit], answered: VcpuExit | None = None) -> bool:
        """Call KVM_RUN until the program of the guest goes on; add the exits that come before that.

        `answered`: the exit before. Return False after an exit that user space does not answer.
        """
        vcpu_exit = self.enter() if answered is None else self.resume(answered)
        while vcpu_exit is not None:
            exits.append(vcpu_exit)
            if vcpu_exit.reason not in ANSWERED:
                return False
            vcpu_exit = self.resume(vcpu_exit)
        return True

    def enter(self) -> VcpuExit | None:
        """Begin KVM_RUN, unless that was done, then enter the guest; return an exit before that."""
        if not self.vcpu_run.in_guest or self.registers.in_smm:
            vcpu_exit = self.begin()
            if vcpu_exit is not None:
                return vcpu_exit
            self.vcpu_run.rip = self.registers.rip
        return self.reenter()

    def begin(self) -> VcpuExit | None:
        """Begin KVM_RUN: load the guest FPU, handle requests, load roots, run a handler of SMIs.

        No entry yet; return an exit that comes before it.
        """
        self.vcpu_run.begin()
        return self._exit_for_ring() or self._handle_smi()

    def _handle_smi(self) -> VcpuExit | None:
        if self.registers.smi_pending:
            self._enter_smm()
        vcpu_exit = self._load_roots()
        if vcpu_exit is None and self.registers.in_smm:
            return self.run_handler() or self._load_roots()
        return vcpu_exit

    def _load_roots(self) -> VcpuExit | None:
        """Serve requests and load roots; without any, return the exit for KVM_REQ_TRIPLE_FAULT."""
        if self._memory.roots.enter(self._vcpu):
            return None
        return self.leave(VcpuExit(Exit.SHUTDOWN))

    @property
    def is_ring_full(self) -> bool:
        """Whether no room is left for pages that the guest makes dirty, so that it may not run."""
        ring = self._vcpu.ring
        return ring is not None and ring.is_soft_full

    def _exit_for_ring(self) -> VcpuExit | None:
        """Return to user space if the ring of dirty pages is full. Like x86.c:vcpu_enter_guest."""
        if not self.is_ring_full:
            return None
        if self.vcpu_run.in_guest:
            self.vcpu_run.exit(INTERRUPT)
        event = KvmDirtyRingExit(vcpu_id=self._vcpu.id)
        self.vcpu_run.emit(KvmDirtyRingExit, lambda: event)
        return self.leave(VcpuExit(Exit.DIRTY_RING_FULL))

    def reenter(self) -> VcpuExit | None:
        """Let the guest go on, or return to user space as its ring of dirty pages is full.

        A request that was made meanwhile makes it exit before that.
        """
        vcpu, run = self._vcpu, self.vcpu_run
        if self.is_ring_full:
            return self._exit_for_ring()
        vcpu_exit = None
        if vcpu.requests or not self._memory.roots.has_root(vcpu):
            if run.in_guest:
                run.exit(INTERRUPT)
            vcpu_exit = self._load_roots()
        if vcpu_exit is None:
            run.enter()
        return vcpu_exit

    def send_smi(self) -> None:
        """Let the next run begin in system management mode: KVM_SMI.

        Raises EINVAL where no processor executes the handler.
        """
        if not self.is_hardware:
            raise KernelError(EINVAL, "no processor executes the handler of an SMI")
        self.registers.smi_pending = True

    def _enter_smm(self) -> None:
        """Begin the handler. Like smm.c:enter_smm (v6.1)."""
        registers = self.registers
        registers.smi_pending = False
        if registers.in_smm:
            return
        transition(self.vcpu_run, entering=True)
        registers.interrupted = (registers.rip, registers.real_mode)
        registers.rip, registers.cs_base = HANDLER, SMBASE
        self.vcpu_run.rip = HANDLER
        self._switch(as_id=self._memory.spaces.as_num - 1, real_mode=True)
        self._vcpu.requests |= Request.TLB_FLUSH_GUEST

    def leave_smm(self, rip: int, code: bytes) -> None:
        """Go on where the SMI came. `rip`, `code`: of RSM, which KVM emulates."""
        registers = self.registers
        assert registers.interrupted is not None
        self.vcpu_run.rip = rip
        self.vcpu_run.exit(RSM)
        self.vcpu_run.emulate_insn(rip, code, REAL, csbase=registers.cs_base)
        transition(self.vcpu_run, entering=False)
        registers.rip, real_mode = registers.interrupted
        registers.interrupted, registers.cs_base = None, 0
        self.vcpu_run.rip = registers.rip
        self._switch(as_id=0, real_mode=real_mode)

    def _switch(self, *, as_id: int, real_mode: bool) -> None:
        """Translate in another address space and mode from now on."""
        vcpu, roots = self._vcpu, self._memory.roots
        self.registers.real_mode = real_mode
        self.follow_registers()
        roots.free(vcpu)
        vcpu.as_id = as_id
        vcpu.mmio = None
        if vcpu.paging is not Paging.TDP:
            vcpu.paging = Paging.NONE if real_mode else Paging.LONG

    def exit_for_io(self, rip: int, port: int, data: bytes, length: int) -> None:
        """Exit for OUT, an instruction of `length` bytes in 16-bit code."""
        self.vcpu_run.rip = rip
        self.vcpu_run.io(port, data, write=True, length=length, address=16)

    def shut_down(self, rip: int) -> VcpuExit:
        """Return from KVM_RUN after a triple fault of the instruction at `rip`."""
        self.vcpu_run.rip = rip
        if self.vcpu_run.in_guest:
            self.vcpu_run.exit(SHUTDOWN)
        return self.leave(VcpuExit(Exit.SHUTDOWN))

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
        program = list(assemble(ops, calls=self.is_hardware))
        exits: list[VcpuExit] = []
        if self.is_hardware:
            # The owner writes the program.
            self._memory.touch(CODE)
        if not self.go_on(exits):
            return exits
        fetches = {self.registers.rip, CODE}
        steps = [fetch(rip) for rip in sorted(fetches, reverse=True)]
        steps += [*program, store(DOORBELL, DOORBELL_STUB)]
        for step in steps:
            self.let_others_in()
            vcpu_exit = self.access(step, fetches=self.is_hardware)
            if vcpu_exit is None:
                continue
            exits.append(vcpu_exit)
            if vcpu_exit.reason is not Exit.MMIO:
                return exits
            if step is not steps[-1] and not self.go_on(exits, vcpu_exit):
                return exits
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

    def resume(self, vcpu_exit: VcpuExit) -> VcpuExit | None:
        """Call KVM_RUN again after an MMIO or IO exit; a read of MMIO is completed first.

        Return the next exit if it comes before the program of the guest goes on.
        """
        self.vcpu_run.begin()
        if vcpu_exit.mmio is not None and not vcpu_exit.mmio[1]:
            address, _, length = vcpu_exit.mmio
            data = self.registers.mmio_data[:length]
            self.vcpu_run.mmio(MmioType.READ, address, data)
        return (self.registers.in_smm and self._handle_smi()) or self.reenter()

    def access(self, access: Access, *, fetches: bool = False) -> VcpuExit | None:
        """Access memory as the guest; return the exit to user space that this takes, if any.

        `fetches`: the instruction is fetched too.
        """
        last, retries = None, 0
        while retries < MAX_RETRIES:
            vcpu_exit = self.reenter()
            if vcpu_exit is not None:
                return vcpu_exit
            try:
                fault = self._try_access(access, fetches)
            except GuestFault:
                return self.shut_down(access.rip)
            if fault is None:
                store_data(self._memory, self._vcpu, self._translation, access)
                return None
            last, retries = fault, retries + 1 if fault == last else 1
            result = self._page_fault(access, fault)
            if result is RetPf.EMULATE:
                return self._emulate(access, fault)
            if result is RetPf.GUEST:
                return self.shut_down(access.rip)
            if result is RetPf.FAILED:
                break
        return self._fail()

    def _try_access(self, access: Access, fetches: bool) -> Fault | None:
        if fetches and not access.error & PF_FETCH:
            fault = self._translation.try_access(fetch(access.rip))
            if fault is not None:
                return fault
        return self._translation.try_access(access)

    def _page_fault(self, access: Access, fault: Fault) -> RetPf:
        """Exit with a fault, and handle it."""
        run = self.vcpu_run
        run.page_fault(
            access.rip,
            fault.address,
            fault.code,
            nested=self._vcpu.paging is Paging.TDP,
            in_tables=bool(fault.code & TABLE),
        )
        code = run.processor.error_code(fault.code)
        return self._memory.faults.page_fault(self._vcpu, fault.address, code)

    def _emulate(self, access: Access, fault: Fault) -> VcpuExit | None:
        """Emulate a plain load or store. Like x86.c:x86_emulate_instruction."""
        vcpu, run = self._vcpu, self.vcpu_run
        guest_memory = self._memory.guest_memory_of(vcpu)
        if fault.code & TABLE:
            # The tables of the guest lie where there is no memory, or none that can be written.
            return self.leave(VcpuExit(Exit.SHUTDOWN))
        if self._walks_to_fetch:
            self._memory.guest_walker.walk(vcpu.cr3, access.rip, PF_USER | PF_FETCH)
        mode = REAL if self.registers.real_mode else PROT64
        run.emulate_insn(access.rip, access.code, mode, csbase=self.registers.cs_base)
        run.rip += len(access.code)
        write = bool(access.error & PF_WRITE)
        gpa, is_mmio = mmio_address(
            self._memory, self._vcpu, access.address, fault.address, write=write
        )
        if gpa is None:
            return self.leave(VcpuExit(Exit.SHUTDOWN))
        if not is_mmio:
            if write and guest_memory.write(gpa, access.data):
                self._memory.pte_writer.pte_write(gpa, access.data)
                return self.reenter()
            if not write and guest_memory.read(gpa, 1) is not None:
                return self.reenter()
        return self._exit_for_mmio(access, gpa, write)

    @property
    def _walks_to_fetch(self) -> bool:
        """Whether KVM reads the instruction through the guest's tables."""
        if self.vcpu_run.processor.decodes:
            return False
        if self._vcpu.paging is Paging.LONG:
            return True
        return self.is_hardware and self.registers.is_paged

    def _exit_for_mmio(self, access: Access, gpa: int, write: bool) -> VcpuExit:
        run = self.vcpu_run
        self._vcpu.stats.mmio_exits += 1
        length = len(access.data)
        if write:
            self.registers.mmio_data = access.data.ljust(8, b"\0")
            run.mmio(MmioType.WRITE, gpa, access.data)
        else:
            run.mmio(MmioType.UNSATISFIED_READ, gpa, bytes(length))
        return self.leave(VcpuExit(Exit.MMIO, (gpa, write, length)))

    def _fail(self) -> VcpuExit:
        """Let KVM_RUN itself fail with EFAULT."""
        return self.leave(VcpuExit(None, errno=EFAULT))

    def leave(self, vcpu_exit: VcpuExit) -> VcpuExit:
        """Return from KVM_RUN to user space with this exit."""
        self.vcpu_run.leave(int(vcpu_exit.reason or 0), vcpu_exit.errno)
        return vcpu_exit

"""16-bit code that the processor executes itself, in real mode and in system management mode.

KVM sees what faults, and OUT, HLT and RSM, which exit. Like svm.c:io_interception,
x86.c:kvm_emulate_halt, smm.c:enter_smm (v6.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fakesys.subsystems.kvm.vcpu_run.reasons import HLT
from fakesys.subsystems.kvm_mmu.guest.exits import ANSWERED, Exit, VcpuExit
from fakesys.subsystems.kvm_mmu.guest.programs import Access
from fakesys.subsystems.kvm_mmu.guest.vcpu_run import MAX_STEPS_REAL, REAL, Guest
from fakesys.subsystems.kvm_mmu.shadow.vcpu import VcpuMmu
from fakesys.subsystems.kvm_mmu.shadow.walk import PF_FETCH, PF_WRITE
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory

CODE = 0x1000
Execute = Callable[[bytes], VcpuExit | None]


class Instruction(NamedTuple):
    """One decoded instruction."""

    code: bytes
    execute: Execute


class RealModeCode:
    """Runs code at 0x1000 with all segments at 0, from where the vCPU stands."""

    def __init__(self, memory: VmMemory, vcpu: VcpuMmu, guest: Guest) -> None:
        self._memory = memory
        self._vcpu = vcpu
        self._guest = guest
        self._ax = 0
        self._dx = 0

    def run(self, code: bytes) -> list[VcpuExit]:
        """Write code and run until an exit that is neither MMIO nor IO; return all exits.

        An instruction that is not known shuts the vCPU down. Stops after `MAX_STEPS_REAL`
        instructions.
        """
        self._memory.touch(CODE)
        slot = self._memory.slots.find(CODE >> 12)
        if slot is not None and slot.memory is not None and slot.backed(CODE >> 12):
            slot.memory.write(slot.page(CODE >> 12) << 12, code)
        exits: list[VcpuExit] = []
        if not self._guest.go_on(exits):
            return exits
        for _ in range(MAX_STEPS_REAL):
            self._guest.let_others_in()
            vcpu_exit = self.step()
            if vcpu_exit is None:
                continue
            exits.append(vcpu_exit)
            if vcpu_exit.reason not in ANSWERED:
                return exits
            self._guest.vcpu_run.rip = self._guest.registers.rip
            if not self._guest.go_on(exits, vcpu_exit):
                return exits
        return exits

    def handle_smi(self) -> VcpuExit | None:
        """Run the handler of SMIs until RSM, from where it is; return an exit before that."""
        guest = self._guest
        guest.vcpu_run.rip = guest.registers.rip
        for _ in range(MAX_STEPS_REAL):
            if not guest.registers.in_smm:
                return None
            guest.let_others_in()
            vcpu_exit = self.step()
            if vcpu_exit is not None:
                return vcpu_exit
        return guest.shut_down(guest.registers.rip)

    def step(self) -> VcpuExit | None:
        """Execute one instruction; return the exit to user space that this takes, if any."""
        registers = self._guest.registers
        rip, base = registers.rip, registers.cs_base
        vcpu_exit = self._guest.access(Access(base + rip, PF_FETCH, b"", rip, b""))
        if vcpu_exit is not None:
            return vcpu_exit
        instruction = self._decode(base + rip)
        if instruction is None:
            return self._guest.shut_down(rip)
        registers.rip = rip + len(instruction.code)
        return instruction.execute(instruction.code)

    def _decode(self, address: int) -> Instruction | None:
        memory = self._memory.guest_memory_of(self._vcpu)
        head = memory.read(address, 1)
        row = None if head is None else self._table().get(head[0])
        if row is None:
            return None
        length, execute = row
        code = memory.read(address, length)
        return None if code is None else Instruction(code, execute)

    def _table(self) -> dict[int, tuple[int, Execute]]:
        return {
            0x0F: (2, self._rsm),
            0x90: (1, lambda _code: None),
            0xA1: (3, self._load),
            0xA3: (3, self._store),
            0xB8: (3, self._mov_ax),
            0xBA: (3, self._mov_dx),
            0xE6: (2, lambda code: self._out(code[1], code)),
            0xEB: (2, self._jump),
            0xEE: (1, lambda code: self._out(self._dx, code)),
            0xF4: (1, self._halt),
        }

    def _mov_ax(self, code: bytes) -> None:
        self._ax = int.from_bytes(code[1:], "little")

    def _mov_dx(self, code: bytes) -> None:
        self._dx = int.from_bytes(code[1:], "little")

    def _jump(self, code: bytes) -> None:
        distance = int.from_bytes(code[1:], "little", signed=True)
        self._guest.registers.rip = self._guest.registers.rip + distance & 0xFFFF

    def _load(self, code: bytes) -> VcpuExit | None:
        gpa = int.from_bytes(code[1:], "little")
        vcpu_exit = self._access(gpa, 0, bytes(2), code)
        data = self._memory.guest_memory_of(self._vcpu).read(gpa, 2)
        self._ax = int.from_bytes(data or b"", "little")
        return vcpu_exit

    def _store(self, code: bytes) -> VcpuExit | None:
        gpa = int.from_bytes(code[1:], "little")
        return self._access(gpa, PF_WRITE, self._ax.to_bytes(2, "little"), code)

    def _access(self, gpa: int, error: int, data: bytes, code: bytes) -> VcpuExit | None:
        return self._guest.access(Access(gpa, error, data, self._start(code), code))

    def _start(self, code: bytes) -> int:
        return self._guest.registers.rip - len(code)

    def _out(self, port: int, code: bytes) -> VcpuExit:
        self._guest.exit_for_io(self._start(code), port, bytes([self._ax & 0xFF]), len(code))
        return self._guest.leave(VcpuExit(Exit.IO))

    def _halt(self, code: bytes) -> VcpuExit:
        run = self._guest.vcpu_run
        run.rip = self._start(code)
        run.exit(HLT)
        # KVM emulates it if the processor does not tell the next instruction.
        if not run.processor.next_rip:
            run.emulate_insn(run.rip, code, REAL, csbase=self._guest.registers.cs_base)
        return self._guest.leave(VcpuExit(Exit.HLT))

    def _rsm(self, code: bytes) -> VcpuExit | None:
        if code[1] != 0xAA or not self._guest.registers.in_smm:
            return self._guest.shut_down(self._start(code))
        self._guest.leave_smm(self._start(code), code)
        return None

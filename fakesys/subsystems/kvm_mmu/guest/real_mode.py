"""Real mode without hardware support for it: KVM emulates every instruction.

Follows vmx.c:handle_invalid_guest_state (v6.1) with the eight instructions that guests here use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fakesys.subsystems.kvm_mmu.guest.exits import ANSWERED, Exit, MmioType, VcpuExit
from fakesys.subsystems.kvm_mmu.guest.programs import CODE
from fakesys.subsystems.kvm_mmu.guest.vcpu_run import Guest
from fakesys.subsystems.kvm_mmu.shadow.vcpu import VcpuMmu
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory

# No flag of kvm_emulate_insn: CR0.PE is clear.
REAL_MODE = 0
# Ends a program that would run for ever.
MAX_STEPS = 10_000


class RealMode:
    """Runs 16-bit code at 0x1000 with all segments at 0."""

    def __init__(self, memory: VmMemory, vcpu: VcpuMmu, guest: Guest) -> None:
        self._memory = memory
        self._vcpu = vcpu
        self._guest = guest
        self._ax = 0
        self._dx = 0

    def run(self, code: bytes) -> list[VcpuExit]:
        """Run until an exit that is neither MMIO nor IO; return all exits.

        An instruction that is not known is an internal error. Stops after `MAX_STEPS` instructions.
        """
        self._memory.guest_memory.write(CODE, code)
        exits: list[VcpuExit] = []
        rip = CODE
        vcpu_exit = self._guest.begin()
        if vcpu_exit is not None:
            return [vcpu_exit]
        for _ in range(MAX_STEPS):
            self._guest.let_others_in()
            instruction = self._decode(rip)
            if instruction is None:
                exits.append(self._stop(Exit.INTERNAL_ERROR))
                return exits
            self._guest.vcpu_run.emulate_insn(rip, instruction.code, REAL_MODE)
            rip += len(instruction.code)
            vcpu_exit = instruction.execute(instruction.code)
            if vcpu_exit is None:
                continue
            exits.append(vcpu_exit)
            if vcpu_exit.reason not in ANSWERED:
                return exits
            vcpu_exit = self._guest.begin()
            if vcpu_exit is not None:
                return [*exits, vcpu_exit]
        return exits

    def _decode(self, rip: int) -> Instruction | None:
        head = self._memory.guest_memory.read(rip, 1)
        row = None if head is None else self._table().get(head[0])
        if row is None:
            return None
        length, execute = row
        code = self._memory.guest_memory.read(rip, length)
        return None if code is None else Instruction(code, execute)

    def _table(self) -> dict[int, tuple[int, Callable[[bytes], VcpuExit | None]]]:
        return {
            0x90: (1, lambda _code: None),
            0xA1: (3, self._load),
            0xA3: (3, self._store),
            0xB8: (3, self._mov_ax),
            0xBA: (3, self._mov_dx),
            0xE6: (2, lambda code: self._out(code[1])),
            0xEE: (1, lambda _code: self._out(self._dx)),
            0xF4: (1, lambda _code: self._halt()),
        }

    def _mov_ax(self, code: bytes) -> None:
        self._ax = int.from_bytes(code[1:], "little")

    def _mov_dx(self, code: bytes) -> None:
        self._dx = int.from_bytes(code[1:], "little")

    def _load(self, code: bytes) -> VcpuExit | None:
        gpa = int.from_bytes(code[1:], "little")
        data = self._memory.guest_memory.read(gpa, 2)
        if data is None:
            return self._mmio(gpa, write=False)
        self._ax = int.from_bytes(data, "little")
        return None

    def _store(self, code: bytes) -> VcpuExit | None:
        gpa = int.from_bytes(code[1:], "little")
        if self._memory.guest_memory.write(gpa, self._ax.to_bytes(2, "little")):
            return None
        return self._mmio(gpa, write=True)

    def _mmio(self, gpa: int, *, write: bool) -> VcpuExit:
        self._vcpu.stats.mmio_exits += 1
        kind = MmioType.WRITE if write else MmioType.UNSATISFIED_READ
        data = (self._ax if write else 0).to_bytes(2, "little")
        self._guest.vcpu_run.mmio(kind, gpa, data)
        return self._guest.leave(VcpuExit(Exit.MMIO, (gpa, write, 2)))

    def _out(self, port: int) -> VcpuExit:
        self._guest.vcpu_run.pio(port, bytes([self._ax & 0xFF]), write=True)
        return self._stop(Exit.IO)

    def _halt(self) -> VcpuExit:
        self._vcpu.stats.halt_exits += 1
        return self._stop(Exit.HLT)

    def _stop(self, reason: Exit) -> VcpuExit:
        return self._guest.leave(VcpuExit(reason))


class Instruction(NamedTuple):
    """One decoded instruction."""

    code: bytes
    execute: Callable[[bytes], VcpuExit | None]

"""Real mode without hardware support for it: every instruction is emulated by KVM."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fakesys.subsystems.kvm.events.guest import KvmMmio, KvmPio
from fakesys.subsystems.kvm_mmu.guest.programs import CODE, Exit, Guest, Left
from fakesys.subsystems.kvm_mmu.ops.roots import VcpuMmu
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory

REAL = 0
# A program without an end is not followed for ever.
MOST_STEPS = 10_000


class RealMode:
    """Runs a few instructions of 16-bit code, at 0x1000 with all segments at 0."""

    def __init__(self, memory: VmMemory, vcpu: VcpuMmu, guest: Guest) -> None:
        self._memory = memory
        self._vcpu = vcpu
        self._guest = guest
        self._ax = 0
        self._dx = 0

    def run(self, code: bytes) -> list[Left]:
        """Until an exit that is neither MMIO nor IO; all exits."""
        self._memory.guest_memory.write(CODE, code)
        exits: list[Left] = []
        rip = CODE
        self._guest.enter()
        for _ in range(MOST_STEPS):
            instruction = self._decode(rip)
            if instruction is None:
                exits.append(self._stop(Exit.INTERNAL_ERROR))
                return exits
            self._vcpu.stats.insn_emulation += 1
            self._guest.tell_emulated(rip, instruction.code, REAL)
            rip += len(instruction.code)
            left = instruction.execute(instruction.code)
            if left is None:
                continue
            exits.append(left)
            if left.reason not in (Exit.IO, Exit.MMIO):
                return exits
            self._guest.enter()
        return exits

    def _decode(self, rip: int) -> Instruction | None:
        head = self._memory.guest_memory.read(rip, 1)
        row = None if head is None else self._table().get(head[0])
        if row is None:
            return None
        length, execute = row
        code = self._memory.guest_memory.read(rip, length)
        return None if code is None else Instruction(code, execute)

    def _table(self) -> dict[int, tuple[int, Callable[[bytes], Left | None]]]:
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

    def _load(self, code: bytes) -> Left | None:
        gpa = int.from_bytes(code[1:], "little")
        data = self._memory.guest_memory.read(gpa, 2)
        if data is None:
            return self._mmio(gpa, write=False)
        self._ax = int.from_bytes(data, "little")
        return None

    def _store(self, code: bytes) -> Left | None:
        gpa = int.from_bytes(code[1:], "little")
        if self._memory.guest_memory.write(gpa, self._ax.to_bytes(2, "little")):
            return None
        return self._mmio(gpa, write=True)

    def _mmio(self, gpa: int, *, write: bool) -> Left:
        self._vcpu.stats.mmio_exits += 1
        bus = self._memory.kit.bus
        if KvmMmio in bus.wanted:
            value = self._ax if write else 0
            bus.emit(KvmMmio(type=2 if write else 0, len=2, gpa=gpa, val=value))
        left = Left(Exit.MMIO, (gpa, write, 2))
        self._guest.leave(left)
        return left

    def _out(self, port: int) -> Left:
        bus = self._memory.kit.bus
        if KvmPio in bus.wanted:
            value = self._ax & 0xFF
            bus.emit(KvmPio(rw=1, port=port, size=1, count=1, val=value))
        return self._stop(Exit.IO)

    def _halt(self) -> Left:
        self._vcpu.stats.halt_exits += 1
        return self._stop(Exit.HLT)

    def _stop(self, reason: Exit) -> Left:
        left = Left(reason)
        self._guest.leave(left)
        return left


class Instruction(NamedTuple):
    """One decoded instruction."""

    code: bytes
    execute: Callable[[bytes], Left | None]

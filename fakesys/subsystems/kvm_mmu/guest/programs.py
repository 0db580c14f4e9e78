"""What a vCPU does when it runs: it accesses memory, faults, has instructions emulated, exits.

The little programs and their machine code are those of the recordings (oracle/kvm).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from errno import EINVAL
from typing import NamedTuple

from fakesys.core.errors import KernelError
from fakesys.subsystems.kvm.events.guest import KvmEmulateInsn, KvmMmio, KvmPageFault, VcpuMatchMmio
from fakesys.subsystems.kvm.events.run import KvmFpu, KvmUserspaceExit
from fakesys.subsystems.kvm_mmu.ops.faults import RetPf
from fakesys.subsystems.kvm_mmu.ops.roots import Paging, VcpuMmu
from fakesys.subsystems.kvm_mmu.ops.walker import PF_FETCH, PF_USER, PF_WRITE
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory

CODE = 0x1000
DOORBELL_STUB = 0x1F00
DOORBELL = 0x3E00000
AFTER_DOORBELL = DOORBELL_STUB + 7
CR3 = 0x10000
# What the programs store: mov eax, 0x5a5a.
STORED = 0x5A5A
# Of one command, where each is looked at: no daemon is kept busy for ever.
MOST_STEPS = 1 << 20
# A fault that is retried this often will never be solved.
MOST_RETRIES = 16

# KVM_EMUL_INSN_F_CR0_PE | KVM_EMUL_INSN_F_CS_L
PROT64 = 9


class Exit(IntEnum):
    """Why KVM_RUN came back: KVM_EXIT_*."""

    IO = 2
    HLT = 5
    MMIO = 6
    SHUTDOWN = 8
    INTERNAL_ERROR = 17


class Mmio(IntEnum):
    """The field `type` of kvm_mmio."""

    UNSATISFIED_READ = 0
    READ = 1
    WRITE = 2


class Access(NamedTuple):
    """One access of the guest. `error`: PF_WRITE, PF_FETCH or 0. `data`: what is written."""

    address: int
    error: int
    data: bytes
    rip: int
    code: bytes


class Left(NamedTuple):
    """An exit to user space. `mmio`: address, is it a write, length. `errno`: instead of one."""

    reason: Exit | None
    mmio: tuple[int, bool, int] | None = None
    errno: int = 0


class Item(NamedTuple):
    """A step of a program: `r`, `w`, `x`, `w64`, `rloop`, `wloop`."""

    kind: str
    address: int
    value: int = 0
    times: int = 1
    stride: int = 4096


@dataclass(eq=False)
class Registers:
    """What of a vCPU's registers matters here. `mmio_data`: the buffer shared with user space."""

    rip: int = CODE
    real: bool = False
    ready: bool = False
    mmio_data: bytes = bytes(8)


class Guest:
    """One vCPU in action. `registers`: of this vCPU."""

    def __init__(self, memory: VmMemory, vcpu: VcpuMmu) -> None:
        self._memory = memory
        self._vcpu = vcpu
        self._bus = memory.kit.bus
        self.registers = Registers()

    def set_up(self, *, real: bool) -> None:
        """KVM_SET_SREGS: 64-bit user code with CR3 0x10000, or real mode; at 0x1000."""
        self.registers = Registers(real=real, ready=True)
        memory = self._memory
        if memory.kit.knobs.tdp:
            memory.roots.reset(self._vcpu, Paging.TDP, 0 if real else CR3)
        elif real:
            memory.roots.reset(self._vcpu, Paging.NONE, 0)
        else:
            memory.roots.reset(self._vcpu, Paging.LONG, CR3)

    def set_cr3(self, cr3: int) -> None:
        """KVM_SET_SREGS with that CR3 alone."""
        self._memory.roots.reset(self._vcpu, self._vcpu.paging, cr3)

    def enter(self) -> None:
        """KVM_RUN is called."""
        self._fpu(load=True)
        self._memory.roots.enter(self._vcpu)

    def run(self, items: Iterable[Item]) -> list[Left]:
        """The program: fetches from gfn 1, the items, the doorbell store. All exits but the last.

        Raises EINVAL unless the vCPU is in 64-bit mode, and for more than `MOST_STEPS` accesses.
        """
        items = list(items)
        if not self.registers.ready or self.registers.real:
            raise KernelError(EINVAL, "the vCPU is not set up for programs")
        if sum(item.times for item in items) > MOST_STEPS:
            raise KernelError(EINVAL, f"a program makes at most {MOST_STEPS} accesses")
        program = list(assemble(items))
        exits: list[Left] = []
        self.enter()
        fetches = {self.registers.rip, CODE}
        steps = [_fetch(rip) for rip in sorted(fetches, reverse=True)]
        steps += [*program, _store(DOORBELL, DOORBELL_STUB)]
        for step in steps:
            left = self.access(step)
            if left is None:
                continue
            exits.append(left)
            if left.reason is not Exit.MMIO:
                return exits
            if step is not steps[-1]:
                self.resume(left)
        self.registers.rip = AFTER_DOORBELL
        return exits[:-1]

    def resume(self, left: Left) -> None:
        """KVM_RUN again after an MMIO exit: a read is completed first."""
        self.enter()
        if left.mmio is None or left.mmio[1]:
            return
        address, _, length = left.mmio
        self._tell_mmio(Mmio.READ, address, self.registers.mmio_data[:length])

    def access(self, access: Access) -> Left | None:
        """The guest accesses memory; the exit to user space that it takes, if any."""
        memory, vcpu = self._memory, self._vcpu
        error = access.error | PF_USER
        for _ in range(MOST_RETRIES):
            if vcpu.requests or not vcpu.roots:
                memory.roots.enter(vcpu)
            if memory.faults.allows(vcpu, access.address, error):
                self._store(access)
                return None
            code = memory.faults.error_code(vcpu, access.address, error)
            vcpu.stats.exits += 1
            self._tell_fault(access, code)
            result = memory.faults.page_fault(vcpu, access.address, code)
            if result is RetPf.EMULATE:
                return self._emulate(access)
            if result is RetPf.GUEST:
                return self._leave(Left(Exit.SHUTDOWN))
            if result is RetPf.FAILED:
                break
        return self._fail()

    def _emulate(self, access: Access) -> Left | None:
        """Like x86.c:x86_emulate_instruction for a plain load or store."""
        vcpu = self._vcpu
        vcpu.stats.insn_emulation += 1
        if vcpu.paging is Paging.LONG:
            self._memory.walker.walk(vcpu.cr3, access.rip, PF_USER | PF_FETCH)
        self.tell_emulated(access.rip, access.code, PROT64)
        write = bool(access.error & PF_WRITE)
        gpa, is_mmio = self._translate(access.address, write)
        if gpa is None:
            return self._leave(Left(Exit.SHUTDOWN))
        if not is_mmio:
            if write and self._memory.guest_memory.write(gpa, access.data):
                self._memory.pte_writer.wrote(gpa, access.data)
                return None
            if not write and self._memory.guest_memory.read(gpa, 1) is not None:
                return None
        vcpu.stats.mmio_exits += 1
        length = len(access.data)
        if write:
            self.registers.mmio_data = access.data.ljust(8, b"\0")
            self._tell_mmio(Mmio.WRITE, gpa, access.data)
        else:
            self._tell_mmio(Mmio.UNSATISFIED_READ, gpa, bytes(length))
        return self._leave(Left(Exit.MMIO, (gpa, write, length)))

    def _translate(self, address: int, write: bool) -> tuple[int | None, bool]:
        """Guest physical address, and is it known to be MMIO. Like x86.c:vcpu_mmio_gva_to_gpa."""
        memory, vcpu = self._memory, self._vcpu
        cached = memory.mmio.match_gva(vcpu, address)
        if cached is not None:
            self._tell_match(address, cached, write, by_gpa=False)
            return cached, True
        gpa = address
        if vcpu.paging is Paging.LONG:
            walk = memory.walker.walk(vcpu.cr3, address, PF_USER | (PF_WRITE if write else 0))
            if walk is None:
                return None, False
            gpa = walk.gfn << 12 | address & 0xFFF
        matches = memory.mmio.match_gpa(vcpu, gpa)
        if matches:
            self._tell_match(address, gpa, write, by_gpa=True)
        return gpa, matches

    def _store(self, access: Access) -> None:
        """The bytes of a store that nobody had to look at."""
        if not access.error & PF_WRITE or self._memory.kit.knobs.tdp:
            return
        row, index, level = self._memory.faults.lookup(self._vcpu, access.address)
        gfn = self._memory.setter.gfn_of(row, index)
        gfn += (access.address >> 12) & (1 << 9 * (level - 1)) - 1
        slot = self._memory.slots.find(gfn)
        if slot is not None and slot.memory is not None:
            slot.memory.write(slot.page(gfn) << 12 | access.address & 0xFFF, access.data)

    def _fail(self) -> Left:
        """KVM_RUN itself fails: -EFAULT."""
        self._fpu(load=False)
        if KvmUserspaceExit in self._bus.wanted:
            self._bus.emit(KvmUserspaceExit(reason=0, errno=-14))
        return Left(None, errno=14)

    def _leave(self, left: Left) -> Left:
        self.leave(left)
        return left

    def leave(self, left: Left) -> None:
        """Back to user space."""
        self._fpu(load=False)
        if KvmUserspaceExit in self._bus.wanted:
            reason = int(left.reason or 0)
            self._bus.emit(KvmUserspaceExit(reason=reason, errno=0))

    def tell_emulated(self, rip: int, code: bytes, mode: int) -> None:
        """The event of an instruction that is emulated."""
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

    def _fpu(self, *, load: bool) -> None:
        if KvmFpu in self._bus.wanted:
            self._bus.emit(KvmFpu(load=int(load)))

    def _tell_mmio(self, kind: Mmio, gpa: int, data: bytes) -> None:
        if KvmMmio in self._bus.wanted:
            value = int.from_bytes(data, "little")
            self._bus.emit(KvmMmio(type=int(kind), len=len(data), gpa=gpa, val=value))

    def _tell_match(self, gva: int, gpa: int, write: bool, *, by_gpa: bool) -> None:
        if VcpuMatchMmio in self._bus.wanted:
            event = VcpuMatchMmio(gva=gva, gpa=gpa, write=write, gpa_match=by_gpa)
            self._bus.emit(event)

    def _tell_fault(self, access: Access, code: int) -> None:
        if KvmPageFault not in self._bus.wanted or self._vcpu.paging is not Paging.TDP:
            return
        event = KvmPageFault(
            vcpu_id=self._vcpu.id,
            guest_rip=access.rip,
            fault_address=access.address,
            error_code=code,
        )
        self._bus.emit(event)


def assemble(items: Iterable[Item]) -> Iterable[Access]:
    """The accesses of a program, each with its instruction and where that stands."""
    rip = CODE + 5
    for item in items:
        if item.kind == "x":
            yield _fetch(item.address)
            rip += 7
        elif item.kind == "w64":
            code = b"\x48\x89\x14\x25" + _low(item.address)
            yield Access(item.address, PF_WRITE, item.value.to_bytes(8, "little"), rip + 10, code)
            rip += 18
        elif item.kind == "w":
            yield _store(item.address, rip)
            rip += 7
        elif item.kind == "r":
            yield _load(item.address, rip)
            rip += 7
        else:
            yield from _loop(item, rip + 10)
            rip += 23


def _loop(item: Item, rip: int) -> Iterable[Access]:
    """mov esi, address; mov ecx, count; then `mov [rsi], eax` or `mov eax, [rsi]`, and on."""
    write = item.kind == "wloop"
    code = b"\x89\x06" if write else b"\x8b\x06"
    data = STORED.to_bytes(4, "little")
    for number in range(item.times):
        address = item.address + number * item.stride
        yield Access(address, PF_WRITE if write else 0, data, rip, code)


def _fetch(rip: int) -> Access:
    return Access(rip, PF_FETCH, b"", rip, b"")


def _store(address: int, rip: int) -> Access:
    code = b"\x89\x04\x25" + _low(address)
    return Access(address, PF_WRITE, STORED.to_bytes(4, "little"), rip, code)


def _load(address: int, rip: int) -> Access:
    return Access(address, 0, bytes(4), rip, b"\x8b\x0c\x25" + _low(address))


def _low(address: int) -> bytes:
    return (address & 0xFFFFFFFF).to_bytes(4, "little")


def plain_access(kind: str, address: int, rip: int, value: int | None) -> Access:
    """One load (`r`), store (`w`) or fetch (`x`) of a guest that runs no program of ours."""
    if kind == "x":
        return _fetch(address)
    if kind == "r":
        return _load(address, rip)
    store = _store(address, rip)
    return store if value is None else store._replace(data=value.to_bytes(8, "little"))


def guest_tables(memory: VmMemory, *, regions: int = 32, large: Iterable[int] = ()) -> None:
    """Write an identity map of `regions` times 2 MiB into slot 0, as in the recordings.

    Raises EINVAL without memory in slot 0, or where its memory does not suffice.
    """
    slot = memory.slots.by_id.get(0)
    if slot is None or slot.memory is None or slot.base_gfn:
        raise KernelError(EINVAL, "slot 0 has no memory at gpa 0")
    last = 0x20000 + regions * 4096
    if not 0 < regions <= 512 or last > slot.npages << 12:
        raise KernelError(EINVAL, f"no room for {regions} page tables")
    big = set(large)
    base = slot.page(0) << 12

    def put(gpa: int, entry: int) -> None:
        assert slot.memory is not None
        slot.memory.write(base + gpa, entry.to_bytes(8, "little"))

    put(0x10000, 0x11000 | 7)
    put(0x11000, 0x12000 | 7)
    for region in range(regions):
        start, table = region << 21, 0x20000 + region * 4096
        put(0x12000 + region * 8, start | 0x87 if region in big else table | 7)
        for index in range(512):
            put(table + index * 8, start + index * 4096 | 7)

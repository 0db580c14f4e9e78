"""Small guest programs: what a guest accesses, by which instruction, and where that lies.

A program fetches from gfn 1, executes its operations in turn and ends with a store to the
doorbell, an address without memory, which is an MMIO exit.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from fakesys.subsystems.kvm_mmu.shadow.walk import PF_FETCH, PF_WRITE

CODE = 0x1000
DOORBELL_STUB = 0x1F00
DOORBELL = 0x3E00000
STACK = 0x8000
AFTER_DOORBELL = DOORBELL_STUB + 7
# What the programs store: mov eax, 0x5a5a.
STORED = 0x5A5A
# Of one command, where each is handled on its own: no command keeps the daemon busy for ever.
MAX_STEPS = 1 << 20


class Access(NamedTuple):
    """One access of the guest. `error`: PF_WRITE, PF_FETCH or 0. `data`: what is written.

    `rip`, `code`: where the instruction is, and its bytes.
    """

    address: int
    error: int
    data: bytes
    rip: int
    code: bytes


class GuestOp(NamedTuple):
    """One operation of a program: `r`, `w`, `x`, `w64`, `rloop` or `wloop`.

    `value`: what `w64` stores. `times`, `stride`: of the loops; the stride is in bytes.
    """

    kind: str
    address: int
    value: int = 0
    times: int = 1
    stride: int = 4096


def assemble(ops: Iterable[GuestOp], *, calls: bool = False) -> Iterable[Access]:
    """Yield the accesses of a program, each with its instruction and the address of that.

    `calls`: `x` calls the address, so that the stack is written.
    """
    rip = CODE + 5
    for op in ops:
        if op.kind == "x":
            if calls:
                # mov eax, address; call rax
                data = (rip + 7).to_bytes(8, "little")
                yield Access(STACK - 8, PF_WRITE, data, rip + 5, b"\xff\xd0")
            yield fetch(op.address)
            rip += 7
        elif op.kind == "w64":
            code = b"\x48\x89\x14\x25" + _low(op.address)
            yield Access(op.address, PF_WRITE, op.value.to_bytes(8, "little"), rip + 10, code)
            rip += 18
        elif op.kind == "w":
            yield store(op.address, rip)
            rip += 7
        elif op.kind == "r":
            yield load(op.address, rip)
            rip += 7
        else:
            yield from _loop(op, rip + 10)
            rip += 23


def _loop(op: GuestOp, rip: int) -> Iterable[Access]:
    """Yield the accesses of a loop.

    The code is mov esi, address; mov ecx, count; then mov [rsi], eax or mov eax, [rsi], and so on.
    """
    write = op.kind == "wloop"
    code = b"\x89\x06" if write else b"\x8b\x06"
    data = STORED.to_bytes(4, "little")
    for number in range(op.times):
        address = op.address + number * op.stride
        yield Access(address, PF_WRITE if write else 0, data, rip, code)


def fetch(rip: int) -> Access:
    """Return the fetch of an instruction."""
    return Access(rip, PF_FETCH, b"", rip, b"")


def store(address: int, rip: int) -> Access:
    """Return a store of `STORED`: mov [address], eax."""
    code = b"\x89\x04\x25" + _low(address)
    return Access(address, PF_WRITE, STORED.to_bytes(4, "little"), rip, code)


def load(address: int, rip: int) -> Access:
    """Return a load: mov ecx, [address]."""
    return Access(address, 0, bytes(4), rip, b"\x8b\x0c\x25" + _low(address))


def _low(address: int) -> bytes:
    return (address & 0xFFFFFFFF).to_bytes(4, "little")


def single_access(kind: str, address: int, rip: int, value: int | None) -> Access:
    """Return one load (`r`), store (`w`) or fetch (`x`) outside of a program.

    `value`: what the store writes, as 8 bytes, instead of `STORED`.
    """
    if kind == "x":
        return fetch(address)
    if kind == "r":
        return load(address, rip)
    access = store(address, rip)
    return access if value is None else access._replace(data=value.to_bytes(8, "little"))

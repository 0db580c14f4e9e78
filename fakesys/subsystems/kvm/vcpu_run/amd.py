"""EXITINFO1 and EXITINFO2 of AMD's processors (AMD manual volume 2, chapter 15)."""

from __future__ import annotations

from fakesys.subsystems.kvm.vcpu_run.reasons import ExitInfo

# Bits of the error code of a nested page fault: at the final address, or in the guest's own tables.
FINAL, IN_TABLES = 1 << 32, 1 << 33
_IN = 1
_SIZES = {1: 1 << 4, 2: 1 << 5, 4: 1 << 6}
_ADDRESS = {16: 1 << 7, 32: 1 << 8, 64: 1 << 9}
_STRING, _REP = 1 << 2, 1 << 3
_MOV_CR = 1 << 63


def io(
    port: int, size: int, *, write: bool, next_rip: int, string: bool = False, address: int = 64
) -> ExitInfo:
    """Return the details of IN or OUT. `address`: bits of an address, 0 if that is not told.

    `next_rip`: behind the instruction.
    """
    info1 = port << 16 | _SIZES[size] | (0 if write else _IN) | _ADDRESS.get(address, 0)
    if string:
        info1 |= _STRING | _REP
    return ExitInfo(info1, next_rip)


def nested_fault(gpa: int, error: int, *, in_tables: bool) -> ExitInfo:
    """Return the details of a nested page fault. `in_tables`: at an entry of the guest's tables."""
    return ExitInfo(error | (IN_TABLES if in_tables else FINAL), gpa)


def page_fault(address: int, error: int) -> ExitInfo:
    """Return the details of an intercepted #PF."""
    return ExitInfo(error, address)


def msr(*, write: bool) -> ExitInfo:
    """Return the details of RDMSR or WRMSR."""
    return ExitInfo(int(write))


def cr(number: int, *, write: bool, decodes: bool) -> ExitInfo:
    """Return the details of MOV to or from a control register; the general register is RAX."""
    return ExitInfo(_MOV_CR if decodes else 0)


def exception(vector: int, code: int | None) -> ExitInfo:
    """Return the details of an intercepted exception. `code`: None if it has no error code."""
    return ExitInfo(code or 0)

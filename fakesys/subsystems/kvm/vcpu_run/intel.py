"""The exit qualification of Intel's processors (Intel manual volume 3, chapter 28)."""

from __future__ import annotations

from fakesys.subsystems.kvm.vcpu_run.reasons import NO_INFO, PAGE_FAULT_VECTOR, ExitInfo

_IN, _STRING, _REP = 1 << 3, 1 << 4, 1 << 5
_WRITE, _FETCH = 1 << 1, 1 << 4
_PRESENT = 1
# A hardware exception with an error code; valid.
_VALID, _HARDWARE = 1 << 31, 3 << 8
_EXCEPTION = _VALID | 1 << 11 | _HARDWARE
_FROM_CR = 1 << 4
# Of an EPT violation: what was tried, what the entry allows, and that a linear address is known.
_READ_TRIED, _WRITE_TRIED, _FETCH_TRIED = 1 << 0, 1 << 1, 1 << 2
_READABLE, _WRITABLE, _EXECUTABLE = 1 << 3, 1 << 4, 1 << 5
_LINEAR_VALID, _FINAL = 1 << 7, 1 << 8


def io(
    port: int, size: int, *, write: bool, next_rip: int, string: bool = False, address: int = 64
) -> ExitInfo:
    """Return the details of IN or OUT; `next_rip` and `address` are not among them."""
    info1 = port << 16 | size - 1 | (0 if write else _IN)
    return ExitInfo(info1 | _STRING | _REP if string else info1)


def nested_fault(gpa: int, error: int, *, in_tables: bool) -> ExitInfo:
    """Return the details of an EPT violation; the address itself is not among them."""
    tried = _FETCH_TRIED if error & _FETCH else _WRITE_TRIED if error & _WRITE else _READ_TRIED
    # An entry that is present forbids what was tried, which is a write.
    allowed = _READABLE | _EXECUTABLE if error & _PRESENT else 0
    if error & _PRESENT and not error & _WRITE:
        allowed = _READABLE | _WRITABLE
    return ExitInfo(tried | allowed | _LINEAR_VALID | (0 if in_tables else _FINAL))


def page_fault(address: int, error: int) -> ExitInfo:
    """Return the details of an intercepted #PF."""
    return ExitInfo(address, 0, _EXCEPTION | PAGE_FAULT_VECTOR, error)


def msr(*, write: bool) -> ExitInfo:
    """Return the details of RDMSR or WRMSR: none, as the reason tells which."""
    return NO_INFO


def cr(number: int, *, write: bool, decodes: bool) -> ExitInfo:
    """Return the details of MOV to or from a control register; the general register is RAX."""
    return ExitInfo(number | (0 if write else _FROM_CR))


def exception(vector: int, code: int | None) -> ExitInfo:
    """Return the details of an intercepted exception. `code`: None if it has no error code."""
    if code is None:
        return ExitInfo(0, 0, _VALID | _HARDWARE | vector)
    return ExitInfo(0, 0, _EXCEPTION | vector, code)

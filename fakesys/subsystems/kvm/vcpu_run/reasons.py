"""Why a guest is left: the numbers of both vendors, and the counter that goes with each."""

from __future__ import annotations

from typing import NamedTuple

from fakesys.subsystems.kvm.exits import SVM_EXCEPTIONS


class Reason(NamedTuple):
    """One reason. `svm`, `vmx`: its numbers, -1 where the vendor has none.

    `counter`: the field of VcpuStats that counts these exits besides `exits`; empty for none.
    """

    svm: int
    vmx: int
    counter: str = ""


class ExitInfo(NamedTuple):
    """What the processor reports of an exit; see `struct kvm_exit` in trace.h (v6.1)."""

    info1: int = 0
    info2: int = 0
    intr_info: int = 0
    error_code: int = 0


NO_INFO = ExitInfo()

PAGE_FAULT_VECTOR = 14

# VMX reports every exception as EXCEPTION_NMI.
PAGE_FAULT = Reason(SVM_EXCEPTIONS + PAGE_FAULT_VECTOR, 0)
INTERRUPT = Reason(0x60, 1, "irq_exits")
WINDOW = Reason(0x64, 7, "irq_window_exits")
NMI_WINDOW = Reason(0x74, 8, "nmi_window_exits")
RSM = Reason(0x73, -1)
HLT = Reason(0x78, 12, "halt_exits")
INVLPG = Reason(0x79, 14, "invlpg")
IO = Reason(0x7B, 30, "io_exits")
RDMSR = Reason(0x7C, 31)
WRMSR = Reason(0x7C, 32)
CPUID = Reason(0x72, 10)
SHUTDOWN = Reason(0x7F, 2)
VMRUN = Reason(0x80, 20)
VMMCALL = Reason(0x81, 18, "hypercalls")
NESTED_FAULT = Reason(0x400, 48)
# On VMX an access to an MMIO spte has a reason of its own.
MISCONFIG = Reason(0x400, 49)
INCOMPLETE_IPI = Reason(0x401, 56)
UNACCELERATED = Reason(0x402, 44)

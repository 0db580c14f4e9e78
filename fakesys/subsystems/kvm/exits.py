"""Exit reasons of Intel's and AMD's processors, with the names that KVM prints."""

from __future__ import annotations

from typing import NamedTuple

from fakesys.subsystems.kvm.symbols import Flags, Symbols, wide

VMX = 1
SVM = 2
"""Values of the field `isa`."""


def _svm(value: int, name: str) -> str:
    if value < 0:
        return wide(value, name)
    if SVM_EXCEPTIONS <= value < SVM_EXCEPTIONS + 32:
        return f'{{ 0x040 + {value - SVM_EXCEPTIONS}, "{name}" }}'
    return f'{{ 0x{value:03x}, "{name}" }}'


SVM_EXCEPTIONS = 0x40
"""Exit code of exception 0."""

_VMX = {
    0: "EXCEPTION_NMI",
    1: "EXTERNAL_INTERRUPT",
    2: "TRIPLE_FAULT",
    3: "INIT_SIGNAL",
    4: "SIPI_SIGNAL",
    7: "INTERRUPT_WINDOW",
    8: "NMI_WINDOW",
    9: "TASK_SWITCH",
    10: "CPUID",
    12: "HLT",
    13: "INVD",
    14: "INVLPG",
    15: "RDPMC",
    16: "RDTSC",
    18: "VMCALL",
    19: "VMCLEAR",
    20: "VMLAUNCH",
    21: "VMPTRLD",
    22: "VMPTRST",
    23: "VMREAD",
    24: "VMRESUME",
    25: "VMWRITE",
    26: "VMOFF",
    27: "VMON",
    28: "CR_ACCESS",
    29: "DR_ACCESS",
    30: "IO_INSTRUCTION",
    31: "MSR_READ",
    32: "MSR_WRITE",
    33: "INVALID_STATE",
    34: "MSR_LOAD_FAIL",
    36: "MWAIT_INSTRUCTION",
    37: "MONITOR_TRAP_FLAG",
    39: "MONITOR_INSTRUCTION",
    40: "PAUSE_INSTRUCTION",
    41: "MCE_DURING_VMENTRY",
    43: "TPR_BELOW_THRESHOLD",
    44: "APIC_ACCESS",
    45: "EOI_INDUCED",
    46: "GDTR_IDTR",
    47: "LDTR_TR",
    48: "EPT_VIOLATION",
    49: "EPT_MISCONFIG",
    50: "INVEPT",
    51: "RDTSCP",
    52: "PREEMPTION_TIMER",
    53: "INVVPID",
    54: "WBINVD",
    55: "XSETBV",
    56: "APIC_WRITE",
    57: "RDRAND",
    58: "INVPCID",
    59: "VMFUNC",
    60: "ENCLS",
    61: "RDSEED",
    62: "PML_FULL",
    63: "XSAVES",
    64: "XRSTORS",
    67: "UMWAIT",
    68: "TPAUSE",
    74: "BUS_LOCK",
    75: "NOTIFY",
}
_LATER_VMX = {77: "TDCALL", 84: "MSR_READ_IMM", 85: "MSR_WRITE_IMM"}

_SVM = {
    0x000: "read_cr0",
    0x002: "read_cr2",
    0x003: "read_cr3",
    0x004: "read_cr4",
    0x008: "read_cr8",
    0x010: "write_cr0",
    0x012: "write_cr2",
    0x013: "write_cr3",
    0x014: "write_cr4",
    0x018: "write_cr8",
    0x020: "read_dr0",
    0x021: "read_dr1",
    0x022: "read_dr2",
    0x023: "read_dr3",
    0x024: "read_dr4",
    0x025: "read_dr5",
    0x026: "read_dr6",
    0x027: "read_dr7",
    0x030: "write_dr0",
    0x031: "write_dr1",
    0x032: "write_dr2",
    0x033: "write_dr3",
    0x034: "write_dr4",
    0x035: "write_dr5",
    0x036: "write_dr6",
    0x037: "write_dr7",
    SVM_EXCEPTIONS + 0: "DE excp",
    SVM_EXCEPTIONS + 1: "DB excp",
    SVM_EXCEPTIONS + 3: "BP excp",
    SVM_EXCEPTIONS + 4: "OF excp",
    SVM_EXCEPTIONS + 5: "BR excp",
    SVM_EXCEPTIONS + 6: "UD excp",
    SVM_EXCEPTIONS + 7: "NM excp",
    SVM_EXCEPTIONS + 8: "DF excp",
    SVM_EXCEPTIONS + 10: "TS excp",
    SVM_EXCEPTIONS + 11: "NP excp",
    SVM_EXCEPTIONS + 12: "SS excp",
    SVM_EXCEPTIONS + 13: "GP excp",
    SVM_EXCEPTIONS + 14: "PF excp",
    SVM_EXCEPTIONS + 16: "MF excp",
    SVM_EXCEPTIONS + 17: "AC excp",
    SVM_EXCEPTIONS + 18: "MC excp",
    SVM_EXCEPTIONS + 19: "XF excp",
    0x060: "interrupt",
    0x061: "nmi",
    0x062: "smi",
    0x063: "init",
    0x064: "vintr",
    0x065: "cr0_sel_write",
    0x066: "read_idtr",
    0x067: "read_gdtr",
    0x068: "read_ldtr",
    0x069: "read_rt",
    0x06A: "write_idtr",
    0x06B: "write_gdtr",
    0x06C: "write_ldtr",
    0x06D: "write_rt",
    0x06E: "rdtsc",
    0x06F: "rdpmc",
    0x070: "pushf",
    0x071: "popf",
    0x072: "cpuid",
    0x073: "rsm",
    0x074: "iret",
    0x075: "swint",
    0x076: "invd",
    0x077: "pause",
    0x078: "hlt",
    0x079: "invlpg",
    0x07A: "invlpga",
    0x07B: "io",
    0x07C: "msr",
    0x07D: "task_switch",
    0x07E: "ferr_freeze",
    0x07F: "shutdown",
    0x080: "vmrun",
    0x081: "hypercall",
    0x082: "vmload",
    0x083: "vmsave",
    0x084: "stgi",
    0x085: "clgi",
    0x086: "skinit",
    0x087: "rdtscp",
    0x088: "icebp",
    0x089: "wbinvd",
    0x08A: "monitor",
    0x08B: "mwait",
    0x08D: "xsetbv",
    0x08F: "write_efer_trap",
    0x090: "write_cr0_trap",
    0x094: "write_cr4_trap",
    0x098: "write_cr8_trap",
    0x0A2: "invpcid",
}
_LATER_SVM = {0x0A5: "buslock", 0x0A6: "idle-halt"}
_LAST_SVM = {
    0x400: "npf",
    0x401: "avic_incomplete_ipi",
    0x402: "avic_unaccelerated_access",
    0x403: "vmgexit",
    0x80000001: "vmgexit_mmio_read",
    0x80000002: "vmgexit_mmio_write",
    0x80000003: "vmgexit_nmi_complete",
    0x80000004: "vmgexit_ap_hlt_loop",
    0x80000005: "vmgexit_ap_jump_table",
    0x80000010: "vmgexit_page_state_change",
    0x80000011: "vmgexit_guest_request",
    0x80000012: "vmgexit_ext_guest_request",
    0x80000013: "vmgexit_ap_creation",
    0x8000FFFD: "vmgexit_hypervisor_feature",
    -1: "invalid_guest_state",
}

VMX_FLAGS = Flags(
    {0x80000000: "FAILED_VMENTRY"}, " ", lambda mask, name: f'{{ 0x{mask:x}, "{name}" }}'
)


class Reasons(NamedTuple):
    """The names of one kernel for the exits of both kinds of processors."""

    vmx: Symbols
    svm: Symbols

    def name(self, reason: int, isa: int) -> str:
        """Return the reason as events print it. Like trace.h:kvm_print_exit_reason (v6.1)."""
        if isa != VMX:
            return self.svm.name(reason)
        flags = reason & ~0xFFFF
        name = self.vmx.name(reason & 0xFFFF)
        return f"{name} {VMX_FLAGS.names(flags)}" if flags else name

    def unflagged_name(self, reason: int, isa: int) -> str:
        """Return the reason as events printed it before they split off the flags (until 5.9)."""
        return (self.vmx if isa == VMX else self.svm).name(reason)

    def format(self, field: str) -> str:
        """Return the arguments of a print fmt that name the reason in `field`."""
        return (
            f"(REC->isa == 1) ? __print_symbolic(REC->{field} & 0xffff, {self.vmx.listing})"
            f" : __print_symbolic(REC->{field}, {self.svm.listing}),"
            f' (REC->isa == 1 && REC->{field} & ~0xffff) ? " " : "",'
            f" (REC->isa == 1) ?"
            f' __print_flags(REC->{field} & ~0xffff, " ", {VMX_FLAGS.listing}) : ""'
        )

    def unflagged_format(self, field: str) -> str:
        """Return the argument of a print fmt that names the reason, flags not split off."""
        return (
            f"(REC->isa == 1) ? __print_symbolic(REC->{field}, {self.vmx.listing})"
            f" : __print_symbolic(REC->{field}, {self.svm.listing})"
        )


REASONS = Reasons(Symbols(_VMX | _LATER_VMX, wide), Symbols(_SVM | _LATER_SVM | _LAST_SVM, _svm))
# Until 6.12. Reasons that came with processors before that are in the table of every kernel.
OLD_REASONS = Reasons(Symbols(_VMX, wide), Symbols(_SVM | _LAST_SVM, _svm))

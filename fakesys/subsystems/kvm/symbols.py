"""Names that KVM's events print for numbers, and how their `format` files list them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping


class Symbols:
    """A table of names. `entry` spells one entry as the `format` file does."""

    def __init__(self, names: Mapping[int, str], entry: Callable[[int, str], str]) -> None:
        self._names = dict(names)
        self.listing = ", ".join(entry(value, name) for value, name in names.items())

    def items(self) -> Iterable[tuple[int, str]]:
        """Return each number with its name."""
        return self._names.items()

    def name(self, value: int) -> str:
        """Return the name of a number, the number in hex if it has none.

        Like kernel/trace/trace_output.c:trace_print_symbols_seq (v6.1).
        """
        name = self._names.get(value)
        return f"{value:#x}" if name is None else name


class Flags:
    """A table of names of bits, in the order in which they are printed."""

    def __init__(
        self, names: Mapping[int, str], separator: str, entry: Callable[[int, str], str]
    ) -> None:
        self._names = tuple(names.items())
        self._separator = separator
        self.listing = ", ".join(entry(mask, name) for mask, name in names.items())

    def names(self, value: int) -> str:
        """Return the names of the bits, then those without a name in hex; nothing for 0.

        Like kernel/trace/trace_output.c:trace_print_flags_seq (v6.1).
        """
        words = []
        for mask, name in self._names:
            if value & mask == mask:
                words.append(name)
                value &= ~mask
        if value:
            words.append(f"{value:#x}")
        return self._separator.join(words)


def _tight(value: int, name: str) -> str:
    return f'{{{value}, "{name}"}}'


def _tight_hex(value: int, name: str) -> str:
    return f'{{0x{value:x}, "{name}"}}'


def wide(value: int, name: str) -> str:
    """Return an entry with blanks inside the braces, as `{ 1, "NAME" }`."""
    return f'{{ {value}, "{name}" }}'


def _prefixed(prefix: str, form: str) -> Callable[[int, str], str]:
    """Return a speller of two adjacent C strings: the prefix that a macro adds, and the name."""

    def entry(value: int, name: str) -> str:
        return f'{{ {format(value, form)}, "{prefix}" "{name.removeprefix(prefix)}" }}'

    return entry


def _bit(spell: Callable[[int, str], str]) -> Callable[[int, str], str]:
    """Return a speller of a bit as BIT() expands: `((((1UL))) << (NUMBER))`."""

    def entry(mask: int, name: str) -> str:
        return f'{{ ((((1UL))) << ({spell(mask.bit_length() - 1, name)})), "{name}" }}'

    return entry


def signed32(value: int) -> int:
    """Return what `%d` prints of 32 bits."""
    return value - (1 << 32) if value >> 31 else value


def unsigned32(value: int) -> int:
    """Return what `%u` prints of 32 bits."""
    return value & 0xFFFFFFFF


def signed64(value: int) -> int:
    """Return what `%lld` prints of 64 bits."""
    return value - (1 << 64) if value >> 63 else value


IRQCHIPS = Symbols({0: "PIC master", 1: "PIC slave", 2: "IOAPIC"}, _tight)
DELIVERY_MODES = Symbols(
    dict(enumerate(("Fixed", "LowPrio", "SMI", "Res3", "NMI", "INIT", "SIPI", "ExtINT"))),
    _tight_hex,
)
DESTINATIONS = Symbols(dict(enumerate(("dst", "self", "all", "all-but-self"))), _tight_hex)
LOADS = Symbols({0: "unload", 1: "load"}, _tight)
MMIO_KINDS = Symbols({0: "unsatisfied-read", 1: "read", 2: "write"}, wide)
HOST_CLOCKS = Symbols(
    {0: "none", 1: "tsc"},
    lambda _value, name: f'{{VDSO_CLOCKMODE_{name.upper()}, "{name}"}}',
)

_MODE_BITS = {
    0: "0",
    3: "(1 << 0) | (1 << 1)",
    1: "(1 << 0)",
    5: "(1 << 0) | (1 << 2)",
    9: "(1 << 0) | (1 << 3)",
}
MODES = Symbols(
    {0: "real", 3: "vm16", 1: "prot16", 5: "prot32", 9: "prot64"},
    lambda value, name: f'{{ {_MODE_BITS[value]}, "{name}" }}',
)

APIC_REGISTERS = Symbols(
    {
        0x20: "APIC_ID",
        0x30: "APIC_LVR",
        0x80: "APIC_TASKPRI",
        0x90: "APIC_ARBPRI",
        0xA0: "APIC_PROCPRI",
        0xB0: "APIC_EOI",
        0xC0: "APIC_RRR",
        0xD0: "APIC_LDR",
        0xE0: "APIC_DFR",
        0xF0: "APIC_SPIV",
        0x100: "APIC_ISR",
        0x180: "APIC_TMR",
        0x200: "APIC_IRR",
        0x280: "APIC_ESR",
        0x300: "APIC_ICR",
        0x310: "APIC_ICR2",
        0x320: "APIC_LVTT",
        0x330: "APIC_LVTTHMR",
        0x340: "APIC_LVTPC",
        0x350: "APIC_LVT0",
        0x360: "APIC_LVT1",
        0x370: "APIC_LVTERR",
        0x380: "APIC_TMICT",
        0x390: "APIC_TMCCT",
        0x3E0: "APIC_TDCR",
        0x3F0: "APIC_SELF_IPI",
        0x400: "APIC_EFEAT",
        0x410: "APIC_ECTRL",
    },
    lambda value, name: f'{{ 0x{value:X}, "APIC_" "{name.removeprefix("APIC_")}" }}',
)

_OLD_EXCEPTIONS = {
    0: "#DE",
    1: "#DB",
    3: "#BP",
    4: "#OF",
    5: "#BR",
    6: "#UD",
    7: "#NM",
    8: "#DF",
    10: "#TS",
    11: "#NP",
    12: "#SS",
    13: "#GP",
    14: "#PF",
    16: "#MF",
    17: "#AC",
    18: "#MC",
}
# Until 6.1 the table ended at machine checks.
OLD_EXCEPTIONS = Symbols(_OLD_EXCEPTIONS, _prefixed("#", "d"))
EXCEPTIONS = Symbols(
    _OLD_EXCEPTIONS | {19: "#XM", 20: "#VE", 21: "#CP", 28: "#HV", 29: "#VC", 30: "#SX"},
    _prefixed("#", "d"),
)

_USER_EXITS = (
    "UNKNOWN EXCEPTION IO HYPERCALL DEBUG HLT MMIO IRQ_WINDOW_OPEN SHUTDOWN FAIL_ENTRY INTR"
    " SET_TPR TPR_ACCESS S390_SIEIC S390_RESET DCR NMI INTERNAL_ERROR OSI PAPR_HCALL"
    " S390_UCONTROL WATCHDOG S390_TSCH EPR SYSTEM_EVENT S390_STSI IOAPIC_EOI HYPERV ARM_NISV"
    " X86_RDMSR X86_WRMSR"
)
USER_EXITS = Symbols(
    {number: f"KVM_EXIT_{name}" for number, name in enumerate(_USER_EXITS.split())},
    _prefixed("KVM_EXIT_", "d"),
)

# arch/x86/include/asm/vmx.h:enum vm_instruction_error_number (v6.1).
_VM_ENTRY_ERRORS = {
    4: "VMLAUNCH_NONCLEAR_VMCS",
    5: "VMRESUME_NONLAUNCHED_VMCS",
    6: "VMRESUME_AFTER_VMXOFF",
    7: "VMENTRY_INVALID_CONTROL_FIELD",
    8: "VMENTRY_INVALID_HOST_STATE_FIELD",
    26: "VMENTRY_EVENTS_BLOCKED_BY_MOV_SS",
}
VM_ENTRY_ERRORS = Symbols(
    _VM_ENTRY_ERRORS,
    lambda _value, name: f'{{ VMXERR_{name.replace("VMENTRY", "ENTRY")}, "{name}" }}',
)

# Page fault error codes of system kvmmmu; older tables, here in both spellings, knew no PK, SS and
# SGX.
FAULT_FLAGS = Flags(
    {
        1 << 0: "P",
        1 << 1: "W",
        1 << 2: "U",
        1 << 5: "PK",
        1 << 6: "SS",
        1 << 15: "SGX",
        1 << 3: "RSVD",
        1 << 4: "F",
    },
    "|",
    _bit(lambda number, _name: str(number)),
)
_FEW_FAULT_FLAGS = {1 << 0: "P", 1 << 1: "W", 1 << 2: "U", 1 << 3: "RSVD", 1 << 4: "F"}
FEW_FAULT_FLAGS = Flags(_FEW_FAULT_FLAGS, "|", _bit(lambda number, _name: str(number)))
OLD_FAULT_FLAGS = Flags(
    _FEW_FAULT_FLAGS,
    "|",
    lambda mask, name: f'{{ (1U << {mask.bit_length() - 1}), "{name}" }}',
)

"""The command by which a guest exits for a reason of one's choice."""

from __future__ import annotations

from errno import EINVAL

from fakesys.core.commands import Args, Operand, Option, Verb, flag, number_within, word
from fakesys.subsystems.apicv.commands.operands import NOT_IN_GUEST, apic_vcpu
from fakesys.subsystems.apicv.devices import guest_exits
from fakesys.subsystems.apicv.model import Apicv
from fakesys.subsystems.kvm.files.commands import VCPU, VM
from fakesys.subsystems.kvm.vcpu_run.instructions import ExitValues

_U8, _U16 = number_within(0, 0xFF), number_within(0, 0xFFFF)
_U32, _U64 = number_within(0, 0xFFFFFFFF), number_within(0, 0xFFFFFFFFFFFFFFFF)
# A command with more exits would keep others waiting.
MAX_EXITS = 10_000


def _size(text: str) -> int:
    value = number_within(1, 4)(text)
    return value if value != 3 else number_within(0, 0)(text)


REASON = Operand("REASON", word)
COUNT = Option("count", number_within(1, MAX_EXITS), 1, "how many such exits")
INFO1: Option[int | None] = Option("info1", _U64, None, "what the processor reports first")
INFO2: Option[int | None] = Option("info2", _U64, None, "and second")
WRITE = Option("write", flag, False, "io, msr, cr_access: the guest writes")
PORT = Option("port", _U16, 0x80, "io")
SIZE = Option("size", _size, 1, "io: bytes, 1, 2 or 4")
DATA = Option("data", _U64, 0, "what is read or written; skinit, invlpga: the address")
ECX = Option("ecx", _U32, 0x10, "msr: its number; invlpga: the ASID")
INDEX = Option("idx", _U32, 0, "cpuid: the subleaf")
CR = Option("cr", number_within(0, 8), 0, "cr_access: which")
NR = Option("nr", _U64, 0, "hypercall: which; cpuid: the leaf")
ARGUMENTS = tuple(Option(f"a{place}", _U64, 0, "hypercall: an argument") for place in range(4))
VECTOR = Option("vec", _U8, 6, "exception_nmi: which")
CODE = Option("code", _U32, 0, "exceptions: the error code")
FAILS = Option("fails", flag, False, "msr: the guest gets #GP")
KERNEL = Option("kernel", flag, False, "io: a device in the kernel has the port")


def _exit(apicv: Apicv, args: Args) -> str:
    a0, a1, a2, a3 = (args[option] for option in ARGUMENTS)
    values = ExitValues(
        info1=args[INFO1],
        info2=args[INFO2],
        write=args[WRITE],
        port=args[PORT],
        size=args[SIZE],
        data=args[DATA],
        ecx=args[ECX],
        index=args[INDEX],
        cr=args[CR],
        nr=args[NR],
        args=(a0, a1, a2, a3),
        vector=args[VECTOR],
        code=args[CODE],
        fails=args[FAILS],
        kernel=args[KERNEL],
    )
    vm, vcpu = apic_vcpu(apicv, args)
    guest_exits.leave(vm, vcpu, args[REASON], values, args[COUNT])
    return ""


VERBS: tuple[Verb[Apicv], ...] = (
    Verb(
        words=(VM, "vcpu", VCPU, "exit", REASON),
        options=(
            COUNT,
            INFO1,
            INFO2,
            WRITE,
            PORT,
            SIZE,
            DATA,
            ECX,
            INDEX,
            CR,
            NR,
            *ARGUMENTS,
            VECTOR,
            CODE,
            FAILS,
            KERNEL,
        ),
        run=_exit,
        errors=NOT_IN_GUEST | {EINVAL: "the processor has no such exit, or another command has"},
        doc="The guest exits and goes on. REASON: as kvm_exit prints it, `_` for a blank.",
    ),
)

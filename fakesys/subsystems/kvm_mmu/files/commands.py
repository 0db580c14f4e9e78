"""The commands of `fakesys/kvm/ctl` that concern memory (spec/control.md 3)."""

from __future__ import annotations

import errno as errno_numbers
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from errno import EEXIST, EINVAL, ENOENT, ENOMEM, ENOTTY, ERANGE

from fakesys.core.commands import (
    Args,
    Operand,
    Option,
    OptionalOperand,
    Tail,
    Verb,
    flag,
    number,
    number_within,
    octets,
    size,
    word,
    words_of,
)
from fakesys.core.errors import KernelError
from fakesys.subsystems.kvm.files.commands import VCPU, VM, vcpu_of, vm_of
from fakesys.subsystems.kvm.vm import Vcpu, Vm
from fakesys.subsystems.kvm_mmu.extension import MmuExtension
from fakesys.subsystems.kvm_mmu.guest.bulk import touch
from fakesys.subsystems.kvm_mmu.guest.programs import Item, Left, guest_tables
from fakesys.subsystems.kvm_mmu.guest.race import RaceSetup, race
from fakesys.subsystems.kvm_mmu.guest.real_mode import RealMode
from fakesys.subsystems.kvm_mmu.shadow.policy import ZapFlow
from fakesys.subsystems.kvm_mmu.slots.memslots import LOG_DIRTY_PAGES, READONLY, Region
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory

MOST_ACCESSES = 1 << 28

_FLAG_NAMES = {"log_dirty": LOG_DIRTY_PAGES, "readonly": READONLY}
_ITEM_KINDS = ("r", "w", "x", "w64", "rloop", "wloop")


def _flags(text: str) -> int:
    """`log_dirty,readonly` or a number. Raises EINVAL, ERANGE."""
    if text[:1].isdigit():
        return number(text)
    flags = 0
    for name in text.split(","):
        if name not in _FLAG_NAMES:
            raise KernelError(EINVAL, f"{name!r} is neither log_dirty nor readonly")
        flags |= _FLAG_NAMES[name]
    return flags


def _regions(text: str) -> tuple[int, ...]:
    return tuple(number(word) for word in text.split(","))


def _item(text: str) -> Item:
    """One step of a program, such as `w=0x400000` or `wloop=0x400000,512`. Raises EINVAL."""
    kind, _, arguments = text.partition("=")
    numbers = [number(word) for word in arguments.split(",")]
    if kind not in _ITEM_KINDS:
        raise KernelError(EINVAL, f"{kind!r} is none of {', '.join(_ITEM_KINDS)}")
    if kind == "w64" and len(numbers) == 2:
        return Item(kind, numbers[0], value=numbers[1])
    if kind.endswith("loop") and len(numbers) in (2, 3):
        return Item(kind, numbers[0], times=numbers[1], stride=(*numbers, 4096)[2])
    if len(kind) == 1 and len(numbers) == 1:
        return Item(kind, numbers[0])
    raise KernelError(EINVAL, f"{text!r} has not the numbers of a {kind}")


SLOT = Operand("SLOT", number)
MEM = Operand("MEM", word)
FLAGS = Option("flags", _flags, 0, "log_dirty, readonly, or a number")
GPA = Option("gpa", number, 0, "guest physical address", required=True)
BYTES = Option("size", size, 0, "bytes", required=True)
BACKING = Option("mem", word, "", "the memory behind it")
OFFSET = Option("off", size, 0, "offset within the memory")
ADDRESS = Option("ua", number, 0, "a raw host address, without memory behind it")
THP = Option("thp", flag, False, "1: in pages of 2 MiB")
HEX = Option("hex", octets, b"", "bytes as hex digits", required=True)
TABLES = Option("n", number_within(1, 512), 32, "page tables, 2 MiB each")
LARGE = Option[tuple[int, ...]]("large", _regions, (), "regions mapped by one 2 MiB entry")
REAL = Option("real", flag, False, "1: real mode")
KIND = Operand("r|w|x", words_of("r", "w", "x"), one_of=("r", "w", "x"))
WHERE = Operand("ADDR", number)
TIMES = Option("n", number_within(1, MOST_ACCESSES), 1, "how many accesses")
STRIDE = Option("stride", size, 4096, "bytes from one access to the next")
VALUE = Option[int | None]("value", number, None, "what is written, 8 bytes")
CR3_VALUE = Operand("VALUE", number)
FIRST = Option("first", number, 0, "first page", required=True)
PAGES = Option("n", number, 0, "number of pages", required=True)
CAP = Operand("NR", number)
ARGUMENT = Operand("ARG", number)
MASK = Operand("MASK", number)
BUDGET = OptionalOperand[int | None]("N", number, None)
CALLS = Option("n", number_within(1, 1 << 20), 1, "calls")
PROTECTION = Option("prot", words_of("r", "rw"), "rw", "what the host may do", required=True)
HAPPENS = Operand(
    "invalidate|unmap", words_of("invalidate", "unmap"), one_of=("invalidate", "unmap")
)
RACE_SLOT = Option("slot", number, 0, "the slot to delete", required=True)
RACERS = Option("vcpus", number_within(0, 64), 4, "vCPUs that fault meanwhile")
WORKING_SET = Option("ws", size, 64 << 20, "bytes that each vCPU touches")
FLOW = Option[str | None](
    "flow", words_of(*(flow.value for flow in ZapFlow)), None, "the flow; else the kernel's"
)
SEED = Option("seed", number, 1, "of the order in which the vCPUs begin")
MOST_ROUNDS = Option(
    "max_rounds", number_within(1, 1_000_000), 100_000, "drops of the lock that mean livelock"
)
MOST_TIME = Option("max_time", number_within(1, 3600), 60, "virtual seconds that mean livelock")

NO_VM = {ENOENT: "there is no such VM"}
NO_VCPU = {ENOENT: "there is no such VM or vCPU, or it is closed"}
NO_MEMORY = {ENOENT: "there is no such VM or memory"}

Handler = Callable[[MmuExtension, Args], str]


def _memory(mmu: MmuExtension, args: Args) -> VmMemory:
    return mmu.memories[vm_of(mmu.kvm, args)]


@contextmanager
def _as(mmu: MmuExtension, vcpu: Vcpu) -> Iterator[None]:
    """What happens happens in the vCPU's thread; a refused command was no run."""
    before, mmu.bus.task = mmu.bus.task, vcpu.task
    mmu.mmus[vcpu].acts = True
    try:
        yield
    finally:
        mmu.mmus[vcpu].acts = False
        mmu.bus.task = before
    vcpu.runs()


def _add_memory(mmu: MmuExtension, args: Args) -> str:
    _memory(mmu, args).host.add(args[MEM], args[BYTES], thp=args[THP])
    return ""


def _host_write(mmu: MmuExtension, args: Args) -> str:
    _memory(mmu, args).host.named(args[MEM]).write(args[OFFSET], args[HEX])
    return ""


def _set_slot(mmu: MmuExtension, args: Args) -> str:
    memory = _memory(mmu, args)
    address = args[ADDRESS]
    if args[BACKING]:
        address = memory.host.named(args[BACKING]).hva + args[OFFSET]
    region = Region(args[SLOT], args[FLAGS], args[GPA], args[BYTES], address)
    zapped = memory.set_region(region)
    return "" if zapped is None else f"zapped={zapped.pages} rounds={zapped.rounds}"


def _guest_tables(mmu: MmuExtension, args: Args) -> str:
    guest_tables(_memory(mmu, args), regions=args[TABLES], large=args[LARGE])
    return ""


def _set_up(mmu: MmuExtension, args: Args) -> str:
    vcpu = vcpu_of(mmu.kvm, args)
    vcpu.hold()
    mmu.guests[vcpu].set_up(real=args[REAL])
    return ""


def _set_cr3(mmu: MmuExtension, args: Args) -> str:
    mmu.guests[vcpu_of(mmu.kvm, args)].set_cr3(args[CR3_VALUE])
    return ""


def _run(mmu: MmuExtension, args: Args) -> str:
    vcpu = vcpu_of(mmu.kvm, args)
    items = [_item(text) for text in args.tail]
    with _as(mmu, vcpu):
        return exits_word(mmu.guests[vcpu].run(items))


def _run_real(mmu: MmuExtension, args: Args) -> str:
    vcpu = vcpu_of(mmu.kvm, args)
    guest = mmu.guests[vcpu]
    if not guest.registers.real:
        raise KernelError(EINVAL, "the vCPU is not in real mode")
    with _as(mmu, vcpu):
        return exits_word(RealMode(mmu.memories[vcpu.vm], mmu.mmus[vcpu], guest).run(args[HEX]))


def _access(mmu: MmuExtension, args: Args) -> str:
    vcpu = vcpu_of(mmu.kvm, args)
    guest, memory = mmu.guests[vcpu], mmu.memories[vcpu.vm]
    if not guest.registers.ready and not memory.kit.knobs.tdp:
        raise KernelError(EINVAL, "the vCPU is not set up: nothing says how it translates")
    with _as(mmu, vcpu):
        touched = touch(
            memory,
            mmu.mmus[vcpu],
            guest,
            args[KIND],
            args[WHERE],
            times=args[TIMES],
            stride=args[STRIDE],
            value=args[VALUE],
        )
    return " ".join(filter(None, (f"faults={touched.faults}", exits_word(touched.exits))))


def exits_word(exits: Iterable[Left]) -> str:
    """`exits=...`; empty when there is none."""
    words = [_exit(left) for left in exits]
    return "exits=" + ",".join(words) if words else ""


def _exit(left: Left) -> str:
    if left.reason is None:
        return errno_numbers.errorcode[left.errno]
    if left.mmio is None:
        return left.reason.name
    address, write, length = left.mmio
    return f"MMIO:{address:#x}:{'write' if write else 'read'}:{length}"


def _get_dirty(mmu: MmuExtension, args: Args) -> str:
    ranges = _memory(mmu, args).dirty.get(args[SLOT])
    words = [str(low) if low == high else f"{low}-{high}" for low, high in ranges]
    return "dirty=" + (",".join(words) or "none")


def _clear_dirty(mmu: MmuExtension, args: Args) -> str:
    _memory(mmu, args).dirty.clear(args[SLOT], args[FIRST], args[PAGES])
    return ""


def _cap(mmu: MmuExtension, args: Args) -> str:
    _memory(mmu, args).enable_cap(args[CAP], args[ARGUMENT])
    return ""


def _quirks(mmu: MmuExtension, args: Args) -> str:
    _memory(mmu, args).disable_quirks(args[MASK])
    return ""


def _nr_mmu_pages(mmu: MmuExtension, args: Args) -> str:
    memory, budget = _memory(mmu, args), args[BUDGET]
    if budget is None:
        return f"value={memory.get_nr_mmu_pages()}"
    memory.set_nr_mmu_pages(budget)
    return ""


def _notify(mmu: MmuExtension, args: Args) -> str:
    memory = _memory(mmu, args)
    backing = memory.host.named(args[MEM])
    act = memory.notifier.unmap if args[HAPPENS] == "unmap" else memory.notifier.invalidate
    act(backing, args[OFFSET], args[BYTES])
    return ""


def _protect(mmu: MmuExtension, args: Args) -> str:
    memory = _memory(mmu, args)
    backing = memory.host.named(args[MEM])
    memory.notifier.protect(backing, args[OFFSET], args[BYTES], writable=args[PROTECTION] == "rw")
    return ""


def _shrink(mmu: MmuExtension, args: Args) -> str:
    return f"freed={sum(mmu.shrinker.scan() for _ in range(args[CALLS]))}"


def _race(mmu: MmuExtension, args: Args) -> str:
    vm: Vm = vm_of(mmu.kvm, args)
    setup = RaceSetup(
        slot=args[RACE_SLOT],
        vcpus=args[RACERS],
        working_set=args[WORKING_SET],
        flow=None if args[FLOW] is None else ZapFlow(args[FLOW]),
        seed=args[SEED],
        max_rounds=args[MOST_ROUNDS],
        max_time_ns=args[MOST_TIME] * 1_000_000_000,
    )
    result = race(mmu.memories[vm], setup)
    mmu.races[vm] = result
    return result.words()


def verbs() -> tuple[Verb[MmuExtension], ...]:
    """The commands."""
    return (*_memory_verbs(), *_guest_verbs(), *_ioctl_verbs(), *_host_verbs())


def _memory_verbs() -> tuple[Verb[MmuExtension], ...]:
    return (
        Verb(
            words=(VM, "mem", MEM),
            options=(BYTES, THP),
            run=_add_memory,
            errors=NO_VM
            | {
                EEXIST: "there is such memory",
                EINVAL: "no number of pages",
                ENOMEM: "the owner's address space is too small",
            },
            doc="Host memory of the VM's owner, 2 MiB aligned, all present.",
        ),
        Verb(
            words=(VM, "host_write", MEM),
            options=(OFFSET, HEX),
            run=_host_write,
            errors=NO_MEMORY | {EINVAL: "beyond the end of the memory, or not hex"},
            doc="The owner writes guest memory: no fault, no event.",
        ),
        Verb(
            words=(VM, "slot", SLOT),
            options=(GPA, BYTES, BACKING, OFFSET, ADDRESS, FLAGS),
            run=_set_slot,
            errors=NO_MEMORY
            | {
                EINVAL: "not page aligned, out of range, unknown flag, or not the slot's size, "
                "address and kind; size 0 without such a slot",
                EEXIST: "overlaps another slot",
                ERANGE: "a number of more than 64 bits",
            },
            doc="KVM_SET_USER_MEMORY_REGION: create, move, change flags; size=0 deletes.",
        ),
        Verb(
            words=(VM, "guest_tables"),
            options=(TABLES, LARGE),
            run=_guest_tables,
            errors=NO_VM | {EINVAL: "slot 0 is not at gpa 0, has no memory, or not enough"},
            doc="Guest page tables at 0x10000 in slot 0: an identity map.",
        ),
    )


def _guest_verbs() -> tuple[Verb[MmuExtension], ...]:
    return (
        Verb(
            words=(VM, "vcpu", VCPU, "setup"),
            options=(REAL,),
            run=_set_up,
            errors=NO_VCPU,
            doc="Registers: 64-bit user code with CR3 0x10000 at 0x1000, or real mode.",
        ),
        Verb(
            words=(VM, "vcpu", VCPU, "cr3", CR3_VALUE),
            run=_set_cr3,
            errors=NO_VCPU,
            doc="KVM_SET_SREGS with another CR3.",
        ),
        Verb(
            words=(VM, "vcpu", VCPU, "run", Tail("ITEM...")),
            run=_run,
            errors=NO_VCPU
            | {EINVAL: "not set up for 64-bit programs, no such item, or too many accesses"},
            doc="A program: fetches, r=A w=A x=A w64=A,V rloop=A,N[,S] wloop=A,N[,S], doorbell.",
        ),
        Verb(
            words=(VM, "vcpu", VCPU, "run_real"),
            options=(HEX,),
            run=_run_real,
            errors=NO_VCPU | {EINVAL: "not in real mode"},
            doc="These bytes at 0x1000, until an exit that is neither MMIO nor IO.",
        ),
        Verb(
            words=(VM, "vcpu", VCPU, "access", KIND, WHERE),
            options=(TIMES, STRIDE, VALUE),
            run=_access,
            errors=NO_VCPU
            | {EINVAL: "not set up, with shadow paging; or too many accesses one by one"},
            doc="The guest makes these accesses and nothing else.",
        ),
    )


def _ioctl_verbs() -> tuple[Verb[MmuExtension], ...]:
    return (
        Verb(
            words=(VM, "dirty_log", SLOT),
            run=_get_dirty,
            errors={ENOENT: "no such VM, or the slot is not logged", EINVAL: "no such slot id"},
            doc="KVM_GET_DIRTY_LOG.",
        ),
        Verb(
            words=(VM, "clear_dirty", SLOT),
            options=(FIRST, PAGES),
            run=_clear_dirty,
            errors={
                ENOENT: "no such VM, or the slot is not logged",
                EINVAL: "not a multiple of 64 pages, or beyond the slot",
            },
            doc="KVM_CLEAR_DIRTY_LOG.",
        ),
        Verb(
            words=(VM, "cap", CAP, ARGUMENT),
            run=_cap,
            errors=NO_VM | {EINVAL: "no such capability, or not such an argument"},
            doc="KVM_ENABLE_CAP: 168 (manual dirty log), 213 (quirks), 220 (no nx_huge_pages).",
        ),
        Verb(
            words=(VM, "quirks", MASK),
            run=_quirks,
            errors=NO_VM | {EINVAL: "the kernel has no such quirk"},
            doc="KVM_CAP_DISABLE_QUIRKS2.",
        ),
        Verb(
            words=(VM, "nr_mmu_pages", BUDGET),
            run=_nr_mmu_pages,
            errors=NO_VM | {EINVAL: "fewer than 64", ENOTTY: "GET is gone in this kernel"},
            doc="KVM_SET_NR_MMU_PAGES; without a number KVM_GET_NR_MMU_PAGES.",
        ),
    )


def _host_verbs() -> tuple[Verb[MmuExtension], ...]:
    return (
        Verb(
            words=(VM, "notifier", HAPPENS, MEM),
            options=(OFFSET, BYTES),
            run=_notify,
            errors=NO_MEMORY | {EINVAL: "not pages of the memory"},
            doc="The host invalidates a range; unmap: its pages are gone until touched.",
        ),
        Verb(
            words=(VM, "notifier", "protect", MEM),
            options=(OFFSET, BYTES, PROTECTION),
            run=_protect,
            errors=NO_MEMORY | {EINVAL: "not pages of the memory"},
            doc="The host may only read a range, or write it again.",
        ),
        Verb(
            words=("shrink",),
            options=(CALLS,),
            run=_shrink,
            doc="Calls of the shrinker: one VM each gives up one page.",
        ),
        Verb(
            words=(VM, "race"),
            options=(RACE_SLOT, RACERS, WORKING_SET, FLOW, SEED, MOST_ROUNDS, MOST_TIME),
            run=_race,
            errors={
                ENOENT: "no such VM or slot",
                EINVAL: "the slot's number cannot be one, or more than 1 TiB of working sets",
            },
            doc="Delete a slot while vCPUs fault over their working sets.",
        ),
    )
